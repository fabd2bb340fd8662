"""Figure 6 on handwritten digits, in the paper's regime: theta from 0 through the transition, four kappa.

python main.py --config=configs/sweeps/fig06_digits.py
python main.py --config=configs/sweeps/fig06_digits.py:short

140 networks and 15 more clean ones: two to three hours on two CPU cores.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("fig06-digits", size, common.DIGITS)
    theta = ("poison.fraction", (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1))
    kappa = ("penalty.kappa", (0.0, 30.0, 100.0, 300.0))
    null = ("seed", tuple(range(20))), ("poison.fraction", (0.0,)), ("penalty.kappa", (0.0,))
    config.sweep.grids = ((("seed", (0, 1, 2, 3, 4)), theta, kappa), null)
    return config
