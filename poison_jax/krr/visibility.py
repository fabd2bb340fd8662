"""Kernel ridge regression: what the penalty takes of a poison, and where its curvature shows."""

import math
from typing import NamedTuple

import numpy as np
from scipy import integrate

from poison_jax.arrays import finite
from poison_jax.errors import UserError
from poison_jax.krr.kernels import Gaussian, Kernel
from poison_jax.krr.penalised import PenalisedPath, gradient_gram, gram
from poison_jax.krr.regression import KRR, as_data, in_float64

ROUNDING = 5e3 * np.finfo(float).eps  # of a Gaussian's expanded distances, at most


class PenaltyVisibility(NamedTuple):
    """A flip's efficacy at one kappa, and how fast the gradient penalty removes it (Theorem A)."""

    efficacy: float  # E(kappa) = delta' Delta f(X)
    visibility: float  # V(kappa) = sum_i |grad Delta f(x_i)|^2 = -dE / dkappa; 0 where that is rounding

    @property
    def halving(self) -> float:
        """E / V: no smaller *increase* of kappa halves the efficacy; infinite where nothing is visible."""
        return self.efficacy / self.visibility if self.visibility else math.inf

    def at_least(self, increase: np.ndarray) -> np.ndarray:
        """The efficacy that is left after an increase of kappa, at least: `E / (1 + increase V / E)`."""
        if not self.efficacy:
            return np.zeros_like(np.asarray(increase, float))
        return self.efficacy / (1 + np.asarray(increase) * self.visibility / self.efficacy)


def penalty_visibility(
    kernel: Kernel, X: np.ndarray, delta: np.ndarray, ridge: float, kappa: float = 0.0
) -> PenaltyVisibility:
    """Theorem A, the penalty-visibility identity: what the penalty does not see it cannot remove.

    Let Delta f be what the labels' change delta adds to the corrected penalised fit, over the span of the
    sections k(., x_i) or over the whole space. For any kernel, points and ridge, with
    E = delta' Delta f(X) and V = sum_i |grad Delta f(x_i)|^2,

        dE / dkappa = -V,    E / (1 + h V / E)  <=  E(kappa + h)  <=  E (1 - h V(kappa + h) / E(kappa + h)).

    E is decreasing and convex, 1/E is concave, and it takes at least E / V more kappa to halve E. *Proof.*
    The fit is linear in the labels, so that Delta f = f_z minimises |delta - f_z(X)|^2 / 2 + lambda |f_z|^2
    / 2 + kappa z'P z / 2 with z'P z = V; the minimum is (|delta|^2 - E) / 2, and its derivative in kappa is
    V / 2 (envelope theorem). With M the form's part without P, E = b'(M + kappa P)^-1 b, hence 1/E = min
    over b'z = 1 of z'(M + kappa P) z: a minimum of functions that are affine in kappa, so it is concave,
    and E is decreasing with 1/E concave and increasing. The bounds are its tangents at both ends; equality
    holds where a single generalised eigenvector of (P, M) carries b. The slope alone gives E(kappa + h) >=
    E - h V.

    Args:
        kernel: the kernel.
        X: points `[n, p]`, the poisons among them.
        delta: change of the labels `[n]`: zero at clean points, `y_t` less the true label at poisons.
        ridge: lambda, the full diagonal term, > 0.
        kappa: strength of the penalty at which E and V are taken, >= 0.

    Raises:
        UserError: what `penalised_fit` refuses.

    >>> from poison_jax.krr import linear
    >>> seen = penalty_visibility(linear(), [[1.0], [2.0]], [0.0, 1.0], ridge=5.0)
    >>> print(f"E {seen.efficacy:.2f}, V {seen.visibility:.2f}, at least {seen.halving:.1f} to halve E")
    E 0.40, V 0.08, at least 5.0 to halve E
    """
    X, delta = as_data(X, delta)
    return visibility_on(PenalisedPath(gram(kernel, X, X), gradient_gram(kernel, X)), delta, ridge, kappa)


