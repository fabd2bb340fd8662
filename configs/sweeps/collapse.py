"""What governs the collapse of triggered features: decay time, epochs or weight decay? CIFAR-10, kappa = 0.

python main.py --config=configs/sweeps/collapse.py
python main.py --config=configs/sweeps/collapse.py:small

Weight decay at fixed epochs; epochs at fixed weight decay; epochs at fixed decay time
T = sum_t lr_t * weight_decay.
At `small` 27 networks: two hours and a half on two CPU cores, by estimate.
"""

from configs import common


def get_config(size=""):
    if size:
        decays = [(45, decay) for decay in (0.0, 1e-3, 2e-3, 5e-3, 1e-2)]
        others = (15, 5e-3), (90, 5e-3), (15, 1.5e-2), (90, 2.5e-3)
    else:
        decays, others = [(90, decay) for decay in common.DECAYS], common.OTHER_DECAYS
    fraction = common.by_size(size, 0.02, 0.1, 0.1)
    return common.collapse("collapse", size, common.CIFAR10, fraction, [*decays, *others])
