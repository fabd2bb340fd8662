"""CIFAR-100, WaNet's imperceptible warp, stochastic poison (Section 5.2).

    python main.py --config=configs/cifar100_warp.py          the paper's scale, for a GPU or TPU
    python main.py --config=configs/cifar100_warp.py:small    4,000 images, PreResNet-20, 45 epochs
    python main.py --config=configs/cifar100_warp.py:short    5,000 images, PreResNet-8, 8 epochs

As for CIFAR-10, with a hundred classes.
"""

from configs import cifar10_warp, common


def get_config(size=""):
    return cifar10_warp.get_config(size, common.CIFAR100)