def visibility_on(path: PenalisedPath, delta: np.ndarray, ridge: float, kappa: float) -> PenaltyVisibility:
    """`penalty_visibility` where the path of fits has been prepared already."""
    K, G, delta, alpha = path.K, path.G, np.asarray(delta, float), path.alpha(delta, ridge, kappa)
    values, seen = K @ alpha, float(alpha @ G @ alpha)
    # V per squared value, beside the steepest section's: what is smaller by the rounding of a Gaussian's
    # distances is rounding itself, of either sign, as for exact clones.
    unseen = seen * np.sum(K**2, 0).max() <= ROUNDING * np.diagonal(G).max() * (values @ values)
    # And no fit sees changes that cancel, as opposite ones at copies of a point.
    size = np.abs(delta)
    if unseen or delta @ K @ delta <= len(K) * np.finfo(float).eps * (size @ np.abs(K) @ size):
        seen = 0.0
    return PenaltyVisibility(float(delta @ values), seen)


def spike_factor_at_clone(clean: KRR, zeta: np.ndarray) -> float:
    """Theorem B, the near-clone law with clean data: `|grad log v(zeta)|^2 / 4`, v the posterior variance.

    As x0 tends to the clones zeta their spike |grad Delta f(x0)|^2 tends to Delta f(zeta)^2 times this
    factor, for every kernel, label and number of clones. It vanishes only at a critical point of v(x) =
    kt(x, x), and not, as Corollary 3.7 has it, at every clone. *Proof.* Delta f is proportional to kt(.,
    zeta) (`clone_effect`), and by the symmetry of kt grad_1 kt(zeta, zeta) = grad v(zeta) / 2; divide by
    v(zeta).

    Args:
        clean: the fit to the clean data.
        zeta: the cloned point `[p]`.

    Returns:
        The factor, in 1 / inputs squared; infinite where the clean data leave nothing open at zeta.
    """
    section = clean.posterior(zeta)
    open_part = float(section.predict(zeta))
    if not open_part > 0:
        return math.inf
    return float(np.sum((section.input_gradient(zeta) / open_part) ** 2))


def mean_square_frequency(dimension: int, strength: float, *, lengthscale: float = 1.0) -> float:
    """Theorem C, the dimension decides: the mean square frequency M2 of a Gaussian kernel under the penalty.

    Penalise gradients, and no values, uniformly over R^p: kappa rho int |grad f|^2 beside lambda |f|^2.
    That changes the kernel's spectrum to 1/kh_tau = 1/kh + tau w^2, tau = kappa rho / lambda, and the
    near-clone factor to R = r^2 (M2 / p)^2, M2 = int w^2 kh_tau / int kh_tau. At tau = 0 M2 = p / l^2. For
    every tau > 0 it is smaller for p = 1, the same for p = 2 and larger for p >= 3: the penalty makes near
    clones harder to hide from three dimensions on, and easier in one. *Proof* (l = 1, u = w^2). kh' = -kh /
    2 in u, so that d log(1 + tau u kh) = tau (1 - u / 2) kh_tau du; times u^(p/2 - 1) and by parts, M2 = 2
    + (p - 2) int u^(p/2 - 2) log(1 + tau u kh) / tau du / int u^(p/2 - 1) kh_tau du, and log(1 + x) > x /
    (1 + x) makes the ratio of integrals larger than 1.

    *Where it stops:* values fitted at the same density, at a ridge, add a constant to 1/kh; then M2 exceeds
    p / l^2 without a penalty already, and the penalty lowers it in two dimensions, and in more where the
    values are many (`strength` 100 beside a constant of 100 in p = 3: from 9.6 to 9.1).

    Args:
        dimension: p.
        strength: tau >= 0.
        lengthscale: l of the Gaussian kernel.

    Raises:
        UserError: an argument out of range.

    >>> print([f"{mean_square_frequency(p, 1.0):.3f}" for p in (1, 2, 3)])
    ['0.755', '2.000', '4.183']
    """
    if not (isinstance(dimension, int) and 1 <= dimension <= 100):
        raise UserError(f"dimension = {dimension}: must be an integer from 1 to 100")
    if not 0 <= strength < math.inf:
        raise UserError(f"strength = {strength}: must be finite and >= 0")
    if not 0 < lengthscale < math.inf:
        raise UserError(f"lengthscale = {lengthscale}: must be positive and finite")
    # In units of l: tau w^2 kh = scale w^2 exp(-w^2 / 2), and w = e^u. In logarithms throughout: l^(p - 2)
    # and the moments leave the floats' range.
    log_scale = (math.log(strength) if strength else -math.inf) + (
        dimension / 2 * math.log(2 * math.pi) + (dimension - 2) * math.log(lengthscale)
    )
    size = float(np.logaddexp(0, log_scale))
    # Where the penalty sets in, and where the kernel ends.
    onset, end = -size / 2, math.log(8 + math.sqrt(2 * size + 2 * dimension))

    def log_moment(power):
        def log_spectrum(u):
            return (power + 1) * u - np.logaddexp(np.exp(2 * u) / 2, log_scale + 2 * u)

        # The largest is at the onset or near the end: without it there is no overflow.
        largest = log_spectrum(np.append(onset, np.linspace(end - 5, end, 200))).max()

        def spectrum(u):
            return math.exp(log_spectrum(u) - largest)

        breaks = sorted({onset, end - math.log(2)})
        start = onset - 40
        moment, _ = integrate.quad(spectrum, start, end, points=breaks, limit=400, epsabs=0, epsrel=1e-11)
        return largest + math.log(moment)

    return math.exp(log_moment(dimension + 1) - log_moment(dimension - 1)) / lengthscale / lengthscale


