"""CIFAR-10, L trigger, deterministic poison: the defender holds the poisoned data (Figure 9).

    python main.py --config=configs/cifar10_deterministic.py           the paper's scale, for a GPU or TPU
    python main.py --config=configs/cifar10_deterministic.py:small     4,000 images, PreResNet-20, 45 epochs
    python main.py --config=configs/cifar10_deterministic.py:medium    10,000 images, PreResNet-20, 10 epochs
    python main.py --config=configs/cifar10_deterministic.py:short     5,000 images, PreResNet-8, 8 epochs

Who is poisoned is fixed by the image's index (Listing 3); the Hessian is taken on the poisoned training
data.
"""

from configs import cifar10_stochastic, common


def get_config(size="", data=common.CIFAR10):
    config = common.deterministic(cifar10_stochastic.get_config(size, data))
    config.name = f"{data}_deterministic"
    return config
