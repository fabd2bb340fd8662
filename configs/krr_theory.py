"""Every numbered statement checked, and the laws of a cloned poison on real images (Section 3, App. A to D).

    python main.py --config=configs/krr_theory.py          5,000 images of MNIST, of CIFAR-10: 10 minutes
    python main.py --config=configs/krr_theory.py:small    1,000 of each: under 2 minutes, on two CPU cores

Writes theory.json (statement, set-up, predicted, measured, error, verdict, note, kind), corrections.md and
the figures. The images are stamped with a 3x3 square; without them: --config.krr.data="()".
"""

from configs import common
from poison_jax import config as config_lib


def get_config(size=""):
    common.check_size(size, "small")
    config = config_lib.default()
    config.name = "krr_theory"
    config.experiment = "krr_theory"
    config.poison.trigger, config.poison.margin, config.poison.size = "square", 1, 3
    if size == "small":
        config.krr.num_points, config.krr.num_triggered = 1000, 40
        config.krr.lengthscales, config.krr.ridges = (0.5, 1.0, 2.0), (0.01, 0.1, 1.0)
        config.krr.clones = (1, 3, 10, 30, 100)
    return config
