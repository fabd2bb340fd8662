"""CIFAR-100, L trigger, deterministic poison: which eigenvector shows the trigger (Figure 13).

    python main.py --config=configs/cifar100_deterministic.py
    python main.py --config=configs/cifar100_deterministic.py:small    5,000 images, PreResNet-8, 8 epochs

As for CIFAR-10, with a hundred classes.
"""

from configs import cifar100_stochastic


def get_config(size=""):
    config = cifar100_stochastic.get_config(size)
    config.name = "cifar100_deterministic"
    config.poison.mode = "deterministic"
    config.spectrum.data = "poisoned"
    return config
