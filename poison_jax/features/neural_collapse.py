"""Neural collapse NC1 to NC4 (Papyan, Han & Donoho, 2020) of features and a last layer."""

from typing import NamedTuple

import numpy as np

from poison_jax.arrays import class_labels, finite
from poison_jax.errors import UserError
from poison_jax.features.planes import exact_mean


class Collapse(NamedTuple):
    """Neural collapse; every number is 0 at full collapse."""

    nc1: float  # variability within classes
    nc2_norms: float  # class means: unequal norms
    nc2_angles: float  # class means: unequal angles
    nc2_weight_norms: float  # classifier: unequal norms
    nc2_weight_angles: float  # classifier: unequal angles
    nc3: float  # classifier against class means
    nc4: float  # classifier against the nearest class mean


def collapse(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> Collapse:
    """Neural collapse's four properties (Papyan, Han & Donoho, 2020), on whatever images are given.

    With the classes' means mu_c, their mean mu, M the rows mu_c - mu, and w_c the classifier's columns, of
    the C classes that have images, each of which weighs the same:

    - NC1 `tr(Sigma_W pinv(Sigma_B)) / C`, Sigma_W the mean over the classes of the covariance within,
      Sigma_B = M'M / C.
    - NC2 norms: standard deviation over mean of |mu_c - mu|; the same of |w_c|.
    - NC2 angles: mean over pairs of `|cos(mu_c - mu, mu_c' - mu) + 1 / (C - 1)|`; the same of w_c, w_c'.
      A zero vector has cosine 0 with any other.
    - NC3 `| W' / |W|_F - M / |M|_F |_F^2`, in [0, 4].
    - NC4 share of images whose decision, `argmax(features @ weights + bias)`, is not the class whose
      mean is the nearest; ties go to the lower class.

    Args:
        features: `[N, F]`.
        labels: int `[N]` true labels.
        weights, bias: `[F, K]` and `[K]`, of the last layer.

    Returns:
        `Collapse`; all NaN where nothing tells classes apart: fewer than two have images, or their means
        are one point. Norms, angles and NC3 of an all-zero classifier are NaN, 1 / (C - 1) and NaN.

    Raises:
        UserError: shapes that do not fit, labels outside 0 .. K - 1, values that are not finite.
    """
    features, weights = finite("features", features), finite("classifier weights", weights)
    bias = finite("classifier biases", bias)
    if features.ndim != 2 or not len(features) or (features.shape[1], *bias.shape) != weights.shape:
        raise UserError(
            f"features {features.shape}, weights {weights.shape} and bias {bias.shape} do not fit: give "
            "[N, F], [F, K] and [K], N at least 1"
        )
    labels = class_labels(labels, len(features), len(bias), what="features")
    present, labels_of, count = np.unique(labels, return_inverse=True, return_counts=True)
    decision = np.argmax(features @ weights + bias, axis=1)
    mu, _ = class_moments(features, labels_of, len(present))
    size = np.linalg.norm(mu)
    # From the means' middle: rounding of what all features share would pass for a direction of M.
    features = features - exact_mean(mu)
    mu, _ = class_moments(features, labels_of, len(present))
    M, W = mu - mu.mean(0), weights.T[present]
    if np.linalg.norm(M) <= 1e-12 * size:  # one class, or equal means up to rounding
        return Collapse(*[float("nan")] * len(Collapse._fields))
    # pinv(M'M / C) = C P P' with P = pinv(M): the trace is a sum of squares, without a matrix [F, F].
    within = (features - mu[labels_of]) @ np.linalg.pinv(M, rtol=1e-12)
    squares = np.einsum("ij,ij->i", within, within)
    nearest = np.argmin([np.linalg.norm(features - centre, axis=1) for centre in mu], axis=0)
    W_norm = np.linalg.norm(W)
    dual = np.sum((W / W_norm - M / np.linalg.norm(M)) ** 2) if W_norm > 0 else np.nan
    return Collapse(
        float(squares @ (1 / count[labels_of]) / len(present)),
        *_simplex(M),
        *_simplex(W),
        nc3=float(dual),
        nc4=float(np.mean(decision != present[nearest])),
    )


def class_moments(points: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the classes' means and standard deviations `[2, K, F]`; NaN for a class without points.

    Args:
        points: `[N, F]`.
        labels: int `[N]`, in 0 .. K - 1.
        num_classes: K. The deviations are divided by the number of points, not one less.
    """
    moments = np.full((2, num_classes, points.shape[1]), np.nan)
    for c in np.unique(labels):
        members = points[labels == c]
        mean = exact_mean(members)
        moments[:, c] = mean, np.sqrt(np.mean((members - mean) ** 2, axis=0))
    return moments


def _simplex(rows):
    """How far vectors `[C, F]` are from equal norms and from the simplex's equal angles."""
    norms = np.linalg.norm(rows, axis=1)
    unit = rows / np.where(norms > 0, norms, 1)[:, None]
    cosines = (unit @ unit.T)[~np.eye(len(rows), dtype=bool)]
    spread = norms.std() / norms.mean() if norms.any() else np.nan
    return float(spread), float(np.mean(np.abs(cosines + 1 / (len(rows) - 1))))
