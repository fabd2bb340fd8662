"""Kernel ridge regression and its derivatives in the input (eqs. 1 to 4), in float64."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax.arrays import finite
from poison_jax.autodiff import hvp
from poison_jax.errors import UserError
from poison_jax.krr.kernels import Kernel


def in_float64(function: Callable) -> Callable:
    """Runs a function in double precision, whatever `jax_enable_x64` says."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return wrapped


def as_data(X, y) -> tuple[np.ndarray, np.ndarray]:
    """Points `[n, p]` and targets `[n]`, n and p at least 1, or a message that names what is wrong."""
    X, y = finite("X", X, 2), finite("y", y, 1)
    if len(X) != len(y):
        raise UserError(f"y has {len(y)} targets for {len(X)} points in X")
    return X, y


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Expansion:
    """A function `f(x) = sum_i alpha_i k(x, x_i)` (eq. 1).

    The methods take points `[p]` or `[t, p]`, compute in float64 and return NumPy arrays; `score` is the
    pure function underneath, for `jax.grad` and the like.
    """

    kernel: Kernel
    points: jax.Array  # [n, p]
    coefficients: jax.Array  # [n]

    @property
    def alpha(self) -> np.ndarray:
        """Coefficients alpha `[n]`, float64."""
        return np.asarray(self.coefficients)

    def score(self, x: jax.Array) -> jax.Array:
        """f(x), scalar, of one point `[p]`; may be traced."""
        return self.kernel(x[None], self.points)[0] @ self.coefficients

    def predict(self, X: np.ndarray) -> np.ndarray:
        """f at points `[t, p]` (or one `[p]`): `[t]` (or a scalar)."""
        return self._map(_predict, X)

    def input_gradient(self, X: np.ndarray) -> np.ndarray:
        """grad_x f (eq. 3) at points `[t, p]` (or one `[p]`): `[t, p]` (or `[p]`)."""
        return self._map(_gradients, X)

    @in_float64
    def loss_hessian(self, x0: np.ndarray, y: float) -> np.ndarray:
        """Hessian `[p, p]` in x of `(f(x) - y)^2 / 2` at x0 `[p]` (eq. 4), dense."""
        return np.asarray(_loss_hessian(self, self._point("x0", x0), float(finite("y", y, 0))))

    @in_float64
    def loss_hvp(self, x0: np.ndarray, y: float, v: np.ndarray) -> np.ndarray:
        """That Hessian times v `[p]`, without forming it: cost of a few evaluations of f."""
        y = float(finite("y", y, 0))
        return np.asarray(_loss_hvp(self._point("v", v), self, self._point("x0", x0), y))

    def _point(self, name, x, ndim=1):
        x = finite(name, x, ndim)
        if x.shape[-1] != self.points.shape[1]:
            raise UserError(
                f"{name} has {x.shape[-1]} coordinates, the training points have {self.points.shape[1]}"
            )
        return x

    @in_float64
    def _map(self, function, X):
        if np.ndim(X) == 1:
            return np.asarray(function(self, self._point("x0", X)[None]))[0]
        return np.asarray(function(self, self._point("x0", X, 2)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KRR(Expansion):
    """A fitted kernel ridge regression: an `Expansion` with the factor of its linear system."""

    targets: jax.Array  # y [n]
    ridge: float  # c = n lambda
    factor: jax.Array  # L [n, n], lower: L L' = K + c I

    @in_float64
    def leading(self, count: int) -> "KRR":
        """The fit to the first `count` points alone, from the leading block of the same factor."""
        if not 1 <= count <= len(self.targets):
            raise UserError(f"count = {count}: the fit has {len(self.targets)} points")
        factor, targets = self.factor[:count, :count], self.targets[:count]
        kernel, points = self.kernel.against(self.points[:count]), self.points[:count]
        return KRR(kernel, points, _solve(factor, targets), targets, self.ridge, factor)

    @in_float64
    def posterior(self, zeta: np.ndarray) -> Expansion:
        """`kt(., zeta) = k(., zeta) - k(., X) (K + c I)^-1 k(X, zeta)`: the part that the data leave open.

        As a function of its first argument; the covariance of a Gaussian process after observing the data
        with noise variance c.

        Args:
            zeta: `[p]`.
        """
        zeta = self._point("zeta", zeta)[None]
        section = _solve(self.factor, self.kernel.against(zeta)(self.points, zeta)[:, 0])
        points = jnp.concatenate([self.points, zeta])
        return Expansion(self.kernel.against(points), points, jnp.concatenate([-section, jnp.ones(1)]))


@in_float64
def fit(kernel: Kernel, X: np.ndarray, y: np.ndarray, ridge: float) -> KRR:
    """Fits `alpha = (K + c I)^-1 y` (eqs. 1, 2) by Cholesky, in float64.

    Args:
        kernel: `gaussian(l)`, `linear()` or `deep(...)`.
        X: points `[n, p]`.
        y: targets `[n]`.
        ridge: the full diagonal term c = n lambda > 0 (eq. 7).

    Returns:
        An `Expansion` with `alpha`, `predict`, `input_gradient`, `loss_hessian`, and `posterior`.

    Raises:
        UserError: arrays of the wrong shape, not finite; ridge not positive, or too small for the matrix
            to be positive definite in float64.

    >>> from poison_jax.krr import linear
    >>> model = fit(linear(), [[1.0], [2.0]], [1.0, 2.0], ridge=5.0)
    >>> print(model.predict([[3.0]]), model.input_gradient([3.0]))
    [1.5] [0.5]
    """
    X, y = as_data(X, y)
    if not 0 < float(ridge) < float("inf"):
        copies = len(X) - len(np.unique(X, axis=0))
        why = f" (X holds {copies} duplicated points: K is singular)" if copies else ""
        raise UserError(f"ridge = {ridge}: must be positive and finite{why}")
    kernel = kernel.against(X)
    factor = _factor(kernel, X, float(ridge))
    pivots = np.asarray(jnp.diagonal(factor)) ** 2
    rows = np.asarray(jnp.sum(factor**2, 1))  # the diagonal of K + c I
    if not (pivots > 4 * np.finfo(np.float64).eps * rows).all():  # NaN, or no digit left
        raise UserError(
            f"ridge = {ridge}: K + ridge I is not positive definite in float64 (points nearly duplicated, or "
            "a length scale far beyond their distances): raise the ridge"
        )
    return KRR(kernel, jnp.asarray(X), _solve(factor, y), jnp.asarray(y), float(ridge), factor)


@jax.jit
def _factor(kernel, X, ridge):
    K = kernel(X, X)
    return jnp.linalg.cholesky(K + ridge * jnp.eye(len(X)), symmetrize_input=False)


@jax.jit
def _solve(factor, b):
    return jax.scipy.linalg.cho_solve((factor, True), b)


@jax.jit
def _predict(f, X):
    return f.kernel(X, f.points) @ f.coefficients


@jax.jit
def _gradients(f, X):
    return jax.vmap(jax.grad(f.score))(X)


@jax.jit
def _loss_hessian(f, x0, y):
    # eq. 4: Gauss-Newton term plus residual times the Hessian of f.
    gradient = jax.grad(f.score)(x0)
    return jnp.outer(gradient, gradient) + (f.score(x0) - y) * jax.hessian(f.score)(x0)


@jax.jit
def _loss_hvp(v, f, x0, y):
    return hvp(lambda x: 0.5 * (f.score(x) - y) ** 2, x0, v)
