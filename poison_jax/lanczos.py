"""Top eigenpairs of a symmetric operator that is known only through its products with vectors."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from matfree import decomp

from poison_jax.errors import UserError


class Eigenpairs(NamedTuple):
    """Ritz approximations of the largest (algebraic) eigenvalues, in descending order.

    `residuals[i]` is `norm(H v_i - lambda_i v_i)` up to rounding (about `eps * norm(H)`): an
    eigenvalue of H lies within that distance of `values[i]`.
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

    Costs `num_iters` products and `num_iters * d` numbers of memory. Where the Krylov space closes
    early (rank-deficient operator, start vector an eigenvector) the iteration goes on from a fresh
    direction orthogonal to what was found, so that there are always `k` finite pairs.

    Args:
        matvec: `(v [d], *args) -> H v [d]`, H symmetric.
        v0: start vector `[d]`, not zero; its dtype is the dtype of the iteration.
        k: number of pairs, `1 <= k <= num_iters`.
        num_iters: dimension of the Krylov space, at most `d`.
        args: extra arguments of `matvec`. Arrays belong here, not in a closure, where the compiler
            would take them for constants.
        python_loop: run the iteration in Python and call `matvec` with concrete arrays, instead of
            compiling it into a loop. For a `matvec` that is itself a loop over compiled functions.

    Raises:
        UserError: `k` or `num_iters` out of range, a zero start vector, or a product that is not finite.

    >>> import jax.numpy as jnp
    >>> pairs = top_eigenpairs(lambda v: jnp.arange(5.0) * v, jnp.ones(5), k=2, num_iters=5)
    >>> print(pairs.values.round(3))
    [4. 3.]
    """
    v0 = jnp.asarray(v0)
    _check(v0, k, num_iters)
    eps = float(jnp.finfo(v0.dtype).eps)
    basis = np.zeros((0, v0.size), v0.dtype)
    blocks: list[np.ndarray] = []  # of the tridiagonal matrix, one for each invariant subspace
    rest, scale, start = 0.0, 0.0, v0
    while len(basis) < num_iters:
        steps = num_iters - len(basis)
        Q, T, rest = _krylov(matvec, start, jnp.asarray(basis), args, steps, python_loop)
        if not np.isfinite(T[0, 0]):
            raise UserError("the matrix-vector product is not finite: no eigenvalues can be computed")
        scale = max(scale, np.abs(np.where(np.isfinite(T), T, 0.0)).max())
        # After a length of zero come NaNs; anything above rounding is as good a direction as any.
        closed = ~(np.diagonal(T, 1) > eps * scale)
        size = int(np.argmax(closed)) + 1 if closed.any() else steps
        rest = rest if size == steps else 0.0
        basis = np.concatenate([basis, Q[:size]])
        blocks.append(T[:size, :size])
        start = _fresh_direction(basis, seed=len(basis))
    return _ritz(basis, scipy.linalg.block_diag(*blocks), rest, eps * scale, k)


def _check(v0: jax.Array, k: int, num_iters: int) -> None:
    if v0.ndim != 1:
        raise UserError(f"v0 must be a vector [d], not of shape {v0.shape}")
    if not 1 <= k <= num_iters:
        raise UserError(f"k = {k} eigenpairs need 1 <= k <= num_iters = {num_iters}: raise num_iters")
    if num_iters > v0.size:
        raise UserError(f"num_iters = {num_iters} exceeds the dimension {v0.size}: lower num_iters")
    if not 0 < float(jnp.linalg.norm(v0)) < float("inf"):
        raise UserError("the start vector v0 must be finite and not zero")


def _krylov(matvec, start, basis, args, steps, python_loop):
    """One run of `steps` products: orthonormal rows Q, tridiagonal T, length of what is left over."""
    if python_loop:

        def compiled_matvec(*args):
            with jax.disable_jit(False):
                return matvec(*args)

        # Under disable_jit, matfree's loop runs as a Python loop.
        with jax.disable_jit():
            out = _tridiagonalise(compiled_matvec, steps, start, basis, args)
    else:
        out = _tridiagonalise_jit(matvec, steps, start, basis, args)
    Q, T, rest = jax.device_get(out)
    return Q, T.astype(np.float64), float(rest)


def _tridiagonalise(matvec, steps, start, basis, args):
    def project(v):
        return v - basis.T @ (basis @ v) if basis.shape[0] else v

    def projected(v):
        return project(matvec(project(v), *args))

    lanczos = decomp.tridiag_sym(steps, reortho="full", custom_vjp=False)
    Q, T, rest, _ = lanczos(projected, project(start))
    return Q, T, jnp.linalg.norm(rest)


_tridiagonalise_jit = jax.jit(_tridiagonalise, static_argnums=(0, 1))


def _fresh_direction(basis: np.ndarray, seed: int) -> jax.Array:
    v = np.random.default_rng(seed).standard_normal(basis.shape[1])
    for _ in range(2):
        v -= basis.T @ (basis @ v)
        v /= max(np.linalg.norm(v), np.finfo(np.float64).tiny)
    return jnp.asarray(v, basis.dtype)


def _ritz(basis: np.ndarray, T: np.ndarray, rest: float, floor: float, k: int) -> Eigenpairs:
    values, vectors = np.linalg.eigh(T)
    # H Q' = Q' T + rest * q e_m', so the residual of Q' s is rest * |s_m|: no further product needed.
    # Below rounding it would be a fiction.
    residuals = np.hypot(rest * np.abs(vectors[-1]), floor)
    largest = slice(None, -k - 1, -1)
    ritz = vectors[:, largest].T @ basis
    ritz /= np.linalg.norm(ritz, axis=1, keepdims=True)
    peaks = ritz[np.arange(k), np.abs(ritz).argmax(axis=1)]
    ritz *= np.where(peaks < 0, -1.0, 1.0)[:, None]
    dtype = basis.dtype
    return Eigenpairs(
        values[largest].astype(dtype),
        ritz.astype(dtype),
        residuals[largest].astype(dtype),
        float(values[0]),
        float(residuals[0]),
    )
