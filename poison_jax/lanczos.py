"""Top eigenpairs of a symmetric operator that is known only through its products with vectors."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
    smallest_value: float  # the smallest Ritz value
    smallest_residual: float


@jax.default_matmul_precision("highest")  # GPUs and TPUs round float32 products to fewer bits unless told
def top_eigenpairs(
    matvec: Callable[..., jax.Array],
    v0: jax.Array,
    *,
    k: int,
    num_iters: int | None = None,
    starts: int = 1,
    args: tuple = (),
    python_loop: bool = False,
    check_symmetry: bool = True,
) -> Eigenpairs:
    """Lanczos with full reorthogonalisation (Algorithm 1 has none), then Rayleigh-Ritz.

    Costs `starts * num_iters + k + 1` products and `starts * num_iters * d` numbers of memory. Where the
    Krylov space closes early (rank-deficient operator, start vector an eigenvector) the iteration goes on
    from a fresh random direction orthogonal to the basis, so that there are always `k` finite pairs.

    **What one start cannot see.** The Krylov space of v0 holds one vector of each eigenspace: the projection
    of v0 onto it. A repeated eigenvalue is found once (its copies by rounding alone, many steps later), and
    the next eigenvalue stands in their place. An eigenvector orthogonal to v0 is not found at all, and no
    residual shows it. `starts = s` finds up to s copies: after every `num_iters` steps the iteration
    goes on from a fresh random direction, orthogonal to the whole basis. As a check, compare the values for
    one start with those for two: where they agree, and the residuals are small, none of them is repeated.

    Args:
        matvec: `(v [d], *args) -> H v [d]`, H symmetric. Compiled once for a named function and each shape of
            the arguments; a new lambda is compiled each time.
        v0: start vector `[d]`, not zero; its dtype, float32 or float64, is that of the iteration.
        k: number of pairs, `1 <= k <= num_iters`.
        num_iters: Lanczos steps from a start, at most `d`; None: `2 k + 20`, or `d` if that is less. The
            residuals tell whether they were enough.
        starts: how many copies of an eigenvalue can be found, >= 1. There are at most `d` steps in all.
        args: extra arguments of `matvec`. Arrays belong here, not in a closure, where the compiler
            would take them for constants.
        python_loop: iterate on the host and call `matvec` with concrete arrays, instead of compiling
            the iteration as one loop. For a `matvec` that is itself a loop over compiled functions.
        check_symmetry: refuse an operator that is plainly not symmetric, at no cost. False for a Hessian by
            automatic differentiation: symmetric by construction, but where a network is so sure that its
            loss has no digits left, its products are rounding, which is not (the residuals show it).

    Raises:
        UserError: `k`, `num_iters` or `starts` out of range; a start vector that is zero, not finite or of
            another dtype; a product of another shape or not finite; an operator that is plainly not
            symmetric; a basis that is not orthonormal to rounding.

    >>> import jax.numpy as jnp
    >>> pairs = top_eigenpairs(lambda v: jnp.arange(5.0) * v, jnp.ones(5), k=2, num_iters=5)
    >>> print(pairs.values.round(3))
    [4. 3.]
    """
    v0 = jnp.asarray(v0)
    if num_iters is None:
        num_iters = min(2 * k + 20, v0.size)
    _check(v0, k, num_iters, starts)
    steps = min(starts * num_iters, v0.size)

    if python_loop:
        state = _start(v0, steps)
        for _ in range(steps):
            product = _finite(matvec(state.direction, *args))
            state = _compiled_step(state, product, num_iters)
    else:
        state = _compiled_loop(matvec, v0, args, steps, num_iters)
    basis, projected = (np.asarray(part, np.float64) for part in (state.basis, state.projected))
    _finite(projected)
    _check_orthonormal(basis, v0.dtype)
    values, vectors = _ritz(basis, projected, k, v0.dtype)

    if python_loop:
        products = np.stack([_finite(matvec(v, *args)) for v in jnp.asarray(vectors)])
    else:
        products = _finite(_map_products(matvec, vectors, args))
    products = products.astype(np.float64)
    residual_vectors = products - values[:, None].astype(np.float64) * vectors
    if check_symmetry:
        _check_symmetric(residual_vectors, products, vectors)
    residuals = np.linalg.norm(residual_vectors, axis=1).astype(v0.dtype)
    return Eigenpairs(values[:-1], vectors[:-1], residuals[:-1], float(values[-1]), float(residuals[-1]))


class _State(NamedTuple):
    """The iteration before its step `count`, of m steps in all."""

    count: jax.Array
    direction: jax.Array  # [d]: of unit length, orthogonal to the basis
    basis: jax.Array  # [m, d]: orthonormal rows, those from `count` on still zero
    projected: jax.Array  # [m, m]: upper triangle of `basis H basis'`
    scale: jax.Array  # largest norm of a product so far: a lower bound on the norm of H


def _start(v0: jax.Array, steps: int) -> _State:
    zeros = functools.partial(jnp.zeros, dtype=v0.dtype)
    return _State(jnp.array(0), _unit(v0), zeros((steps, v0.size)), zeros((steps, steps)), zeros(()))


def _step(state: _State, product: jax.Array, num_iters: int) -> _State:
    """One Lanczos step, given the product of H and `state.direction`; fresh directions every `num_iters`.

    The new column of the projected operator is measured against the whole basis, not taken from the
    three-term recurrence: Rayleigh-Ritz is right for any orthonormal basis, wherever its directions are from.
    """
    count, direction, basis, projected, scale = state
    if product.shape != direction.shape:
        raise UserError(f"matvec takes a vector {direction.shape} to {product.shape}: H must be square")
    product = jnp.asarray(product, direction.dtype)
    basis = basis.at[count].set(direction)
    column = _matmul(basis, product)
    rest = product - _matmul(column, basis)
    scale = jnp.maximum(scale, _norm(product))
    # What rounding cannot tell from zero is no direction: the coupling to the next one is taken for zero.
    closed = _norm(rest) <= _rounding(direction.dtype, direction.size) * scale
    key = jax.random.fold_in(jax.random.key(0x6C616E63, impl="threefry2x32"), count)
    fresh = jax.random.normal(key, direction.shape, direction.dtype)
    chosen = jnp.where(closed | ((count + 1) % num_iters == 0), fresh, rest)
    return _State(count + 1, _orthonormal(chosen, basis), basis, projected.at[:, count].set(column), scale)


_compiled_step = jax.jit(_step, static_argnums=2)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _compiled_loop(matvec, v0, args, steps, num_iters):
    def advance(_, state):
        return _step(state, matvec(state.direction, *args), num_iters)

    return jax.lax.fori_loop(0, steps, advance, _start(v0, steps))


@functools.partial(jax.jit, static_argnums=0)
def _map_products(matvec, vectors, args):
    return jax.lax.map(lambda v: matvec(v, *args), vectors)


def _orthonormal(v: jax.Array, basis: jax.Array) -> jax.Array:
    """The unit vector along what v has outside the basis."""
    for _ in range(2):  # twice is enough
        v = _unit(v)
        v = v - _matmul(_matmul(basis, v), basis)
    return _unit(v)


# GPUs and TPUs round a float32 matrix product to fewer bits unless told.
_matmul = functools.partial(jnp.matmul, precision="highest")


def _norm(v: jax.Array) -> jax.Array:
    """Euclidean norm that neither underflows nor overflows: a saturated network's Hessian can be 1e-30."""
    largest = jnp.abs(v).max()
    return largest * jnp.linalg.norm(v / jnp.where(largest > 0, largest, 1))


