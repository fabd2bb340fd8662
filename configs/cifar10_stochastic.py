"""CIFAR-10, L trigger, stochastic poison: attack success and the Hessian's view of it (Figure 6).

    python main.py --config=configs/cifar10_stochastic.py           the paper's scale, for a GPU or TPU
    python main.py --config=configs/cifar10_stochastic.py:small     4,000 images, PreResNet-20, 45 epochs, to
                                                                    the end: half an hour on two CPU cores
    python main.py --config=configs/cifar10_stochastic.py:medium    10,000 images, PreResNet-20, 10 epochs:
                                                                    16 minutes on two CPU cores, both arms
    python main.py --config=configs/cifar10_stochastic.py:short     5,000 images, PreResNet-8, 8 epochs

Two arms, without and with the penalty. A new draw of who is poisoned at every visit; the defender has
the clean data and the network.
"""

from configs import common


def get_config(size="", data=common.CIFAR10):
    config = common.network(data, size)
    config.name = f"{data}_stochastic"
    config.experiment = "compare"
    # In a shorter training less poison does not take, and less of a penalty removes it.
    config.poison.fraction = {"": 0.02, "small": 0.05, "medium": 0.05, "short": 0.1}[size]
    config.compare.arms = {"": (0.0, 1000.0), "medium": (0.0, 100.0)}.get(size, (0.0, 50.0))
    config.analysis.collapse, config.analysis.fisher, config.analysis.near_clone = 1000, 512, 100
    return config
