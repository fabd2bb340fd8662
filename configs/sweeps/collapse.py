"""What governs the collapse of triggered features: decay time, epochs or weight decay? CIFAR-10, kappa = 0.

python main.py --config=configs/sweeps/collapse.py
python main.py --config=configs/sweeps/collapse.py:small

Weight decay at fixed epochs; epochs at fixed weight decay; epochs at fixed decay time
T = sum_t lr_t * weight_decay.
At `small` 27 networks: two hours and a half on two CPU cores.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("collapse", size)
    config.poison.fraction = common.by_size(size, 0.02, 0.1, 0.1)
    config.analysis.near_clone = 100  # r / l
    paper = 90, (0.0, 1e-4, 2e-4, 5e-4, 1e-3), ((30, 5e-4), (180, 5e-4), (30, 1.5e-3), (180, 2.5e-4))
    small = 45, (0.0, 1e-3, 2e-3, 5e-3, 1e-2), ((15, 5e-3), (90, 5e-3), (15, 1.5e-2), (90, 2.5e-3))
    config.sweep.grids = (common.decay_times(*(small if size else paper)),)
    return config
