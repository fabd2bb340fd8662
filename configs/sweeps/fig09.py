"""Figure 9: CIFAR-10, deterministic L, the defender holds the poisoned data: as Figure 6.

python main.py --config=configs/sweeps/fig09.py
python main.py --config=configs/sweeps/fig09.py:small
python main.py --config=configs/sweeps/fig09.py:short
"""

from configs import common


def get_config(size=""):
    config = common.deterministic(common.sweep("fig09", size))
    config.sweep.grids = common.plane(size)
    return config
