"""Activation Clustering: do the features of a class fall into two clusters? (Chen et al., SafeAI 2019)."""

from typing import NamedTuple

import jax
import numpy as np

from poison_jax.audit.checks import checked, generator
from poison_jax.audit.detector import DataScore, Detector
from poison_jax.audit.representations import NEEDS, penultimate, two_means
from poison_jax.errors import UserError
from poison_jax.features.planes import pca, project
from poison_jax.subject import Subject


def score(
    subject: Subject,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    key: jax.Array | int,
    dimensions: int = 10,
    threshold: float = 0.35,
    batch_size: int | None = None,
) -> DataScore:
    """2-means of each class's features, reduced to their independent components.

    The suspicion of an example is its silhouette, (b - a) / max(a, b) with a and b the distances to the
    centre of its own and of the other cluster, with a minus sign if it lies in the larger one; that of a
    class is the mean silhouette. The authors remove the smaller cluster where it holds less than 35 % of the
    class.

    Args:
        subject: the network.
        images: float `[N, H, W, C]` in [0, 1], training data.
        labels: int `[N]`, as they were trained with.
        key: of the starts of 2-means.
        dimensions: independent components that are kept.
        threshold: share of a class below which its smaller cluster is flagged.
        batch_size: images at once; changes memory, not the result.

    Returns:
        `DataScore`, suspicion in [-1, 1]. A class whose features are all equal, as of a single image, has
        zeros.

    Raises:
        UserError: fewer than two classes, labels outside the logits, images that are not in [0, 1],
            `dimensions` below 1.
    """
    images, labels, num_classes = checked(subject, images, labels)
    if dimensions < 1:
        raise UserError(f"dimensions = {dimensions}: use at least 1")
    features, random = penultimate(subject, images, batch_size=batch_size), generator(key)
    suspicion, flagged = np.zeros(len(labels)), np.zeros(len(labels), bool)
    classes = np.full(num_classes, np.nan)
    for label in np.unique(labels):
        of_class = labels == label
        found = cluster(features[of_class], dimensions, random)
        suspicion[of_class] = np.where(found.smaller, found.silhouettes, -found.silhouettes)
        classes[label] = found.silhouettes.mean()
        flagged[of_class] = found.smaller & (found.smaller.mean() < threshold)
    return DataScore(suspicion, classes, flagged)


class Clusters(NamedTuple):
    """Two clusters of a class's examples."""

    smaller: np.ndarray  # bool [n]
    silhouettes: np.ndarray  # [n], from the clusters' centres; 0 where there is one point alone


def cluster(features: np.ndarray, dimensions: int, random: np.random.Generator) -> Clusters:
    """Two clusters of features `[n, F]`, in their first whitened principal components.

    Independent component analysis whitens the principal components and then turns them, which changes no
    distance and so no clusters: the turn is left out.
    """
    found = two_means(whitened(features, dimensions), random)
    if found is None:
        return Clusters(np.zeros(len(features), bool), np.zeros(len(features)))
    larger, smaller = np.sqrt(found.squares).T
    own, other = np.where(found.smaller, (smaller, larger), (larger, smaller))
    return Clusters(found.smaller, (other - own) / np.maximum(other, own))


def whitened(features: np.ndarray, dimensions: int) -> np.ndarray:
    """Principal components of features `[n, F]` with variance one, `[n, d]` with d at most `dimensions`.

    Components whose standard deviation is a rounding error beside the first one's are left out: d may be 0.
    """
    plane = pca(features, min(dimensions, *features.shape))
    spread = np.sqrt(plane.variances)
    kept = spread > 1e-6 * max(spread[0], np.abs(plane.mean).max())
    return project(plane, features)[:, kept] / spread[kept]


DETECTOR = Detector("Activation Clustering", "silhouette, signed by the smaller cluster", NEEDS, score)
