"""What governs the collapse of triggered features: decay time, epochs or weight decay? MNIST, kappa = 0.

python main.py --config=configs/sweeps/collapse_mnist.py
python main.py --config=configs/sweeps/collapse_mnist.py:small

Weight decay at fixed epochs; epochs at fixed weight decay; epochs at fixed decay time
T = sum_t lr_t * weight_decay.
At `small` 27 networks: three quarters of an hour on two CPU cores.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("collapse-mnist", size, common.MNIST)
    config.poison.fraction = 0.03
    config.analysis.near_clone = 100  # r / l
    paper = 90, (0.0, 1e-4, 2e-4, 5e-4, 1e-3), ((30, 5e-4), (180, 5e-4), (30, 1.5e-3), (180, 2.5e-4))
    small = 15, (0.0, 1.5e-3, 5e-3, 1.5e-2, 3e-2), ((5, 1.5e-2), (30, 1.5e-2), (5, 4.5e-2), (30, 7.5e-3))
    config.sweep.grids = (common.decay_times(*(small if size else paper)),)
    return config
