"""CIFAR-100, L trigger, stochastic poison (Figure 10).

    python main.py --config=configs/cifar100_stochastic.py
    python main.py --config=configs/cifar100_stochastic.py:small    5,000 images, PreResNet-8, 8 epochs

As for CIFAR-10, with a hundred classes.
"""

from configs import cifar10_stochastic


def get_config(size=""):
    config = cifar10_stochastic.get_config(size)
    config.name = "cifar100_stochastic"
    config.data.name = "cifar100"
    return config
