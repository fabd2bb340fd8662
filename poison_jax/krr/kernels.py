"""Kernels k(x, x') on R^p. They are pytrees: a sweep over the length scale compiles once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from poison_jax.errors import UserError


class Kernel:
    """A positive-definite kernel, twice differentiable; `kernel(X, Z)` is its Gram matrix."""

    def __call__(self, X: jax.Array, Z: jax.Array) -> jax.Array:
        """Gram matrix `[a, b]` of points `[a, p]` and `[b, p]`; differentiable, computes in their dtype."""
        raise NotImplementedError

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
    """`exp(-|x - x'|^2 / (2 l^2))`, eq. 18: the paper's exponential kernel."""

    lengthscale: jax.Array | float

    def __call__(self, X, Z):
        # Distances from one matrix product, good to eps times the squared spread of the data over l. Centred,
        # lest far-away data lose digits; not clipped at zero, since the derivatives there would be lost with
        # it (rounding below zero does no harm in exp).
        centre = Z.mean(0)
        X, Z = (X - centre) / self.lengthscale, (Z - centre) / self.lengthscale
        squared = jnp.sum(X**2, 1)[:, None] + jnp.sum(Z**2, 1) - 2 * X @ Z.T
        return jnp.exp(-squared / 2)

    def gradient_gram(self, X):
        # G_ab = sum_i K_ia K_ib (x_i - x_a).(x_i - x_b) / l^4, the product expanded: three matrix products.
        K = self(X, X)
        X = (X - X.mean(0)) / self.lengthscale
        C = X @ X.T
        A = K * C
        G = K @ (jnp.diagonal(C)[:, None] * K - A) - A @ K + C * (K @ K)
        return (G + G.T) / 2 / self.lengthscale / self.lengthscale


@_pytree
class Linear(Kernel):
    """`x . x'`."""

    def __call__(self, X, Z):
        return X @ Z.T

    def gradient_gram(self, X):
        return len(X) * self(X, X)  # grad_x k(x_i, x_a) = x_a, whatever i


@_pytree
class Deep(Kernel):
    """`k(phi(x), phi(x'))`; derivatives by products with the Jacobian of phi, never by the Jacobian."""

    params: Any
    kernel: Kernel
    feature_map: Callable[[Any, jax.Array], jax.Array] = field(metadata={"static": True})

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


def linear() -> Linear:
    """The linear kernel `x . x'`."""
    return Linear()


def deep(feature_map: Callable[[Any, jax.Array], jax.Array], params: Any, kernel: Kernel) -> Deep:
    """A kernel on the features of a network (Lemma C.1 with a Gaussian `kernel`).

    Args:
        feature_map: `(params, X [a, p]) -> features [a, d]`, twice differentiable, row by row.
        params: its parameters, any pytree.
        kernel: the kernel on features.
    """
    return Deep(params, kernel, feature_map)
