"""Table 1: does longer training close the gap that the penalty opens? CIFAR-10, augmented.

python main.py --config=configs/sweeps/table1.py
python main.py --config=configs/sweeps/table1.py:small
"""

from configs import common


def get_config(size=""):
    config = common.augmented(common.sweep("table1", size))
    config.poison.fraction = 0.1 if size else 0.02
    config.sweep.grids = (
        (
            ("seed", (0,)) if size else common.SEEDS,
            ("train.epochs", (8, 24) if size else (90, 450)),
            ("penalty.kappa", common.SMALL_KAPPAS if size else (1e4, 3e4, 1e5)),
        ),
    )
    return config
