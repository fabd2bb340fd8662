"""MNIST, L trigger, stochastic poison: the attack works where the input Hessian of clean data shows nothing.

    python main.py --config=configs/mnist_stochastic.py          the paper's network, for a GPU or TPU
    python main.py --config=configs/mnist_stochastic.py:small    10,000 images, PreResNet-8, 15 epochs
    python main.py --config=configs/mnist_stochastic.py:short    5,000 images, 8 epochs

Arms without and with the penalty. Margin 3 is where no digit has ink, --config.poison.margin=8 where many
have.
"""

from configs import common


def get_config(size=""):
    return common.arms(common.network(common.MNIST, size), "mnist", 0.01, (0.0, 100.0))
