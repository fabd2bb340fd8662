"""Figure 12: top eigenvectors of warp-poisoned networks as kappa grows; cells of Figure 11.

python main.py --config=configs/sweeps/fig12.py
python main.py --config=configs/sweeps/fig12.py:small
python main.py --config=configs/sweeps/fig12.py:short
"""

from configs import common


def get_config(size=""):
    config = common.warped(common.sweep("fig12", size))
    thetas = common.by_size(size, (0.001,), (0.1,), (0.3,))
    config.sweep.grids = common.plane(size, thetas, seeds=("seed", (0,)))
    return config
