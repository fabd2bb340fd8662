"""Top eigenpairs of a symmetric operator that is known only through its products with vectors."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matfree import decomp

from poison_jax.errors import UserError


class Eigenpairs(NamedTuple):
    """Ritz approximations of the largest (algebraic) eigenvalues, in descending order.

    `residuals[i]` is `norm(H v_i - lambda_i v_i)`, computed by a further product: an eigenvalue of H
    lies within that distance of `values[i]`, and the rounding of the product itself is in it.
    Every row of `vectors` has unit length and its component of largest magnitude is positive.
    """

    values: np.ndarray  # [k]
    vectors: np.ndarray  # [k, d]
    residuals: np.ndarray  # [k]
    smallest_value: float  # the most negative Ritz value
    smallest_residual: float


def top_eigenpairs(
    matvec: Callable[..., jax.Array],
    v0: jax.Array,
    *,
    k: int,
    num_iters: int,
    args: tuple = (),
    python_loop: bool = False,
) -> Eigenpairs:
    """Lanczos with full reorthogonalisation (Algorithm 1 has none), then Rayleigh-Ritz.

    Costs `num_iters + k + 1` products and `num_iters * d` numbers of memory. Where the Krylov space closes
    early (rank-deficient operator, start vector an eigenvector) the iteration goes on from a fresh
    direction orthogonal to what was found, so that there are always `k` finite pairs.

    Args:
        matvec: `(v [d], *args) -> H v [d]`, H symmetric.
        v0: start vector `[d]`, not zero; its dtype is the dtype of the iteration.
        k: number of pairs, `1 <= k <= num_iters`.
        num_iters: dimension of the Krylov space, at most `d`.
        args: extra arguments of `matvec`. Arrays belong here, not in a closure, where the compiler
            would take them for constants.
        python_loop: iterate on the host and call `matvec` with concrete arrays, instead of compiling
            the iteration as one loop. For a `matvec` that is itself a loop over compiled functions.

    Raises:
        UserError: `k` or `num_iters` out of range, a zero start vector, or a product that is not finite.

    >>> import jax.numpy as jnp
    >>> pairs = top_eigenpairs(lambda v: jnp.arange(5.0) * v, jnp.ones(5), k=2, num_iters=5)
    >>> print(pairs.values.round(3))
    [4. 3.]
    """
    v0 = jnp.asarray(v0)
    _check(v0, k, num_iters)
    if python_loop:
        basis, T = np.zeros((0, v0.size)), np.zeros((0, 0))
    else:
        basis, T = _compiled_krylov(matvec, v0, args, num_iters)
    basis, T = _extend(matvec, v0, args, basis, T, num_iters)
    values, vectors = _ritz(basis, T, k, v0.dtype)
    if python_loop:
        products = np.stack([matvec(v, *args) for v in jnp.asarray(vectors)])
    else:
        products = np.asarray(_map_products(matvec, vectors, args))
    residuals = np.linalg.norm(products - values[:, None] * vectors, axis=1)
    return Eigenpairs(values[:-1], vectors[:-1], residuals[:-1], float(values[-1]), float(residuals[-1]))


def _check(v0: jax.Array, k: int, num_iters: int) -> None:
    if v0.ndim != 1:
        raise UserError(f"v0 must be a vector [d], not of shape {v0.shape}")
    if not 1 <= k <= num_iters:
        raise UserError(f"k = {k} eigenpairs need 1 <= k <= num_iters = {num_iters}: raise num_iters")
    if num_iters > v0.size:
        raise UserError(f"num_iters = {num_iters} exceeds the dimension {v0.size}: lower num_iters")
    if not 0 < float(jnp.linalg.norm(v0)) < float("inf"):
        raise UserError("the start vector v0 must be finite and not zero")


def _compiled_krylov(matvec, v0, args, steps):
    """matfree's Lanczos as one compiled loop: orthonormal rows, tridiagonal matrix, up to a breakdown."""
    basis, T = jax.device_get(_tridiagonalise(matvec, v0, args, steps))
    couplings = np.diagonal(T, 1)
    # After a length of zero come NaNs, after one of rounding's size directions that mean nothing.
    closed = ~(couplings > _noise(v0, np.where(np.isfinite(T), T, 0.0)))
    size = int(np.argmax(closed)) + 1 if closed.any() else steps
    if not np.isfinite(T[0, 0]):
        size = 0  # the product itself is not finite; let that be found out in one place
    return basis[:size].astype(np.float64), T[:size, :size].astype(np.float64)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _tridiagonalise(matvec, v0, args, steps):
    lanczos = decomp.tridiag_sym(steps, reortho="full", custom_vjp=False)
    Q, T, *_ = lanczos(matvec, v0, *args)
    return Q, T


def _extend(matvec, v0, args, basis, T, steps):
    """Brings an orthonormal basis `[m, d]` and its projected operator T to `steps`, product by product.

    On the host, in float64; a direction that rounding cannot tell from zero gives way to a fresh one.
    """
    rng = np.random.default_rng(0)
    v = None if len(basis) else np.asarray(v0, np.float64)
    while len(basis) < steps:
        v = _orthonormal(_fresh(rng, basis, v0.size) if v is None else v, basis)
        basis = np.concatenate([basis, v[None]])
        product = np.asarray(matvec(jnp.asarray(v, v0.dtype), *args), np.float64)
        if not np.isfinite(product).all():
            raise UserError("the matrix-vector product is not finite: no eigenvalues can be computed")
        column = basis @ product
        T = np.pad(T, ((0, 1), (0, 1)))
        T[:, -1] = T[-1, :] = column
        v = product - basis.T @ column
        if np.linalg.norm(v) <= _noise(v0, T):
            v = None
    return basis, T


def _noise(v0, T) -> float:
    """The length below which what is left of a product is rounding."""
    return 10 * float(jnp.finfo(v0.dtype).eps) * np.sqrt(v0.size) * np.abs(T).max()


def _fresh(rng, basis: np.ndarray, size: int) -> np.ndarray:
    """A random direction that the basis does not hold already (a caller's start may come from this seed)."""
    while True:
        v = rng.standard_normal(size)
        if np.linalg.norm(v - basis.T @ (basis @ v)) > 1e-6 * np.linalg.norm(v):
            return v


def _orthonormal(v: np.ndarray, basis: np.ndarray) -> np.ndarray:
    for _ in range(2):  # twice is enough
        v = v / np.linalg.norm(v)
        v = v - basis.T @ (basis @ v)
    return v / np.linalg.norm(v)


def _ritz(basis: np.ndarray, T: np.ndarray, k: int, dtype) -> tuple[np.ndarray, np.ndarray]:
    """The k largest Ritz values and then the smallest, descending; their unit vectors as rows."""
    values, vectors = np.linalg.eigh(T)
    wanted = [*range(len(values) - 1, len(values) - 1 - k, -1), 0]
    ritz = vectors[:, wanted].T @ basis
    ritz /= np.linalg.norm(ritz, axis=1, keepdims=True)
    peaks = np.take_along_axis(ritz, np.abs(ritz).argmax(axis=1)[:, None], axis=1)
    ritz *= np.where(peaks < 0, -1.0, 1.0)
    return values[wanted].astype(dtype), ritz.astype(dtype)


@functools.partial(jax.jit, static_argnums=0)
def _map_products(matvec, vectors, args):
    return jax.lax.map(lambda v: matvec(v, *args), vectors)
