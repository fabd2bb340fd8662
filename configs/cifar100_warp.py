"""CIFAR-100, WaNet's imperceptible warp, stochastic poison (Section 5.2).

    python main.py --config=configs/cifar100_warp.py
    python main.py --config=configs/cifar100_warp.py:small    5,000 images, PreResNet-8, 8 epochs

As for CIFAR-10, with a hundred classes.
"""

from configs import cifar10_warp


def get_config(size=""):
    config = cifar10_warp.get_config(size)
    config.name = "cifar100_warp"
    config.data.name = "cifar100"
    return config
