"""What detectors of poisoned training data look at: penultimate features, in two clusters."""

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

    smaller: np.ndarray  # bool [n], the cluster of fewer points; of equal ones, the second point's or later
    centres: np.ndarray  # [2, d]: of the larger cluster, of the smaller
    squares: np.ndarray  # [n, 2], squared distances to them


def two_means(points: np.ndarray, random: np.random.Generator, *, starts: int = 10) -> TwoMeans | None:
    """2-means of `[n, d]` points, the best of several starts; None where there are not two distinct points.

    Args:
        points: float `[n, d]`, finite.
        random: of the starts.
        starts: of k-means++ initialisation followed by Lloyd's iteration.
    """
    # scikit-learn takes a second to import, and nothing else in the audit wants it.
    from sklearn.cluster import KMeans

    if len(points) < 2 or not points.shape[1] or not np.ptp(points, axis=0).any():
        return None
    seed = int(random.integers(2**31))
    fitted = KMeans(2, n_init=starts, random_state=seed).fit(points)
    second = fitted.labels_ == 1
    share = second.mean()
    if share > 0.5 or (share == 0.5 and second[0]):
        second = ~second
    centres = np.stack([points[~second].mean(0), points[second].mean(0)])
    return TwoMeans(second, centres, ((points[:, None] - centres) ** 2).sum(-1))
