"""SCAn: is a class one Gaussian or two of a covariance that all classes share? (Tang et al., USENIX 2021)."""

from typing import NamedTuple

import jax
import numpy as np

from poison_jax.audit.checks import checked, generator
from poison_jax.audit.detector import DataScore, Detector
from poison_jax.audit.representations import NEEDS, penultimate, two_means
from poison_jax.audit.robust import anomaly_index
from poison_jax.errors import UserError
from poison_jax.features.planes import exact_mean
from poison_jax.subject import Subject

THRESHOLD = np.e**2


def score(
    subject: Subject,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    key: jax.Array | int,
    clean: tuple[np.ndarray, np.ndarray] | None = None,
    batch_size: int | None = None,
) -> DataScore:
    """How much likelier each class's features are under two Gaussians than under one.

    Features are r = mu_class + e with e ~ N(0, S) for one S, estimated from clean images. For the examples of
    a class, J = sum_i (r_i - m)' S^-1 (r_i - m) - (r_i - m_i)' S^-1 (r_i - m_i), twice the logarithm of the
    likelihood ratio, with m their mean and m_i the mean of that one of two groups to which i belongs; the
    groups are those of the largest J, 2-means in the metric of S^-1. The class score is
    (J - median J) / (1.4826 MAD of J) over the classes; it is the same for J and for the paper's
    (J - k) / sqrt(2 k). The authors call a class poisoned above e^2, and remove its smaller group.

    The suspicion of an example is (r - m_1)' S^-1 (r - m_1) - (r - m_2)' S^-1 (r - m_2), with m_2 of the
    smaller group: to be compared within a class.

    Args:
        subject: the network.
        images: float `[N, H, W, C]` in [0, 1], training data.
        labels: int `[N]`, as they were trained with.
        key: of the starts of the division into two groups.
        clean: `(images, labels)` known to be clean, for S; None: S is that of the training data, which a
            poison widens.
        batch_size: images at once; changes memory, not the result.

    Returns:
        `DataScore`.

    Raises:
        UserError: fewer than two classes, labels outside the logits, images that are not in [0, 1], clean
            ones of another size, for S no more images than classes or classes of equal features.
    """
    images, labels, num_classes = checked(subject, images, labels)
    features, random = penultimate(subject, images, batch_size=batch_size), generator(key)
    reference, classes_of = features, labels
    if clean is not None:
        clean_images, classes_of, _ = checked(subject, *clean, size=images.shape[1:], name="clean images")
        reference = penultimate(subject, clean_images, batch_size=batch_size)
    features = features @ whitening(reference, classes_of)
    suspicion, smaller = np.zeros(len(labels)), np.zeros(len(labels), bool)
    ratios = np.full(num_classes, np.nan)
    for label in np.unique(labels):
        of_class = labels == label
        suspicion[of_class], smaller[of_class], ratios[label] = division(features[of_class], random)
    index = anomaly_index(ratios)
    return DataScore(suspicion, index, smaller & (index > THRESHOLD)[labels])


def whitening(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """S^(-1/2) `[F, F]`, to multiply rows with: S is the covariance of features within their classes.

    The sample covariance of the deviations from the class means (N - K in the denominator), shrunk towards a
    multiple of the identity as Ledoit and Wolf do: there may be more features than images.

    Args:
        features: float `[N, F]`.
        labels: int `[N]`.

    Raises:
        UserError: no more examples than classes, or no variance within any class.
    """
    # scikit-learn takes a second to import.
    from sklearn.covariance import ledoit_wolf

    found = np.unique(labels)
    if len(labels) <= len(found):
        raise UserError(f"{len(labels)} images of {len(found)} classes show no spread within them: give more")
    rest = np.empty_like(features)
    for label in found:
        rest[labels == label] = features[labels == label] - exact_mean(features[labels == label])
    if not rest.any():
        raise UserError("the features of each class are all equal: there is no covariance to compare with")
    covariance, _ = ledoit_wolf(rest, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance * len(labels) / (len(labels) - len(found)))
    values = np.maximum(values, 1e-12 * values[-1])
    return vectors / np.sqrt(values) @ vectors.T


class Division(NamedTuple):
    """A class in two groups."""

    suspicion: np.ndarray  # [n], twice the log-likelihood of the smaller group less that of the larger
    smaller: np.ndarray  # bool [n]
    ratio: float  # J


def division(whitened: np.ndarray, random: np.random.Generator) -> Division:
    """Divide a class's whitened features `[n, F]` into two groups; of equal ones J is 0."""
    found = two_means(whitened, random)
    if found is None:
        return Division(np.zeros(len(whitened)), np.zeros(len(whitened), bool), 0.0)
    larger, smaller = found.squares.T
    together = np.sum((whitened - whitened.mean(0)) ** 2)
    ratio = together - np.where(found.smaller, smaller, larger).sum()
    return Division(larger - smaller, found.smaller, float(ratio))


DETECTOR = Detector(
    "SCAn",
    "log-likelihood of the smaller of two groups, less the larger's",
    f"{NEEDS}; better, clean images too",
    score,
    uses_clean=True,
)
