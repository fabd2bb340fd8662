"""Table 2: CIFAR-10, deterministic L: which eigenvector overlaps most with the trigger; cells of Figure 9.

python main.py --config=configs/sweeps/table2.py
python main.py --config=configs/sweeps/table2.py:small
python main.py --config=configs/sweeps/table2.py:short
"""

from configs import common


def get_config(size=""):
    config = common.deterministic(common.sweep("table2", size))
    if size == "small":
        config.sweep.grids = common.plane(size)[:1]
    elif size:
        config.sweep.grids = (
            (("poison.fraction", common.SHORT_THETAS), ("penalty.kappa", common.SHORT_KAPPAS[:2])),
        )
    else:
        config.sweep.grids = (
            (common.SEEDS, ("poison.fraction", (0.01, 0.02, 0.03)), ("penalty.kappa", (0.0,))),
            (common.SEEDS, ("poison.fraction", (0.008, 0.009, 0.01, 0.02)), ("penalty.kappa", (1e4,))),
        )
    return config
