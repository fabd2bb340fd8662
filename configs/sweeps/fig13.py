"""Figure 13: CIFAR-100, deterministic L: attack success, largest overlap and the eigenvector that has it.

python main.py --config=configs/sweeps/fig13.py
python main.py --config=configs/sweeps/fig13.py:small
python main.py --config=configs/sweeps/fig13.py:short
"""

from configs import common


def get_config(size=""):
    config = common.deterministic(common.sweep("fig13", size, common.CIFAR100))
    config.sweep.grids = common.plane(size)
    return config
