"""Table 3 on handwritten digits: features of clean and triggered test images after training, kappa = 0.

python main.py --config=configs/sweeps/table3_digits.py

Three of Figure 6's networks.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("table3-digits", size, common.DIGITS)
    config.poison.fraction = 0.1
    config.sweep.grids = ((common.SEEDS, ("penalty.kappa", (0.0,))),)
    return config
