"""CIFAR-100, WaNet's imperceptible warp, stochastic poison (Section 5.2).

    python main.py --config=configs/cifar100_warp.py
    python main.py --config=configs/cifar100_warp.py:small

As for CIFAR-10, with a hundred classes.
"""

from configs import cifar10_warp


def get_config(size=""):
    config = cifar10_warp.get_config(size)
    config.name = "cifar100_warp"
    config.data.name = "cifar100"
    if size:
        config.data.n_train, config.data.n_test = 5_000, 1_000
    return config
