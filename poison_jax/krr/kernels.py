"""Kernels k(x, x') on R^p. They are pytrees: a sweep over the length scale compiles once."""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax.errors import UserError


class Kernel(abc.ABC):
    """A positive-definite kernel, twice differentiable; `kernel(X, Z)` is its Gram matrix."""

    @abc.abstractmethod
    def __call__(self, X: jax.Array, Z: jax.Array) -> jax.Array:
        """Gram matrix `[a, b]` of points `[a, p]` and `[b, p]`; differentiable, computes in their dtype."""

    def against(self, Z: jax.Array) -> "Kernel":
        """The same kernel, by the fastest formula that is accurate for any X and this Z `[b, p]`."""
        return self

    def gradient_gram(self, X: jax.Array) -> jax.Array:
        """G of eq. 27 at the points `[n, p]`; see `krr.gradient_gram`.

        One point at a time, by as many vector products as there are points or coordinates, whichever are
        fewer: memory of one Jacobian `[n, p]`.
        """
        n, p = X.shape
        jacobian = jax.jacfwd if p < n else jax.jacrev

        def add(G, x):
            B = jacobian(lambda x: self(x[None], X)[0])(x)
            return G + B @ B.T, None

        return jax.lax.scan(add, jnp.zeros((n, n), X.dtype), X)[0]


def _pytree(cls):
    return jax.tree_util.register_dataclass(dataclass(frozen=True)(cls))


@_pytree
class Gaussian(Kernel):
    """`exp(-|x - x'|^2 / (2 l^2))`, eq. 18: the paper's exponential kernel.

    The distances are norms of differences, or with `expanded` one matrix product, `|x|^2 + |x'|^2 - 2 x.x'`
    of centred points. Its rounding is about 5 eps (s / l)^2, where s is the distance from the centre to the
    farthest x': as good as differences where l is comparable with s, noise where it is far smaller.
    """

    lengthscale: jax.Array | float
    expanded: bool = field(default=False, metadata={"static": True})

    def against(self, Z):
        # 5e3 eps at most: 1e-12. (The x do not matter: one that is farther out than every x' is far from all
        # of them, and there the rounding is relative to the distance, as that of differences is.)
        spread = np.asarray(_scaled(Z, np.asarray(Z).mean(0), self.lengthscale))
        return Gaussian(self.lengthscale, expanded=bool((np.sum(spread**2, 1) <= 1e3).all()))

    def __call__(self, X, Z):
        if not self.expanded:
            return _by_differences(X, Z, self.lengthscale)
        # Not clipped at zero, since the derivatives there would be lost with it (rounding below zero does no
        # harm in exp).
        centre = Z.mean(0)
        X, Z = _scaled(X, centre, self.lengthscale), _scaled(Z, centre, self.lengthscale)
        squared = jnp.sum(X**2, 1)[:, None] + jnp.sum(Z**2, 1) - 2 * X @ Z.T
        return jnp.exp(-squared / 2)

    def gradient_gram(self, X):
        if not self.expanded:
            return super().gradient_gram(X)
        # G_ab = sum_i K_ia K_ib (x_i - x_a).(x_i - x_b) / l^4, the product expanded: three matrix products.
        K = self(X, X)
        X = _scaled(X, X.mean(0), self.lengthscale)
        C = X @ X.T
        A = K * C
        G = K @ (jnp.diagonal(C)[:, None] * K - A) - A @ K + C * (K @ K)
        return (G + G.T) / 2 / self.lengthscale / self.lengthscale


def _scaled(X, centre, lengthscale):
    return (X - centre) / lengthscale


@jax.jit  # compiled, no `[a, b, p]` differences are held
def _by_differences(X, Z, lengthscale):
    return jnp.exp(-jnp.sum(_scaled(X[:, None], Z, lengthscale) ** 2, 2) / 2)


@_pytree
class Linear(Kernel):
    """The linear kernel `x . x'`."""

    def __call__(self, X, Z):
        return X @ Z.T

    def gradient_gram(self, X):
        return len(X) * self(X, X)  # grad_x k(x_i, x_a) = x_a, whatever i


@_pytree
class Deep(Kernel):
    """A kernel on the features of a network, `k(phi(x), phi(x'))` (Lemma C.1 with a Gaussian `kernel`).

    Derivatives by products with the Jacobian of phi, never by the Jacobian.

    Args:
        feature_map: phi, `(params, X [a, p]) -> features [a, d]`, twice differentiable, row by row.
        params: its parameters, any pytree.
        kernel: the kernel on features.
    """

    feature_map: Callable[[Any, jax.Array], jax.Array] = field(metadata={"static": True})
    params: Any
    kernel: Kernel

    def against(self, Z):
        return Deep(self.feature_map, self.params, self.kernel.against(self.feature_map(self.params, Z)))

    def __call__(self, X, Z):
        return self.kernel(self.feature_map(self.params, X), self.feature_map(self.params, Z))


def gaussian(lengthscale: float) -> Gaussian:
    """The Gaussian kernel `exp(-|x - x'|^2 / (2 l^2))` (eq. 18).

    Args:
        lengthscale: l > 0, in the units of the inputs.

    Raises:
        UserError: l is not positive and finite.

    >>> print(f"{gaussian(1.0)(jnp.zeros((1, 3)), jnp.ones((1, 3))).item():.4f}")
    0.2231
    """
    if not 0 < float(lengthscale) < float("inf"):
        raise UserError(f"lengthscale = {lengthscale}: must be positive and finite")
    return Gaussian(float(lengthscale))
