"""Principal components and one-sigma ellipses of points (Figures 2 and 3)."""

from typing import NamedTuple

import numpy as np

from poison_jax.arrays import finite
from poison_jax.errors import UserError


class PCA(NamedTuple):
    """Principal components, largest variance first."""

    mean: np.ndarray  # [F]
    components: np.ndarray  # [k, F], orthonormal rows
    variances: np.ndarray  # [k], divided by n - 1
    explained: np.ndarray  # [k], shares of the total variance; 0 where there is none


def pca(points: np.ndarray, k: int) -> PCA:
    """The first k principal components of `[n, F]` points.

    Of a component's two signs, the one that makes its largest entry (in absolute value) positive.

    Raises:
        UserError: k is not in 1 .. min(n, F), or the points are not finite.
    """
    points = finite("points", points)
    if points.ndim != 2 or not 1 <= k <= min(points.shape):
        raise UserError(f"{k} principal components of points {points.shape}: k must be in 1..min(n, F)")
    mean = exact_mean(points)
    _, singular, rows = np.linalg.svd(points - mean, full_matrices=False)
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], axis=1)
    squares, total = singular**2, np.sum(singular**2)
    return PCA(
        mean=mean,
        components=(rows * np.sign(largest))[:k],
        variances=squares[:k] / max(len(points) - 1, 1),
        explained=squares[:k] / (total or 1),
    )


def project(plane: PCA, points: np.ndarray) -> np.ndarray:
    """Coordinates `[n, k]` of points `[n, F]` along the components, from their mean."""
    return (np.asarray(points, float) - plane.mean) @ plane.components.T


class Ellipse(NamedTuple):
    """Where a Gaussian's density has fallen to exp(-1/2), one standard deviation along either axis."""

    centre: np.ndarray  # [2]
    half_axes: np.ndarray  # [2], the longer first
    angle: float  # of the longer axis to the first coordinate, radians, in (-pi/2, pi/2]


def ellipse(points: np.ndarray) -> Ellipse:
    """The one-sigma ellipse of points `[N, 2]` (Figure 3); it holds 39 % of a Gaussian, twice it 86 %.

    The half axes are the roots of the covariance's (N - 1 in the denominator) eigenvalues: zero for a
    single point. All is NaN for none.

    Raises:
        UserError: the points are not `[N, 2]`, or not finite.
    """
    points = finite("points", points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise UserError(f"an ellipse needs points [N, 2], not {points.shape}")
    if len(points) == 0:
        return Ellipse(np.full(2, np.nan), np.full(2, np.nan), float("nan"))
    centre = exact_mean(points)
    covariance = (points - centre).T @ (points - centre) / max(len(points) - 1, 1)
    values, vectors = np.linalg.eigh(covariance)
    x, y = vectors[:, 1] if vectors[0, 1] > 0 else -vectors[:, 1]
    return Ellipse(centre, np.sqrt(np.maximum(values[::-1], 0)), float(np.arctan2(y, x) if x else np.pi / 2))


def exact_mean(points: np.ndarray) -> np.ndarray:
    """Return the mean `[F]` of points `[n, F]`; of equal numbers it is that number, without rounding."""
    return np.where(np.ptp(points, axis=0) > 0, points.mean(0), points[0])
