"""Figure 6: CIFAR-10, stochastic L: attack success, and what the top eigenvector shows, over theta and kappa.

python main.py --config=configs/sweeps/fig06.py
python main.py --config=configs/sweeps/fig06.py:small
python main.py --config=configs/sweeps/fig06.py:short
"""

from configs import common


def get_config(size=""):
    config = common.sweep("fig06", size)
    seeds = common.by_size(size, common.SEEDS, common.SEEDS, common.SHORT_SEEDS)
    config.sweep.grids = common.plane(size, seeds=seeds)
    return config
