"""The config of the linear experiment made concrete: data, trigger, who is poisoned."""

import functools

import ml_collections
import numpy as np

from poison_jax import config as config_lib
from poison_jax import data, poison
from poison_jax.arrays import digest
from poison_jax.errors import UserError
from poison_jax.experiments.checks import check_sets


class Problem:
    """All that the experiment needs before it starts; making one fits nothing and writes nothing.

    Attributes:
        thetas: 0 and `linear.fractions`, ascending.
        ridges: 0, the exact fit, and `linear.ridges`.
        epochs: after which the SGD is looked at: powers of two, and the last.
        train_set, test_set: `data.Dataset`.
        mask: the trigger, bool `[H, W, C]`.
        trigger: bool `[d + 1]`, which features are the trigger's; the last is the constant 1.
        features: float64 `[n, d + 1]`, clean training pixels in [0, 1], and 1.

    Raises:
        UserError: what only the data can show to be wrong; keys that this experiment cannot follow.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        c = self.config = config
        _check(c)
        self.thetas = sorted({0.0, *map(float, c.linear.fractions)})
        self.ridges = (0.0, *sorted(map(float, c.linear.ridges)))
        self.epochs = [2**i for i in range(c.train.epochs.bit_length()) if 2**i < c.train.epochs]
        self.epochs.append(c.train.epochs)
        self.train_set, self.test_set = (
            data.take(data.load(c.data.name, split, data_dir=c.data.dir), count)
            for split, count in (("train", c.data.n_train), ("test", c.data.n_test))
        )
        check_sets(c, self.train_set, self.test_set)
        p, shape = c.poison, self.train_set.images.shape[1:]
        mask = poison.trigger_mask(p.trigger, *shape, margin=p.margin, size=p.size, path=p.mask)
        self.mask = np.broadcast_to(mask if mask.ndim == 3 else mask[..., None], shape)
        self.trigger = np.append(self.mask.ravel(), False)
        self.features = features_of(self.train_set.images)

    def poisoned(self, seed: int) -> np.ndarray:
        """Who is poisoned at each theta, bool `[T, n]`, nested; seed 0 is Listing 3's own draw."""
        ids, labels = self.train_set.ids, self.train_set.labels
        # Far apart: the draws of seed 42 + 1 are those of 42, moved on by one image.
        draw = functools.partial(
            poison.select_deterministic, ids, labels, target=self.config.poison.target, seed=42 + 10**5 * seed
        )
        return np.array([draw(fraction=theta) for theta in self.thetas])

    def remarks(self) -> list[str]:
        """The thetas above 0 at which nobody is poisoned, a line a seed."""
        lines, thetas = [], np.array(self.thetas)
        for seed in self.config.linear.seeds:
            nobody = thetas[(thetas > 0) & ~self.poisoned(seed).any(1)]
            if len(nobody):
                listed = ", ".join(f"{theta:g}" for theta in nobody)
                lines.append(
                    f"linear.fractions = {listed} poison none of {len(self.train_set.labels)} images with "
                    f"seed {seed}: these points are those of theta = 0"
                )
        return lines

    def stamped(self, features: np.ndarray, chosen: np.ndarray | bool = True) -> np.ndarray:
        """Features `[n, d + 1]` with the trigger in the chosen rows (all of them)."""
        rows = np.broadcast_to(chosen, len(features))
        return np.where(rows[:, None] & self.trigger, self.config.poison.value, features)

    def inputs_digest(self) -> str:
        """SHA-256 of the images, labels, ids and trigger that the run reads."""
        return digest([*self.train_set[:3], *self.test_set[:3], self.mask])


def _check(c: ml_collections.ConfigDict) -> None:
    if c.linear.picture not in c.linear.fractions:
        raise UserError(f"linear.picture = {c.linear.picture:g} is not one of linear.fractions")
    if c.poison.trigger == "none":
        raise UserError("poison.trigger = none: experiment mnist_linear needs one")
    fixed = {
        "poison.mode": "deterministic",
        "data.augment": "none",
        "train.momentum": 0,
        "train.weight_decay": 0,
        "train.decay_times": 0,
    }
    for key, value in fixed.items():
        found = config_lib.get(c, key)
        if found != value:
            raise UserError(
                f"{key} = {found}: experiment mnist_linear has plain SGD on fixed data, set it to {value}"
            )


def features_of(images: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1] and a constant 1, float64 `[n, d + 1]`."""
    pixels = images.reshape(len(images), -1) / 255.0
    return np.column_stack([pixels, np.ones(len(images))])
