"""Figure 6: CIFAR-10, stochastic L: attack success, and what the top eigenvector shows, over theta and kappa.

python main.py --config=configs/sweeps/fig06.py
python main.py --config=configs/sweeps/fig06.py:small
python main.py --config=configs/sweeps/fig06.py:short
"""

from configs import common


def get_config(size=""):
    config = common.sweep("fig06", size)
    config.sweep.grids = common.plane(size)
    return config
