"""Spectral Signatures: outliers along a class's first singular vector (Tran et al., NeurIPS 2018)."""

import jax
import numpy as np

from poison_jax.audit.checks import checked
from poison_jax.audit.detector import DataScore, Detector
from poison_jax.audit.representations import NEEDS, penultimate
from poison_jax.errors import UserError
from poison_jax.features.planes import exact_mean
from poison_jax.subject import Subject


def score(
    subject: Subject,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    key: jax.Array | int = 0,
    rate: float = 0.1,
    batch_size: int | None = None,
) -> DataScore:
    """Squared projections of a class's centred features on their first right singular vector.

    The suspicion of an example of class c is ((R(x) - mean_c R) . v_c)^2 with v_c the first right singular
    vector of the class's centred features; that of a class is v_c's share of their variance. The authors
    remove the 1.5 times `rate` of each class that have the largest.

    Args:
        subject: the network.
        images: float `[N, H, W, C]` in [0, 1], training data.
        labels: int `[N]`, as they were trained with.
        key: not used.
        rate: assumed share of poisoned examples in a class, 0 to 1.
        batch_size: images at once; changes memory, not the result.

    Returns:
        `DataScore`. A class whose features are all equal, as of a single image, has zeros, none flagged.

    Raises:
        UserError: fewer than two classes, labels outside the logits, images that are not in [0, 1], a rate
            outside [0, 1].
    """
    images, labels, num_classes = checked(subject, images, labels)
    if not 0 <= rate <= 1:
        raise UserError(f"rate = {rate}: give a share of each class, 0 to 1")
    features = penultimate(subject, images, batch_size=batch_size)
    suspicion, flagged = np.zeros(len(labels)), np.zeros(len(labels), bool)
    classes = np.full(num_classes, np.nan)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        suspicion[members], classes[label] = projections(features[members])
        removed = members[np.argsort(-suspicion[members], kind="stable")][: int(1.5 * rate * len(members))]
        flagged[removed] = suspicion[removed] > 0
    return DataScore(suspicion, classes, flagged)


def projections(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Squared projections `[n]` of centred features `[n, F]` on their first singular vector, and its share.

    The share is the squared first singular value by the sum of all squares. Both are 0 where the features are
    equal up to the network's rounding errors.
    """
    mean = exact_mean(features)
    centred = features - mean
    if np.abs(centred).max() <= 1e-6 * np.abs(mean).max():
        return np.zeros(len(features)), 0.0
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    squares = singular**2
    return (centred @ rows[0]) ** 2, float(squares[0] / squares.sum())


DETECTOR = Detector("Spectral Signatures", "squared projection on the first singular vector", NEEDS, score)
