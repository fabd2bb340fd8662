"""Figure 10: CIFAR-100, stochastic L: the trade-off, and the gap between attack and detection.

python main.py --config=configs/sweeps/fig10.py
python main.py --config=configs/sweeps/fig10.py:small
python main.py --config=configs/sweeps/fig10.py:short
"""

from configs import common


def get_config(size=""):
    config = common.sweep("fig10", size, common.CIFAR100)
    config.sweep.grids = common.plane(size)
    return config