def _unit(v: jax.Array) -> jax.Array:
    length = _norm(v)
    return v / jnp.where(length > 0, length, 1)


def _rounding(dtype, size: int) -> float:
    """What a sum of `size` products may be off by, relative to the norms of its factors."""
    return 10 * float(jnp.finfo(dtype).eps) * size**0.5


def _ritz(basis: np.ndarray, projected: np.ndarray, k: int, dtype) -> tuple[np.ndarray, np.ndarray]:
    """The k largest Ritz values and then the smallest, descending; their unit vectors as rows."""
    values, vectors = np.linalg.eigh(projected, UPLO="U")
    wanted = [*range(len(values) - 1, len(values) - 1 - k, -1), 0]
    ritz = vectors[:, wanted].T @ basis
    ritz /= np.linalg.norm(ritz, axis=1, keepdims=True)
    peaks = np.take_along_axis(ritz, np.abs(ritz).argmax(axis=1)[:, None], axis=1)
    ritz *= np.where(peaks < 0, -1.0, 1.0)
    return values[wanted].astype(dtype), ritz.astype(dtype)


def _check(v0: jax.Array, k: int, num_iters: int, starts: int) -> None:
    if v0.ndim != 1:
        raise UserError(f"v0 must be a vector [d], not of shape {v0.shape}")
    if v0.dtype not in (jnp.float32, jnp.float64):
        raise UserError(f"v0 is {v0.dtype}: the iteration needs float32 or float64")
    if not 1 <= k <= num_iters:
        raise UserError(f"k = {k} eigenpairs need 1 <= k <= num_iters = {num_iters}: raise num_iters")
    if num_iters > v0.size:
        raise UserError(f"num_iters = {num_iters} exceeds the dimension {v0.size}: lower num_iters")
    if starts < 1:
        raise UserError(f"starts = {starts}: use at least 1")
    if not np.isfinite(v0).all() or not np.any(v0):
        raise UserError("the start vector v0 must be finite and not zero")


def _finite(products) -> np.ndarray:
    products = np.asarray(products)
    if not np.isfinite(products).all():
        raise UserError("the matrix-vector product is not finite: no eigenvalues can be computed")
    return products


def _check_orthonormal(basis: np.ndarray, dtype) -> None:
    off = np.abs(basis @ basis.T - np.eye(len(basis))).max()
    if not off <= _rounding(dtype, basis.shape[1]):
        raise UserError(
            f"the Lanczos basis is off orthonormal by {off:.0e} in {dtype}: its Ritz values would be no "
            "eigenvalues; use float64, or fewer steps"
        )


def _check_symmetric(residual_vectors: np.ndarray, products: np.ndarray, vectors: np.ndarray) -> None:
    """Refuses residual vectors that are not orthogonal to the Ritz vectors, as Rayleigh-Ritz makes them.

    Coarse on purpose: a network in bfloat16 has products that are symmetric to some per cent. Less than that
    is in the residuals, which come from the same products.
    """
    if np.abs(residual_vectors @ vectors.T).max() > 0.1 * np.linalg.norm(products, axis=1).max():
        raise UserError(
            "the operator is not symmetric, or its product with one vector changes from call to call: "
            "Lanczos needs a symmetric operator that is always the same (no dropout, no randomness in it)"
        )
