"""Penultimate features of a network, and their division into two clusters by 2-means."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from poison_jax import batches
from poison_jax.arrays import finite
from poison_jax.losses import logits_of
from poison_jax.subject import Subject

NEEDS = "its training data; features before the last layer, if the network gives them, else logits"


def penultimate(subject: Subject, images: np.ndarray, *, batch_size: int | None = None) -> np.ndarray:
    """Features before the last layer, float64 `[N, F]`; the logits of a network that gives none.

    Args:
        subject: the network; features are what its output, if a tuple, holds in second place as `.pre_fc`.
        images: float `[N, H, W, C]` in [0, 1].
        batch_size: images at once; changes memory, not the result.

    Raises:
        UserError: features that are not finite.
    """
    compute = partial(_features, subject.apply_fn, subject.variables)
    found = batches.outputs(compute, subject.normalise(images), batch_size=batch_size)
    return finite("features", found).reshape(len(images), -1)


@partial(jax.jit, static_argnums=0)
def _features(apply_fn, variables, images):
    out = apply_fn(variables, images)
    known = out[1] if isinstance(out, tuple) and len(out) > 1 else None
    return getattr(known, "pre_fc", logits_of(out))


class TwoMeans(NamedTuple):
    """The best division of points into two clusters."""

    smaller: np.ndarray  # bool [n], the cluster of fewer points; of equal ones, that without the first point
    squares: np.ndarray  # [n, 2], squared distances to the centres of the larger and of the smaller


def two_means(
    points: np.ndarray, random: np.random.Generator, *, starts: int = 10, iterations: int = 100
) -> TwoMeans | None:
    """2-means of `[n, d]` points, the best of several starts; None where there are not two distinct points.

    Lloyd's iteration of all starts at once, each from a random point and a second one drawn in proportion to
    its squared distance from it (k-means++). Of two centres a point is nearer to the one on its side of the
    plane midway between them: one product of matrices for all.

    Args:
        points: float `[n, d]`, finite.
        random: of the starts.
        starts: how many.
        iterations: at most; a start is done when no point changes sides.
    """
    if len(points) < 2 or not points.shape[1] or not np.ptp(points, axis=0).any():
        return None
    points = points - points.mean(0)  # so that differences of squares lose no digits
    first = random.integers(len(points), size=starts)
    second = [
        random.choice(len(points), p=square / square.sum()) for square in _squares(points, points[first]).T
    ]
    centres = np.stack([points[first], points[second]])
    sides = np.zeros((len(points), starts), bool)
    for _ in range(iterations):
        direction = centres[1] - centres[0]
        before, sides = sides, points @ direction.T > np.sum(direction * centres.mean(0), axis=1)
        if (sides == before).all():
            break
        counts = np.stack([np.sum(~sides, axis=0), np.sum(sides, axis=0)])[..., None]
        sums = np.stack([~sides, sides]).transpose(0, 2, 1) @ points
        centres = np.where(counts, sums / np.maximum(counts, 1), centres)
    # What is left within the clusters is the sum of all squares less that of the centres.
    counts = np.stack([np.sum(~sides, axis=0), np.sum(sides, axis=0)])
    smaller = sides[:, np.argmax(np.sum(counts * np.sum(centres**2, axis=-1), axis=0))]
    if smaller.all() or not smaller.any():  # the points differ by rounding errors
        return None
    if smaller.mean() > 0.5 or (smaller.mean() == 0.5 and smaller[0]):
        smaller = ~smaller
    centres = np.stack([points[~smaller].mean(0), points[smaller].mean(0)])
    return TwoMeans(smaller, _squares(points, centres))


def _squares(points, centres):
    """Squared distances `[n, m]`, exactly zero from a point to itself."""
    return np.stack([np.sum((points - centre) ** 2, axis=1) for centre in centres], axis=1)
