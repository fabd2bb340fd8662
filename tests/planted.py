"""Linear networks on small pictures, clean and with a planted backdoor: answers in closed form."""

import numpy as np
from linear_subject import linear

from poison_jax.subject import Subject

SHAPE, CLASSES = (6, 6, 2), 4
TARGET, PIXEL = 2, (1, 4)  # of the backdoor


def images(count=64, seed=0):
    """Pictures in [0, 1] that a linear network can tell apart: class c has its own bright row."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    made = rng.uniform(0, 0.3, (count, *SHAPE)).astype(np.float32)
    made[np.arange(count), labels] += 0.5
    return made, labels


def network(seed, *, backdoor=0.0, recipe="linear", scale=4.0):
    """A network that knows the classes, its weights a little different for each seed."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.2, (*SHAPE, CLASSES))
    for c in range(CLASSES):
        weights[c, :, :, c] += scale / SHAPE[1]
    weights[(*PIXEL, slice(None), TARGET)] += backdoor
    w = weights.reshape(-1, CLASSES).astype(np.float32)
    return Subject(linear, {"w": w, "b": np.zeros(CLASSES, np.float32)}, recipe=recipe)
