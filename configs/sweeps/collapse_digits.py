"""What governs the collapse of triggered features: decay time, epochs or weight decay? Digits, kappa = 0.

python main.py --config=configs/sweeps/collapse_digits.py

Weight decay at fixed epochs; epochs at fixed weight decay; epochs at fixed decay time
T = sum_t lr_t * weight_decay.
45 networks: a quarter of an hour on two CPU cores.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("collapse-digits", size, common.DIGITS)
    config.poison.fraction = 0.1
    config.analysis.near_clone = 100  # r / l
    seeds = ("seed", (0, 1, 2))
    both = "train.epochs,train.weight_decay"
    config.sweep.grids = (
        (seeds, (both, tuple((80, decay) for decay in (0.0, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)))),
        (seeds, (both, tuple((epochs, 1e-2) for epochs in (10, 20, 40, 80, 160)))),
        (seeds, (both, ((20, 4e-2), (40, 2e-2), (80, 1e-2), (160, 5e-3), (320, 2.5e-3)))),
    )
    return config
