"""Figures 4 and 5: MNIST, 2x2 square, poisoned linear regression over theta.

python main.py --config=configs/sweeps/fig05.py
python main.py --config=configs/sweeps/fig05.py:small
"""

from configs import mnist_linear


def get_config(size=""):
    config = mnist_linear.get_config(size)
    config.experiment = "sweep"
    config.sweep.of = "mnist_linear"  # theta and seeds are axes within: a single cell
    config.sweep.name = f"fig05-{size}" if size else "fig05"
    return config
