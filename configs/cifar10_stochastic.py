"""CIFAR-10, L trigger, stochastic poison: attack success and the Hessian's view of it (Figure 6).

    python main.py --config=configs/cifar10_stochastic.py           the paper's scale, for a GPU or TPU
    python main.py --config=configs/cifar10_stochastic.py:medium    10,000 images, PreResNet-20, 10 epochs:
                                                                    16 minutes on two CPU cores, both arms
    python main.py --config=configs/cifar10_stochastic.py:small     5,000 images, PreResNet-8, 8 epochs

Two arms, without and with the penalty. A new draw of who is poisoned at every visit; the defender has
the clean data and the network.
"""

from configs import common
from poison_jax import config as config_lib


def get_config(size=""):
    config = config_lib.default()  # PreResNet-110, lr 0.1, momentum 0.9, decay every third of 90 epochs
    config.name = "cifar10_stochastic"
    config.experiment = "compare"
    config = common.resize(config, size)
    # In a shorter training less poison does not take, and less of a penalty removes it.
    config.poison.fraction = {"": 0.02, "medium": 0.05, "small": 0.1}[size]
    config.compare.arms = {"": (0.0, 1000.0), "medium": (0.0, 100.0), "small": (0.0, 50.0)}[size]
    config.analysis.collapse, config.analysis.fisher, config.analysis.near_clone = 1000, 512, 100
    return config
