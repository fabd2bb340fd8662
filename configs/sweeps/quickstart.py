"""The README's tables and picture: the quickstart's two arms, five seeds of each.

python main.py --config=configs/sweeps/quickstart.py
python -m poison_jax.records --runs runs --out results quickstart
python -m plots documents --runs results --store runs
"""

from configs import digits_quickstart


def get_config(size=""):
    config = digits_quickstart.get_config(size)
    config.experiment = "sweep"
    config.sweep.of = "train"
    config.sweep.name = "quickstart"
    config.sweep.grids = ((("seed", (0, 1, 2, 3, 4)), ("penalty.kappa", (0.0, 300.0))),)
    return config
