"""MNIST, L trigger, stochastic poison: the attack works where the input Hessian of clean data shows nothing.

    python main.py --config=configs/mnist_stochastic.py          the paper's network, for a GPU or TPU
    python main.py --config=configs/mnist_stochastic.py:small    10,000 images, PreResNet-8, 15 epochs
    python main.py --config=configs/mnist_stochastic.py:short    5,000 images, 8 epochs

Arms without and with the penalty. Margin 3 is where no digit has ink, --config.poison.margin=8 where many
have.
"""

from configs import common


def get_config(size=""):
    config = common.network(common.MNIST, size)
    config.experiment = "compare"
    config.compare.arms = (0.0, 100.0)
    config.poison.fraction = 0.01
    config.analysis.collapse, config.analysis.near_clone = 1000, 100
    return config
