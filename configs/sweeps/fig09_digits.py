"""Figure 9 on handwritten digits, in the paper's regime: deterministic L, poisoned data at hand.

python main.py --config=configs/sweeps/fig09_digits.py

30 networks: a quarter of an hour on two CPU cores.
"""

from configs import common


def get_config(size=""):
    config = common.deterministic(common.sweep("fig09-digits", size, common.DIGITS))
    thetas, kappas = (0.005, 0.01, 0.02, 0.1), (0.0, 100.0)
    config.sweep.grids = common.plane("small", thetas, kappas)
    return config
