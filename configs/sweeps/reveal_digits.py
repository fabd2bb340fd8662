"""Does the penalty reveal the trigger? Digits: kappa so small that the attack works as well as without.

python main.py --config=configs/sweeps/reveal_digits.py

20 networks, whose siblings at kappa = 0 are Figure 6's: eight minutes on two CPU cores.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("reveal-digits", size, common.DIGITS)
    config.sweep.grids = (
        (("seed", (0, 1, 2, 3, 4)), ("poison.fraction", (0.05, 0.1)), ("penalty.kappa", (3.0, 10.0))),
    )
    return config
