"""Figure 11: CIFAR-10, WaNet's warp: clean accuracy and attack success over kappa, for two theta.

python main.py --config=configs/sweeps/fig11.py
python main.py --config=configs/sweeps/fig11.py:small
python main.py --config=configs/sweeps/fig11.py:short
"""

from configs import common


def get_config(size=""):
    config = common.warped(common.sweep("fig11", size))
    thetas = common.by_size(size, (0.001, 0.02), (0.05, 0.1), (0.1, 0.3))
    config.sweep.grids = common.plane(size, thetas)
    return config
