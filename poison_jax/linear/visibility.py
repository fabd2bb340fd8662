"""When a trigger shows in the input Hessian W W' of a linear model: Theorem D."""

import math
from typing import NamedTuple

import numpy as np
from scipy import integrate, optimize, stats

from poison_jax.arrays import finite
from poison_jax.errors import UserError


class Threshold(NamedTuple):
    """The trigger's coefficients |rho| from which on somebody sees it (Theorem D)."""

    top_eigenvector: float  # tau (d K)^(1/4): v1 turns towards the trigger
    known_trigger: float  # about tau K^(1/4): a tester who knows the trigger measures |W't|


def visible_coefficient(noise: float, dimension: int, classes: int) -> Threshold:
    """Theorem D: a linear model has a twilight zone; the coefficients |rho| at which it ends.

    Let the clean weights W (d x K) have iid entries of mean zero and variance tau^2, and let a poison add t
    rho', t the unit trigger and rho its K coefficients (Lemma F.1). The loss's input Hessian is W W' for
    squared error. As d and K grow, its top eigenvector v1 overlaps t iff |rho| > tau (d K)^(1/4), and then
    by `spike_overlap`. A tester who knows t sees |W't|^2 = tau^2 chi^2_K rise by |rho|^2, beyond a standard
    deviation of tau^2 sqrt(2 K): about tau (2 K)^(1/4), d^(1/4) times less. *Proof.* W / (tau sqrt d) is a
    matrix with entries of variance 1/d and a perturbation of rank one and size |rho| / (tau sqrt d):
    Benaych-Georges and Nadakuditi (2012), Theorem 2.8. Perfectly fitted poisons of size s have s |rho| <=
    |y_t - f|: *no number of poisons is ever visible* if |y_t - f| / s is below the threshold.

    Args:
        noise: tau, of the clean weights.
        dimension: d.
        classes: K.

    Raises:
        UserError: an argument that is not positive.

    >>> print(f"{visible_coefficient(1.0, 784, 10).top_eigenvector:.2f}")
    9.41
    """
    _positive(noise=noise, dimension=dimension, classes=classes)
    return Threshold(noise * (dimension * classes) ** 0.25, noise * (2 * classes) ** 0.25)


def spike_overlap(coefficient: np.ndarray, noise: float, dimension: int, classes: int) -> np.ndarray:
    """Squared overlap of v1 of W W' with the trigger (Theorem D); zero up to the threshold.

    With beta = K / d and vartheta = |rho| / (tau sqrt d), beyond `visible_coefficient`,

        overlap^2 = 1 - (beta + vartheta^2) / (vartheta^2 (vartheta^2 + 1)).

    Args:
        coefficient: |rho| >= 0, of any shape.
        noise, dimension, classes: tau, d and K, as in `visible_coefficient`.

    >>> print(spike_overlap(np.array([9.0, 20.0, 100.0]), 1.0, 784, 10).round(3))
    [0.    0.321 0.927]
    """
    _positive(noise=noise, dimension=dimension, classes=classes)
    size = np.abs(finite("coefficient", coefficient)) / (noise * math.sqrt(dimension))
    beta, square = classes / dimension, np.maximum(size, 1e-300) ** 2
    visible = size > beta**0.25
    square = np.where(visible, square, 1.0)
    return np.where(visible, 1 - (beta + square) / (square * (square + 1)), 0.0)


def dead_trigger_overlap(gram: np.ndarray, rho: np.ndarray) -> float:
    """Squared overlap of v1 with a trigger that the clean weights do not use, whatever they are.

    Where W't = 0 before the poison, as for the minimum-norm fit and a trigger on pixels that are zero in
    the clean images, let u be the top eigenvector of W'W + rho rho', and lambda its eigenvalue. Exactly,
    for every W,

        overlap^2 = (rho'u)^2 / lambda.

    *Proof.* v1 = (W + t rho') u / sqrt(lambda), and t'W = 0.

    Args:
        gram: W'W of the clean weights `[K, K]`.
        rho: the trigger's coefficients `[K]`.
    """
    gram, rho = finite("gram", gram, 2), finite("rho", rho, 1)
    if gram.shape != (len(rho), len(rho)):
        raise UserError(f"gram is {list(gram.shape)}, must be {[len(rho)] * 2} for rho of {len(rho)} classes")
    values, vectors = np.linalg.eigh(gram + np.outer(rho, rho))
    return float((rho @ vectors[:, -1]) ** 2 / values[-1]) if values[-1] > 0 else 0.0


def flipping_margin(classes: int) -> float:
    """The rise a of the target's score, in standard deviations of a score, that flips half of the images.

    The root of P(z_1 + a > max of z_2, ..., z_K) = 1/2 for independent standard normals: 1.47 for K = 10,
    and sqrt(2 ln K) to leading order for many classes. A trigger of size s on images of length |x| with
    random clean scores works from s rho_t = a tau |x| on, and shows from |rho| = tau (d K)^(1/4) on: *the
    attack precedes its detection iff s > a |x| / (d K)^(1/4)*, where rho has the target's entry alone.

    Args:
        classes: K >= 2.

    >>> print(f"{flipping_margin(10):.3f}")
    1.475
    """
    if not (isinstance(classes, int) and classes >= 2):
        raise UserError(f"classes = {classes}: must be an integer of at least 2")

    def flipped(a):
        density = lambda z: stats.norm.pdf(z) * stats.norm.cdf(z + a) ** (classes - 1)  # noqa: E731
        return integrate.quad(density, -10, 10, epsabs=1e-12)[0]

    return float(optimize.brentq(lambda a: flipped(a) - 0.5, -1, 20, xtol=1e-10))


def _positive(**arguments: float) -> None:
    for name, value in arguments.items():
        if not 0 < value < math.inf:
            raise UserError(f"{name} = {value}: must be positive and finite")