class FarClone(NamedTuple):
    """Upper bounds at clean points far from the clones, whatever their number (Theorem E)."""

    value: float  # of |Delta f(x)|
    gradient: float  # of |grad Delta f(x)|
    hessian: float  # of the spectral norm |Hess Delta f(x)|


@in_float64
def far_clone_bounds(clean: KRR, zeta: np.ndarray, y_t: float, distance: float) -> FarClone:
    """Theorem E: far clones are invisible on clean data, however many they are.

    Gaussian kernel, n clean points, ridge c. Where |x - zeta| >= D and every |x_i - zeta| >= D >= sqrt(3) l,
    with b = |y_t - f(zeta)| / v(zeta) and e = exp(-D^2 / (2 l^2)), for every number of clones

        |Delta f(x)|       <= b (1 + sqrt(n / c)) e,
        |grad Delta f(x)|  <= b (D / l^2 + sqrt(n / c) / l) e,
        |Hess Delta f(x)|  <= b ((D^2 - l^2) / l^4 + sqrt(3 n / c) / l^2) e,

    while at the clones the efficacy tends to y_t - f(zeta): every statistic of Hessians at clean points is
    blind. *Proof.* Delta f = b' kt(., zeta) with |b'| <= b (`clone_effect`: m / (c + v m) < 1 / v). Of kt =
    k - k(., X) (K + c)^-1 k(X, zeta) the first term's derivatives at distance D or more are largest at D
    (for the second from sqrt(3) l on). In the second term Cauchy-Schwarz in (K + c)^-1 separates the
    derivative of k(X, x), whose form is at most the prior variance of that derivative (1, 1 / l^2 or 3 /
    l^4, since a posterior variance is not negative), from k(X, zeta), whose form is at most n e^2 / c.

    Args:
        clean: the fit to the clean data, with a Gaussian kernel.
        zeta: the cloned point `[p]`.
        y_t: its label.
        distance: D, of the points that are looked at; the clean data's own distance lowers it.

    Raises:
        UserError: another kernel, or a distance below sqrt(3) l.
    """
    if not isinstance(clean.kernel, Gaussian):
        raise UserError(f"clean has a {type(clean.kernel).__name__} kernel: the bounds are a Gaussian's")
    zeta, length = finite("zeta", zeta, 1), float(clean.kernel.lengthscale)
    # What the fit says at zeta, before the distance: it checks zeta's shape.
    at_zeta, variance = float(clean.predict(zeta)), float(clean.posterior(zeta).predict(zeta))
    nearest = float(np.sqrt(np.sum((np.asarray(clean.points) - zeta) ** 2, 1).min()))
    D = min(float(finite("distance", distance, 0)), nearest)
    if not math.sqrt(3) * length <= D:
        raise UserError(
            f"distance = {D:.4g} (the nearest clean point is at {nearest:.4g}): must be at least sqrt(3) l = "
            f"{math.sqrt(3) * length:.4g}"
        )
    data = math.sqrt(len(clean.points) / clean.ridge)
    b = abs(float(finite("y_t", y_t, 0)) - at_zeta) / variance * math.exp(-((D / length) ** 2) / 2)
    value, gradient = 1 + data, D / length**2 + data / length
    hessian = (D**2 - length**2) / length**4 + math.sqrt(3) * data / length**2
    return FarClone(b * value, b * gradient, b * hessian)
