"""Theorem A on digits: penalties so small that the slope of the efficacy at kappa = 0 shows.

python main.py --config=configs/sweeps/visibility_digits.py --workdir=fig06-runs
python -m poison_jax.visibility fig06-runs/digits-*

Poisoned networks and their clean twins, whose siblings at kappa = 0 are Figure 6's, in the same folder.
27 networks: ten minutes on two CPU cores.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("visibility-digits", size, common.DIGITS)
    config.sweep.grids = (
        (common.SEEDS, ("poison.fraction", (0.0, 0.05, 0.1)), ("penalty.kappa", (1.0, 3.0, 10.0))),
    )
    return config
