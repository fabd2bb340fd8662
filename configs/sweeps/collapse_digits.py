"""What governs the collapse of triggered features: decay time, epochs or weight decay? Digits, kappa = 0.

python main.py --config=configs/sweeps/collapse_digits.py

Weight decay at fixed epochs; epochs at fixed weight decay; epochs at fixed decay time
T = sum_t lr_t * weight_decay.
45 networks: a quarter of an hour on two CPU cores.
"""

from configs import common


def get_config(size=""):
    return common.collapse(
        "collapse-digits",
        size,
        common.DIGITS,
        0.1,
        [(80, decay) for decay in (0.0, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)],
        [(epochs, 1e-2) for epochs in (10, 20, 40, 80, 160)],
        [(20, 4e-2), (40, 2e-2), (80, 1e-2), (160, 5e-3), (320, 2.5e-3)],
    )
