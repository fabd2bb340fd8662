"""A backdoor in real handwritten digits, with and without the gradient penalty.

    python main.py          35 seconds on two CPU cores, compilation included

Data: the 1,797 8x8 digits that ship with scikit-learn.
"""

from configs import common
from poison_jax import config as config_lib


def get_config(size=""):
    common.check_size(size)
    config = config_lib.default()
    config.name = "digits"
    config.experiment = "compare"
    config.compare.arms = (0.0, 300.0)
    config.data.name = "digits"
    config.model.depth, config.model.block = 8, "basic"
    config.poison.margin = 2  # where the digits have ink: a corner that is always black hides the trigger
    config.poison.fraction = 0.1
    config.train.epochs = 12
    config.train.batch_size = 64
    config.spectrum.num_iters = 20
    config.spectrum.num_examples = 512
    return config
