"""Figure 11: CIFAR-10, WaNet's warp: clean accuracy and attack success over kappa, for two theta.

python main.py --config=configs/sweeps/fig11.py
python main.py --config=configs/sweeps/fig11.py:small
"""

from configs import common


def get_config(size=""):
    config = common.warped(common.sweep("fig11", size))
    thetas = (0.1, 0.3) if size else (0.001, 0.02)
    config.sweep.grids = common.plane(size, thetas, seeds=("seed", (0,)) if size else None)
    return config
