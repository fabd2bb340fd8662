"""Figure 11 on handwritten digits, in the paper's regime: WaNet's own warp (s = 0.5) over kappa.

python main.py --config=configs/sweeps/fig11_digits.py

27 networks: half an hour on two CPU cores.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("fig11-digits", size, common.DIGITS)
    config.poison.trigger = "warp"
    config.sweep.grids = common.plane("small", (0.05, 0.1), (0.0, 30.0, 300.0))
    return config
