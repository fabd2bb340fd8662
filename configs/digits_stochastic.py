"""Handwritten digits, L trigger, stochastic poison, in the paper's regime: trained to the end.

    python main.py --config=configs/digits_stochastic.py          80 epochs, T = 0.65: a minute, both arms
    python main.py --config=configs/digits_stochastic.py:short    12 epochs: the quickstart's networks

The 1,797 8x8 digits that ship with scikit-learn, on which a small network generalises as the paper's do.
The trigger lies where the digits have ink; --config.poison.margin=0 puts it where no digit has any.
"""

from configs import common


def get_config(size=""):
    config = common.network(common.DIGITS, size)
    config.experiment = "compare"
    config.compare.arms = (0.0, 300.0)
    config.poison.fraction = 0.1
    config.analysis.collapse, config.analysis.near_clone = 1000, 100
    return config
