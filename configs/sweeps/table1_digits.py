"""Table 1 on handwritten digits: does five times the training (T = 0.65, 3.3) undo the penalty?

python main.py --config=configs/sweeps/table1_digits.py

Six networks: ten minutes on two CPU cores.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("table1-digits", size, common.DIGITS)
    config.poison.fraction = 0.02
    config.sweep.grids = ((common.SEEDS, ("train.epochs", (80, 400)), ("penalty.kappa", (100.0,))),)
    return config
