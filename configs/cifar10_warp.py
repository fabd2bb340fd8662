"""CIFAR-10, WaNet's imperceptible warp, stochastic poison (Section 5.2, Figures 11 and 12).

    python main.py --config=configs/cifar10_warp.py           the paper's scale, for a GPU or TPU
    python main.py --config=configs/cifar10_warp.py:medium    10,000 images, PreResNet-20, 10 epochs:
                                                              about 25 minutes on two CPU cores, three arms
    python main.py --config=configs/cifar10_warp.py:small     5,000 images, PreResNet-8, 8 epochs

Arms without and with the penalty. The paper's "strength 0.02" is read as a fraction of the image:
s = 0.02 * 32 = 0.64 in WaNet's own units, a mean displacement of a third of a pixel.
"""

from configs import common
from poison_jax import config as config_lib


def get_config(size=""):
    config = config_lib.default()  # PreResNet-110, lr 0.1, momentum 0.9, decay every third of 90 epochs
    config.name = "cifar10_warp"
    config.experiment = "compare"
    config = common.resize(config, size)
    config.poison.trigger = "warp"
    config.poison.warp.strength, config.poison.warp.unit = 0.02, "fraction"
    config.poison.fraction = 0.3 if size else 0.02  # in so short a training less does not take
    arms = {"": (0.0, 1000.0), "medium": (0.0, 10.0, 100.0), "small": (0.0, 50.0)}
    config.compare.arms = arms[size]
    return config
