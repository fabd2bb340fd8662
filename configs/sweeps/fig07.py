"""Figure 7: the same with random 28x28 crops and flips: attack success and clean accuracy.

python main.py --config=configs/sweeps/fig07.py
python main.py --config=configs/sweeps/fig07.py:small
python main.py --config=configs/sweeps/fig07.py:short
"""

from configs import common


def get_config(size=""):
    config = common.augmented(common.sweep("fig07", size))
    config.sweep.grids = common.plane(size, common.by_size(size, None, None, (0.1, 0.3)))
    return config
