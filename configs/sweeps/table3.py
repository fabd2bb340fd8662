"""Table 3: CIFAR-10, stochastic L: features of clean and triggered images, class by class; cells of Figure 6.

python main.py --config=configs/sweeps/table3.py
python main.py --config=configs/sweeps/table3.py:small
python main.py --config=configs/sweeps/table3.py:short
"""

from configs import common


def get_config(size=""):
    config = common.sweep("table3", size)
    config.poison.fraction = common.by_size(size, 0.01, 0.05, 0.1)
    config.sweep.grids = ((common.by_size(size, common.SEEDS, common.SEEDS, common.SHORT_SEEDS),),)
    return config
