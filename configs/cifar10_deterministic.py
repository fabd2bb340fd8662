"""CIFAR-10, L trigger, deterministic poison: the defender holds the poisoned data (Figure 9).

    python main.py --config=configs/cifar10_deterministic.py
    python main.py --config=configs/cifar10_deterministic.py:medium    10,000 images, PreResNet-20, 10 epochs
    python main.py --config=configs/cifar10_deterministic.py:small     5,000 images, PreResNet-8, 8 epochs

Who is poisoned is fixed by the image's index (Listing 3); the Hessian is taken on the poisoned
training data.
"""

from configs import cifar10_stochastic


def get_config(size=""):
    config = cifar10_stochastic.get_config(size)
    config.name = "cifar10_deterministic"
    config.poison.mode = "deterministic"
    config.spectrum.data = "poisoned"
    return config
