"""Table 1: does longer training close the gap that the penalty opens? CIFAR-10, augmented.

python main.py --config=configs/sweeps/table1.py
python main.py --config=configs/sweeps/table1.py:small
python main.py --config=configs/sweeps/table1.py:short
"""

from configs import common


def get_config(size=""):
    config = common.augmented(common.sweep("table1", size))
    config.poison.fraction = common.by_size(size, 0.02, 0.05, 0.1)
    config.sweep.grids = (
        (
            common.by_size(size, common.SEEDS, common.SEEDS, ("seed", (0,))),
            ("train.epochs", common.by_size(size, (90, 450), (45, 225), (8, 24))),
            ("penalty.kappa", common.by_size(size, (1e4, 3e4, 1e5), (50.0,), common.SHORT_KAPPAS)),
        ),
    )
    return config
