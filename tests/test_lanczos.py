"""Eigenpairs against ARPACK and dense `eigh`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

from poison_jax.errors import UserError
from poison_jax.lanczos import top_eigenpairs


def product(v, A):
    return A @ v


def with_spectrum(values, seed=0):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    return (Q * values) @ Q.T


def wishart(d, n, seed=0):
    X = np.random.default_rng(seed).standard_normal((d, n))
    return X @ X.T / n


MATRICES = {
    "wishart": wishart(120, 300),
    "indefinite": with_spectrum(np.linspace(-1, 1, 100) ** 3),
    "spike": with_spectrum(np.r_[50.0, np.linspace(0, 1, 99)]),
    "clustered": with_spectrum(np.r_[2 + 1e-3 * np.arange(5), np.linspace(0, 1, 75)]),
    "negative": with_spectrum(-np.linspace(1, 2, 60)),
}


@pytest.mark.parametrize(("name", "python_loop"), [*((name, False) for name in MATRICES), ("spike", True)])
def test_equals_arpack(name, python_loop, x64):
    A = MATRICES[name]
    v0 = np.random.default_rng(5).standard_normal(len(A))
    steps = len(A) - 5
    pairs = top_eigenpairs(product, v0, k=5, num_iters=steps, args=(jnp.asarray(A),), python_loop=python_loop)
    values, vectors = scipy.sparse.linalg.eigsh(A, k=5, which="LA")
    np.testing.assert_allclose(pairs.values, values[::-1], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(pairs.vectors * vectors.T[::-1], axis=1)), 1, atol=1e-6)
    np.testing.assert_allclose(pairs.smallest_value, np.linalg.eigvalsh(A)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MATRICES)
def test_residuals_are_what_they_say(name, dtype, x64):
    A = MATRICES[name].astype(dtype)
    v0 = np.random.default_rng(5).standard_normal(len(A)).astype(dtype)
    pairs = top_eigenpairs(product, v0, k=4, num_iters=12, args=(jnp.asarray(A),))
    direct = np.linalg.norm(A @ pairs.vectors.T - pairs.vectors.T * pairs.values, axis=0)
    rounding = 20 * np.finfo(dtype).eps * np.linalg.norm(A, 2)
    np.testing.assert_allclose(pairs.residuals, direct, rtol=1e-3, atol=rounding)
    # ... and so bound the distance to a true eigenvalue.
    true = np.linalg.eigvalsh(A.astype(np.float64))
    distance = np.abs(pairs.values[:, None] - true).min(axis=1)
    assert (distance <= pairs.residuals + rounding).all()


def test_vectors_are_orthonormal_rows_with_a_fixed_sign(x64):
    pairs = top_eigenpairs(product, np.ones(120), k=6, num_iters=30, args=(jnp.asarray(MATRICES["wishart"]),))
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(6), atol=1e-12)
    assert (np.take_along_axis(pairs.vectors, np.abs(pairs.vectors).argmax(1)[:, None], 1) > 0).all()
    assert (np.diff(pairs.values) <= 0).all()


@pytest.mark.parametrize("python_loop", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_breakdown_gives_finite_true_pairs(dtype, python_loop, x64):
    tolerance = 100 * np.finfo(dtype).eps

    def check(A, v0, k, steps):
        A = A.astype(dtype)
        pairs = top_eigenpairs(
            product, v0.astype(dtype), k=k, num_iters=steps, args=(jnp.asarray(A),), python_loop=python_loop
        )
        assert all(np.isfinite(part).all() for part in pairs)
        np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(k), atol=tolerance)
        scale = max(np.linalg.norm(A, 2), 1)
        direct = np.linalg.norm(A @ pairs.vectors.T - pairs.vectors.T * pairs.values, axis=0)
        assert (direct <= pairs.residuals + tolerance * scale).all()
        return pairs

    rng = np.random.default_rng(0)
    diagonal = np.diag(np.arange(6.0))
    pairs = check(diagonal, np.eye(6)[2], 4, 6)  # the start vector is an eigenvector
    np.testing.assert_allclose(pairs.values, [5, 4, 3, 2], atol=tolerance * 5)
    low_rank = wishart(40, 3)
    pairs = check(low_rank, rng.standard_normal(40), 6, 20)  # rank 3
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(low_rank)[::-1][:6], atol=tolerance * 40)
    pairs = check(np.zeros((5, 5)), np.ones(5), 3, 5)
    np.testing.assert_allclose(pairs.values, 0)
    pairs = check(np.eye(8), rng.standard_normal(8), 3, 8)  # one eigenvalue, eight times
    np.testing.assert_allclose(pairs.values, 1, atol=tolerance)


def test_whole_space(x64):
    A = MATRICES["indefinite"]
    pairs = top_eigenpairs(product, np.ones(100), k=100, num_iters=100, args=(jnp.asarray(A),))
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(A)[::-1], atol=1e-12)
    one = top_eigenpairs(lambda v: 3 * v, np.ones(1), k=1, num_iters=1)
    np.testing.assert_allclose(one.values, 3)


@pytest.mark.parametrize(
    ("v0", "k", "num_iters", "says"),
    [
        (np.ones(5), 4, 3, "raise num_iters"),
        (np.ones(5), 0, 3, "1 <= k"),
        (np.ones(5), 2, 6, "exceeds the dimension 5"),
        (np.zeros(5), 2, 3, "not zero"),
        (np.full(5, np.nan), 2, 3, "finite"),
        (np.ones((5, 1)), 2, 3, "vector"),
    ],
)
def test_bad_input(v0, k, num_iters, says):
    with pytest.raises(UserError, match=says):
        top_eigenpairs(lambda v: v, v0, k=k, num_iters=num_iters)


def test_a_product_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match="not finite"):
        top_eigenpairs(lambda v: v * jnp.nan, jnp.ones(5), k=2, num_iters=4)


def test_python_loop_calls_compiled_functions():
    traces = []

    @jax.jit
    def compiled(v):
        traces.append(1)
        return jnp.arange(9.0) * v

    pairs = top_eigenpairs(lambda v: compiled(v), jnp.ones(9), k=2, num_iters=9, python_loop=True)
    np.testing.assert_allclose(pairs.values, [8, 7], rtol=1e-5)
    assert len(traces) == 1


def test_start_vector_from_the_seed_of_the_fresh_directions(x64):
    """The iteration breaks down at once; the first fresh direction drawn is the start vector itself."""
    start = np.random.default_rng(0).standard_normal(6)
    pairs = top_eigenpairs(lambda v: 2 * v, jnp.asarray(start), k=2, num_iters=6, python_loop=True)
    np.testing.assert_allclose(pairs.values, 2, rtol=1e-12)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(2), atol=1e-12)
