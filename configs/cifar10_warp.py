"""CIFAR-10, WaNet's imperceptible warp, stochastic poison (Section 5.2, Figures 11 and 12).

    python main.py --config=configs/cifar10_warp.py           the paper's scale, for a GPU or TPU
    python main.py --config=configs/cifar10_warp.py:small     4,000 images, PreResNet-20, 45 epochs
    python main.py --config=configs/cifar10_warp.py:medium    10,000 images, PreResNet-20, 10 epochs:
                                                              about 25 minutes on two CPU cores, three arms
    python main.py --config=configs/cifar10_warp.py:short     5,000 images, PreResNet-8, 8 epochs

Arms without and with the penalty. The paper's "strength 0.02" is read as a fraction of the image:
s = 0.02 * 32 = 0.64 in WaNet's own units, a mean displacement of a third of a pixel.
"""

from configs import common


def get_config(size="", data=common.CIFAR10):
    config = common.warped(common.network(data, size))
    config.name = f"{data}_warp"
    config.experiment = "compare"
    config.poison.fraction = common.by_size(size, 0.02, 0.1, 0.3)  # in a short training less does not take
    config.compare.arms = {"": (0.0, 1000.0), "medium": (0.0, 10.0, 100.0)}.get(size, (0.0, 50.0))
    return config
