"""CIFAR-100, L trigger, stochastic poison (Figure 10).

    python main.py --config=configs/cifar100_stochastic.py
    python main.py --config=configs/cifar100_stochastic.py:small

As for CIFAR-10, with a hundred classes.
"""

from configs import cifar10_stochastic


def get_config(size=""):
    config = cifar10_stochastic.get_config(size)
    config.name = "cifar100_stochastic"
    config.data.name = "cifar100"
    if size:
        config.data.n_train, config.data.n_test = 5_000, 1_000
    return config
