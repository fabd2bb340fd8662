"""Kernel ridge regression with an input-gradient penalty (Section 3.5.1): eq. 26 and what it should be.

Over f = sum_a alpha_a k(., x_a), with G of eq. 27 (alpha' G alpha = sum_i |grad f(x_i)|^2), minimising

    J(alpha) = |y - K alpha|^2 / 2 + lambda alpha' K alpha / 2 + kappa alpha' G alpha / 2

asks for `[K (K + lambda I) + kappa G] alpha = K y` (form "exact"). Eq. 26 (form "paper") has G where this
has K^-1 G. Both penalise grad f; the penalty of eq. 25 is on grad L = (f - y) grad f, which is not linear.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax.arrays import finite
from poison_jax.errors import UserError
from poison_jax.krr.kernels import Kernel
from poison_jax.krr.regression import Expansion, as_data, in_float64

FORMS = ("exact", "paper")


@in_float64
def gram(kernel: Kernel, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """`K_ab = k(x_a, z_b)`, `[a, b]`, by the formula of the kernel that is accurate among the points Z."""
    return np.asarray(kernel.against(Z)(jnp.asarray(X), jnp.asarray(Z)))


@in_float64
def gradient_gram(kernel: Kernel, X: np.ndarray) -> np.ndarray:
    """G of eq. 27: `G_ab = sum_i grad_x k(x_i, x_a) . grad_x k(x_i, x_b)`, `[n, n]`, positive semidefinite.

    Never holds n x n x p numbers: a few matrix products for the Gaussian and the linear kernel, one
    Jacobian `[n, p]` at a time for any other.

    Args:
        kernel: the kernel.
        X: points `[n, p]`.
    """
    X = finite("X", X, 2)
    return np.asarray(_gradient_gram(kernel.against(X), X))


@jax.jit
def _gradient_gram(kernel, X):
    return kernel.gradient_gram(X)


@in_float64
def penalised_fit(
    kernel: Kernel, X: np.ndarray, y: np.ndarray, ridge: float, kappa: float, *, form: str = "exact"
) -> Expansion:
    """The fit with an input-gradient penalty, as a function on R^p.

    With G of `gradient_gram`, it minimises

        J(alpha) = |y - K alpha|^2 / 2 + lambda alpha' K alpha / 2 + kappa alpha' G alpha / 2.

    Args:
        kernel: the kernel.
        X: points `[n, p]`.
        y: targets `[n]`.
        ridge: lambda of eq. 26, the full diagonal term (n lambda in eq. 2's notation), > 0.
        kappa: strength of the penalty, >= 0; at 0 both forms are `krr.fit`.
        form: `exact` (the minimiser of J) or `paper` (eq. 26 as printed, which is not).

    Raises:
        UserError: what `krr.fit` refuses; a negative kappa; an unknown form.
    """
    X, y = as_data(X, y)
    path = PenalisedPath(gram(kernel, X, X), gradient_gram(kernel, X), form=form)
    return Expansion(kernel.against(X), jnp.asarray(X), jnp.asarray(path.alpha(y, ridge, kappa)))


class PenalisedPath:
    """The penalised fits to one data set, for any ridge and kappa: the matrices are prepared once.

    Both forms are `(A + lambda I + kappa P) z = b` for symmetric A and P. For `paper` A = K, P = G. For
    `exact`, in K's eigenbasis K = U S U' and with z = S^{1/2} U' alpha: A = S, P = S^{-1/2} U' G U S^{-1/2}.
    P is bounded (|grad f| is, by the norm of f), so that directions in which K is singular to rounding,
    and f does not move, can be left out.

    Args:
        K: Gram matrix `[n, n]`.
        G: of `gradient_gram`, `[n, n]`.
        form: `exact` or `paper`.
    """

    @in_float64
    def __init__(self, K: np.ndarray, G: np.ndarray, *, form: str = "exact"):
        if form not in FORMS:
            raise UserError(f"form {form!r}: use one of {', '.join(FORMS)}")
        K, G = finite("K", K, 2), finite("G", G, 2)
        if K.shape != G.shape or K.shape[0] != K.shape[1]:
            raise UserError(f"K {K.shape} and G {G.shape} must be square and alike")
        self.K, self.G = K, G
        if form == "paper":
            self._A, self._P = jnp.asarray(K), jnp.asarray(G)
            self._half = self._back = jnp.eye(len(K))  # alpha itself is z
            return
        values, vectors = jnp.linalg.eigh(K)
        keep = values > len(K) * np.finfo(np.float64).eps * values[-1]
        root, U = jnp.sqrt(values[keep]), vectors[:, keep]
        self._A, self._P = jnp.diag(root**2), U.T @ G @ U / root / root[:, None]
        self._half = U * root  # K = half half'; alpha = U S^{-1/2} z
        self._back = U / root

    @in_float64
    def alpha(self, y: np.ndarray, ridge: float, kappa: float) -> np.ndarray:
        """Coefficients alpha `[n]` for targets y `[n]`."""
        _check(ridge, kappa)
        y = finite("y", y, 1)
        if len(y) != len(self._half):
            raise UserError(f"y has {len(y)} targets for {len(self._half)} points in K")
        return np.asarray(self._back @ self._solved(ridge, kappa, self._half.T @ y))

    @in_float64
    def degrees_of_freedom(self, ridge: float, kappa: float) -> float:
        """Effective degrees of freedom, decreasing in kappa in both forms (Theorem 3.9).

        `tr[K (K + lambda I + kappa G)^-1]` (eq. 28) for `paper`; for `exact` the trace of the matrix that
        takes y to its fit.
        """
        _check(ridge, kappa)
        return float(np.trace(self._solved(ridge, kappa, self._A)))

    def _solved(self, ridge, kappa, b):
        z = np.asarray(_solve(self._A, self._P, ridge, kappa, b))
        if not np.isfinite(z).all():
            raise UserError(
                f"ridge = {ridge}: the penalised system is not positive definite in float64: raise the ridge"
            )
        return z


def _check(ridge, kappa):
    if not 0 < ridge < float("inf"):
        raise UserError(f"ridge = {ridge}: must be positive and finite")
    if not 0 <= kappa < float("inf"):
        raise UserError(f"kappa = {kappa}: must be finite and >= 0")


@jax.jit
def _solve(A, P, ridge, kappa, b):
    factor = jax.scipy.linalg.cho_factor(A + ridge * jnp.eye(len(A)) + kappa * P)
    return jax.scipy.linalg.cho_solve(factor, b)


class HermiteFit(NamedTuple):
    """The minimiser over the whole function space, and the objective's terms there."""

    values: np.ndarray  # f(x_i) [n]
    gradients: np.ndarray  # grad f(x_i) [n, p]
    norm_squared: float  # |f|^2 in the kernel's space


@in_float64
def hermite_fit(kernel: Kernel, X: np.ndarray, y: np.ndarray, ridge: float, kappa: float) -> HermiteFit:
    """The minimiser of `sum (y_i - f(x_i))^2 / 2 + lambda |f|^2 / 2 + kappa sum |grad f(x_i)|^2 / 2`.

    The penalty looks at gradients, so the representer theorem adds the sections `d/dx_ij k(., x_i)` to the
    n sections `k(., x_i)` that eq. 26 is written in. The answer is kernel ridge regression on values *and*
    gradients, the latter observed to be zero with ridge lambda / kappa. Costs (n (1 + p))^3: for small
    problems, to see what eq. 26's span leaves out.

    Args:
        kernel, X `[n, p]`, y `[n]`: as in `penalised_fit`.
        ridge: lambda > 0.
        kappa: > 0.
    """
    _check(ridge, kappa)
    if kappa == 0:
        raise UserError("kappa = 0: there is no penalty, use krr.fit")
    X, y = as_data(X, y)
    n, p = X.shape
    gram = np.asarray(_hermite_gram(kernel, X)).reshape(n * (1 + p), n * (1 + p))
    targets, noise = np.zeros((n, 1 + p)), np.full((n, 1 + p), ridge / kappa)
    targets[:, 0], noise[:, 0] = y, ridge
    coefficients = np.linalg.solve(gram + np.diag(noise.ravel()), targets.ravel())
    fitted = (gram @ coefficients).reshape(n, 1 + p)
    return HermiteFit(fitted[:, 0], fitted[:, 1:], float(coefficients @ fitted.ravel()))


@jax.jit
def _hermite_gram(kernel, X):
    """Inner products `[n, 1 + p, n, 1 + p]` of the sections k(., x_i) and d/dx_ij k(., x_i)."""

    def block(x, z):
        def beside_z(x):  # k(x, z), then d/dz_j k(x, z)
            k, slope = jax.value_and_grad(lambda z: kernel(x[None], z[None])[0, 0])(z)
            return jnp.append(k, slope)

        return jnp.vstack([beside_z(x), jax.jacfwd(beside_z)(x).T])

    blocks = jax.vmap(lambda x: jax.vmap(lambda z: block(x, z))(X))(X)
    return blocks.transpose(0, 2, 1, 3)


def filter_response(omega, spectrum, ridge, kappa, *, form: str = "exact"):
    """Share of a Fourier mode that survives, `s(w) = kh / (kh + lambda + kappa |w|^2 kh^j)`.

    Args:
        omega: |w|, frequency.
        spectrum: kh(w), the kernel's Fourier transform there.
        ridge: lambda.
        kappa: strength of the gradient penalty (eta in App. D).
        form: `exact`, j = 1: App. D's last formula, and the stationarity condition's; `remark`, j = 0:
            Remark 3.10 as printed; `paper`, j = 2: what eq. 26 as printed would do.
    """
    powers = {"remark": 0, "exact": 1, "paper": 2}
    if form not in powers:
        raise UserError(f"form {form!r}: use one of {', '.join(powers)}")
    return spectrum / (spectrum + ridge + kappa * np.square(omega) * spectrum ** powers[form])
