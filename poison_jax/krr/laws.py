"""The laws of a cloned poison: gain, efficacy, spike (Sections 3.1 to 3.3), and their exact form.

The paper's laws are first order in the cross-block k(X, zeta) of Assumption 3.1. For exact clones the
effect is known in closed form without any assumption: the same laws, with the kernel replaced by what
the clean data leave of it and the label by what they leave of that (`clone_effect`).
"""

from typing import NamedTuple

import jax
import numpy as np

from poison_jax.arrays import finite
from poison_jax.errors import UserError
from poison_jax.krr.kernels import Kernel
from poison_jax.krr.regression import KRR, Expansion, in_float64


def gain(m, c, k_zeta):
    """S = m / (c + k_zeta m) (eq. 8): aggregate coefficient of m clones with unit label.

    Args:
        m: number of clones.
        c: ridge n lambda (eq. 7).
        k_zeta: k(zeta, zeta) (eq. 6).

    >>> gain(10, 5.0, 1.0)
    0.6666666666666666
    """
    return m / (c + k_zeta * m)


def efficacy(m, c, k_zeta, k_0, y_t):
    """Shift of the score at the trigger, `k_0 y_t m / (c + k_zeta m)` (eqs. 10, 11; Theorem A.2).

    Args:
        m, c, k_zeta: as in `gain`.
        k_0: k(x0, zeta) (eq. 5).
        y_t: label of the clones.
    """
    return k_0 * y_t * gain(m, c, k_zeta)


def spike(m, c, k_zeta, gradient_squared, y_t):
    """Gauss-Newton spike `|grad k(x0, zeta)|^2 y_t^2 S^2`: eq. 15 with the y_t^2 that it lacks.

    Args:
        m, c, k_zeta, y_t: as in `efficacy`.
        gradient_squared: |grad_x k(x0, zeta)|^2.
    """
    return gradient_squared * (y_t * gain(m, c, k_zeta)) ** 2


class TriggerPoint(NamedTuple):
    """A trigger point as the laws see it."""

    k_0: float  # k(x0, zeta), eq. 5
    k_zeta: float  # k(zeta, zeta), eq. 6
    gradient_squared: float  # |grad_x k(x0, zeta)|^2
    spike_factor: float  # R_k, eq. 17


@in_float64
def trigger(kernel: Kernel, x0: np.ndarray, zeta: np.ndarray) -> TriggerPoint:
    """k_0, k_zeta and R_k (eqs. 5, 6, 17) of a trigger point x0 `[p]` and a poison zeta `[p]`.

    R_k is infinite where k_0 = 0.
    """
    x0, zeta = finite("x0", x0, 1), finite("zeta", zeta, 1)
    if x0.size != zeta.size:
        raise UserError(f"x0 has {x0.size} coordinates, zeta has {zeta.size}")
    k_0, k_zeta, gradient = (np.asarray(value) for value in _trigger(kernel, x0, zeta))
    # Divided before it is squared: far out on a Gaussian both squares are zero long before k_0 is.
    factor = float(np.sum((gradient / k_0) ** 2)) if k_0 else np.inf
    return TriggerPoint(float(k_0), float(k_zeta), float(gradient @ gradient), factor)


@jax.jit
def _trigger(kernel, x0, zeta):
    def section(x):
        return kernel(x[None], zeta[None])[0, 0]

    return section(x0), section(zeta), jax.grad(section)(x0)


class NearClone(NamedTuple):
    """Leading orders in r / l of a Gaussian kernel (Corollary 3.7)."""

    k_0: np.ndarray  # eq. 22, error O(r^4 / l^4)
    efficacy: np.ndarray  # eq. 23, relative error O(r^2 / l^2)
    spike: np.ndarray  # eq. 24 with y_t^2, relative error O(r^2 / l^2)


def near_clone(r, lengthscale, m, c, y_t) -> NearClone:
    """Eqs. 22 to 24 for a trigger point at distance r of the clones, r << l."""
    S = gain(m, c, 1.0)
    ratio = (np.asarray(r) / lengthscale) ** 2
    return NearClone(1 - ratio / 2, y_t * S * np.ones_like(ratio), (y_t * S) ** 2 * ratio / lengthscale**2)


def detectable_efficacy(clean_curvature, spike_factor):
    """The efficacy above which the spike exceeds the background: `sqrt(Lambda_clean / R_k)` (Remark 3.5)."""
    with np.errstate(divide="ignore"):  # R_k = 0, at the clones themselves: never
        return np.sqrt(np.divide(clean_curvature, spike_factor))


def clone_effect(clean: KRR, zeta: np.ndarray, y_t: float, m: float) -> Expansion:
    """What m exact clones of zeta change: `x -> f_poisoned(x) - f_clean(x)`, without an approximation.

    By the Schur complement of the clean block, at the same ridge c,

        f_poisoned - f_clean = kt(., zeta) (y_t - f_clean(zeta)) m / (c + kt(zeta, zeta) m),

    with kt the posterior kernel of the clean fit (`KRR.posterior`): Theorem 3.3 with k -> kt and
    y_t -> y_t - f_clean(zeta). Its gradient is the spike's: Theorem 3.4 with R_kt, exactly.

    Args:
        clean: the fit to the clean data.
        zeta: the poisoned point `[p]`.
        y_t: its label.
        m: number of clones.
    """
    open_part = clean.posterior(zeta)
    left = float(finite("y_t", y_t, 0)) - float(clean.predict(zeta))
    factor = left * gain(m, clean.ridge, float(open_part.predict(zeta)))
    return Expansion(open_part.kernel, open_part.points, np.asarray(open_part.coefficients) * factor)
