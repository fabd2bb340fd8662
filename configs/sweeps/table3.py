"""Table 3: CIFAR-10, stochastic L: features of clean and triggered images, class by class; cells of Figure 6.

python main.py --config=configs/sweeps/table3.py
python main.py --config=configs/sweeps/table3.py:small
"""

from configs import common


def get_config(size=""):
    config = common.sweep("table3", size)
    config.poison.fraction = 0.1 if size else 0.01
    config.sweep.grids = ((common.SMALL_SEEDS if size else common.SEEDS,),)
    return config
