"""MNIST, 2x2 square: poisoned linear regression, exact, by Lemma F.1 and by SGD (Figures 4 and 5).

    python main.py --config=configs/mnist_linear.py          60,000 images, 3 seeds: 8 minutes on two cores
    python main.py --config=configs/mnist_linear.py:small    10,000 images, 2 seeds: 1 minute

It takes 3.7 GB. On cores that others use, OPENBLAS_NUM_THREADS=1 before the command makes it faster.
"""

from configs import common
from poison_jax import config as config_lib


def get_config(size=""):
    common.check_size(size, "small")
    config = config_lib.default()
    config.name = "mnist_linear"
    config.experiment = "mnist_linear"
    config.data.name = "mnist"
    config.poison.trigger, config.poison.mode, config.poison.margin = "square", "deterministic", 0
    config.train.epochs = 32
    config.train.learning_rate = 0.01  # 2 / 39, 39 the top eigenvalue of X'X / n, is where it diverges
    config.train.momentum, config.train.weight_decay, config.train.decay_times = 0.0, 0.0, 0
    # batch_size / (learning_rate * epochs), for 32, 8 and 1 epochs: as far as SGD gets in them.
    config.linear.ridges = (400.0, 1600.0, 12800.0)
    if size == "small":
        config.data.n_train = 10_000
        config.linear.fractions = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
        config.linear.seeds = (0, 1)
    return config
