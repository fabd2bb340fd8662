"""CIFAR-100, deterministic poison.

    python main.py --config=configs/cifar100_deterministic.py          the paper's scale, for a GPU or TPU
    python main.py --config=configs/cifar100_deterministic.py:small    4,000 images, PreResNet-20, 45 epochs
    python main.py --config=configs/cifar100_deterministic.py:short    5,000 images, PreResNet-8, 8 epochs

As for CIFAR-10, with a hundred classes.
"""

from configs import cifar10_deterministic, common


def get_config(size=""):
    return cifar10_deterministic.get_config(size, common.CIFAR100)
