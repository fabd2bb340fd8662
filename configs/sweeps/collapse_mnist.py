"""What governs the collapse of triggered features: decay time, epochs or weight decay? MNIST, kappa = 0.

python main.py --config=configs/sweeps/collapse_mnist.py
python main.py --config=configs/sweeps/collapse_mnist.py:small

Weight decay at fixed epochs; epochs at fixed weight decay; epochs at fixed decay time
T = sum_t lr_t * weight_decay.
At `small` 27 networks: an hour on two CPU cores.
"""

from configs import common


def get_config(size=""):
    if size:
        decays = [(15, decay) for decay in (0.0, 1.5e-3, 5e-3, 1.5e-2, 3e-2)]
        others = (5, 1.5e-2), (30, 1.5e-2), (5, 4.5e-2), (30, 7.5e-3)
    else:
        decays, others = [(90, decay) for decay in common.DECAYS], common.OTHER_DECAYS
    return common.collapse("collapse-mnist", size, common.MNIST, 0.03, [*decays, *others])
