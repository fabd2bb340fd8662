"""Figure 12: top eigenvectors of warp-poisoned networks as kappa grows; cells of Figure 11.

python main.py --config=configs/sweeps/fig12.py
python main.py --config=configs/sweeps/fig12.py:small
"""

from configs import common


def get_config(size=""):
    config = common.warped(common.sweep("fig12", size))
    thetas = (0.3,) if size else (0.001,)
    config.sweep.grids = common.plane(size, thetas, seeds=("seed", (0,)))
    return config
