"""A backdoor in real handwritten digits, with and without the gradient penalty.

    python main.py          35 seconds on two CPU cores, compilation included

Data: the 1,797 8x8 digits that ship with scikit-learn. A short training, not the paper's regime: for that
see digits_stochastic.py.
"""

from configs import common


def get_config(size=""):
    common.check_size(size)
    config = common.network(common.DIGITS, "short")
    config.experiment = "compare"
    config.compare.arms = (0.0, 300.0)
    config.poison.fraction = 0.1
    return config
