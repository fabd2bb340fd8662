"""Figure 6 on MNIST: theta from 0 through the transition, without and with the penalty.

python main.py --config=configs/sweeps/fig06_mnist.py
python main.py --config=configs/sweeps/fig06_mnist.py:small

At `small` 50 networks, in two hours on two CPU cores, and 15 more clean ones in half an hour.
"""

from configs import common


def get_config(size=""):
    config = common.sweep("fig06-mnist", size, common.MNIST)
    theta = ("poison.fraction", (0.0, 0.001, 0.003, 0.01, 0.03))
    kappa = ("penalty.kappa", (0.0, 100.0))
    null = ("seed", tuple(range(20))), ("poison.fraction", (0.0,)), ("penalty.kappa", (0.0,))
    config.sweep.grids = ((("seed", (0, 1, 2, 3, 4)), theta, kappa), null)
    return config
