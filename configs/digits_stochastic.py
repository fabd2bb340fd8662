"""Handwritten digits, L trigger, stochastic poison, in the paper's regime: trained to the end.

    python main.py --config=configs/digits_stochastic.py          80 epochs, T = 0.65: a minute, both arms
    python main.py --config=configs/digits_stochastic.py:short    12 epochs: the quickstart's networks

The 1,797 8x8 digits that ship with scikit-learn, on which a small network generalises as the paper's do.
The trigger lies where the digits have ink; --config.poison.margin=0 puts it where no digit has any.
"""

from configs import common


def get_config(size=""):
    return common.arms(common.network(common.DIGITS, size), "digits", 0.1, (0.0, 300.0))
