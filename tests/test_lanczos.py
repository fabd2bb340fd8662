"""Eigenpairs against ARPACK, matfree and dense `eigh`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg
from matfree import decomp

from poison_jax import lanczos
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
    # Rows are orthonormal, each with its largest entry positive; values descend.
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(4), atol=20 * np.finfo(dtype).eps)
    assert (np.take_along_axis(pairs.vectors, np.abs(pairs.vectors).argmax(1)[:, None], 1) > 0).all()
    assert (np.diff(pairs.values) <= 0).all()


def test_equals_matfree(x64):
    """Ritz values and vectors of the same Krylov space, where it closes nowhere."""
    A = jnp.asarray(MATRICES["indefinite"])
    v0 = np.random.default_rng(5).standard_normal(100)
    Q, T, *_ = decomp.tridiag_sym(15, reortho="full", custom_vjp=False)(product, jnp.asarray(v0), A)
    values, vectors = np.linalg.eigh(T)
    pairs = top_eigenpairs(product, v0, k=15, num_iters=15, args=(A,))
    np.testing.assert_allclose(pairs.values, values[::-1], rtol=1e-10, atol=1e-12)
    ritz = (Q.T @ vectors).T[::-1]
    np.testing.assert_allclose(np.abs(np.sum(pairs.vectors * ritz, axis=1)), 1, rtol=1e-8)


# --- where the Krylov space closes early ----------------------------------------------------------------

E = np.eye(6)
BLOCKS = scipy.linalg.block_diag([[2, 1], [1, 2]], [[0, 3], [3, 0]], [[5, 0], [0, -1]])
EARLY = {  # name -> operator, start vector: small integers, whose residuals are exactly zero
    "two eigenvectors": (np.diag([4, 1, 0, 0, 0, 0]), E[0] + E[1]),
    "an eigenvector": (np.diag(np.arange(6)), E[2]),
    "projection": (np.diag([1, 1, 1, 0, 0, 0]), np.ones(6)),
    "projection of rank one": (np.ones((6, 6)), np.arange(6.0)),
    "identity": (np.eye(6), np.arange(1.0, 7)),
    "minus identity": (-np.eye(6), np.arange(1.0, 7)),
    "a block": (BLOCKS, E[0]),
    "two blocks": (BLOCKS, E[1] + E[2]),
    "permutation": (np.eye(6)[::-1], E[0]),  # H v0 is orthogonal to v0, H H v0 is v0
    "in the kernel": (np.diag([0, 0, 3, 2, 1, 1]), E[0]),  # H v0 is zero
    "path": (np.diag(np.ones(5), 1) + np.diag(np.ones(5), -1), E[0]),
    "zero": (np.zeros((6, 6)), np.ones(6)),
}


@pytest.mark.parametrize("python_loop", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EARLY)
def test_a_space_that_closes_early_is_filled_up(name, dtype, python_loop, x64):
    A, v0 = (part.astype(dtype) for part in EARLY[name])
    options = {"num_iters": 6, "args": (jnp.asarray(A),), "python_loop": python_loop}
    pairs = top_eigenpairs(product, v0, k=6, **options)
    rounding = 20 * np.finfo(dtype).eps * max(np.linalg.norm(A, 2), 1)
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(A)[::-1], atol=rounding)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(6), atol=20 * np.finfo(dtype).eps)
    np.testing.assert_allclose(pairs.residuals, 0, atol=rounding)
    two = top_eigenpairs(product, v0, k=2, **options)
    np.testing.assert_allclose(two.values, pairs.values[:2], atol=rounding)
    assert two.smallest_value == pytest.approx(float(pairs.values[-1]), abs=float(rounding))


@pytest.mark.parametrize("python_loop", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_in_a_large_space(rank, dtype, python_loop, x64):
    A = wishart(40, rank).astype(dtype)
    v0 = np.random.default_rng(0).standard_normal(40).astype(dtype)
    pairs = top_eigenpairs(product, v0, k=6, num_iters=20, args=(jnp.asarray(A),), python_loop=python_loop)
    rounding = 50 * np.finfo(dtype).eps * np.linalg.norm(A, 2)
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(A)[::-1][:6], atol=rounding)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(6), atol=50 * np.finfo(dtype).eps)
    assert (pairs.residuals <= rounding).all()


def cycle(d):
    """Normalised Laplacian of a cycle: 1 - cos(2 pi j / d), all but the first and the last of them twice."""
    return np.eye(d) - (np.roll(np.eye(d), 1, 0) + np.roll(np.eye(d), -1, 0)) / 2


@pytest.mark.parametrize("python_loop", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_second_start_finds_repeated_eigenvalues(dtype, python_loop, x64):
    A = jnp.asarray(cycle(20), dtype)
    v0 = np.random.default_rng(0).standard_normal(20).astype(dtype)
    options = {"k": 5, "num_iters": 12, "args": (A,), "python_loop": python_loop}
    true = np.linalg.eigvalsh(cycle(20))[::-1]
    one = top_eigenpairs(product, v0, **options)
    np.testing.assert_allclose(one.values, [true[i] for i in (0, 1, 3, 5, 7)], atol=1e-5)  # each once
    two = top_eigenpairs(product, v0, starts=2, **options)
    np.testing.assert_allclose(two.values, true[:5], rtol=20 * np.finfo(dtype).eps)
    assert (two.residuals < 50 * np.finfo(dtype).eps).all()


def test_as_many_copies_are_found_as_there_are_starts(x64):
    """In a space that the steps do not fill, from a start that is blind to one eigenvector."""
    values = np.r_[5.0, 4.0, 4.0, 4.0, 3.0, np.linspace(0, 1, 195)]
    v0 = np.random.default_rng(0).standard_normal(200)
    v0[0] = 0
    for starts, found in ((1, [4, 3]), (2, [5, 4, 4, 3]), (3, [5, 4, 4, 4, 3])):
        pairs = top_eigenpairs(
            lambda v, d: d * v, v0, k=len(found), num_iters=12, starts=starts, args=(values,)
        )
        np.testing.assert_allclose(pairs.values, found, rtol=1e-9)
        assert (pairs.residuals < 1e-3).all()


def test_whole_space(x64):
    A = MATRICES["indefinite"]
    pairs = top_eigenpairs(product, np.ones(100), k=100, num_iters=100, args=(jnp.asarray(A),))
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(A)[::-1], atol=1e-12)
    one = top_eigenpairs(lambda v: 3 * v, np.ones(1), k=1, num_iters=1)
    np.testing.assert_allclose(one.values, 3)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("python_loop", [False, True])
def test_the_unit_of_the_operator_does_not_matter(python_loop, scale):
    """In float32, where the squares of such numbers are zero or infinite."""
    A = jnp.asarray(MATRICES["spike"] * scale, jnp.float32)
    v0 = np.random.default_rng(5).standard_normal(100).astype(np.float32) * np.float32(scale)
    pairs = top_eigenpairs(product, v0, k=1, num_iters=12, args=(A,), python_loop=python_loop)
    np.testing.assert_allclose(pairs.values / np.float32(scale), 50, rtol=1e-5)
    assert 0 < pairs.residuals[0] < 1e-3 * scale


def test_steps_have_a_default(x64):
    values = np.arange(100.0)
    pairs = top_eigenpairs(lambda v, d: d * v, np.ones(100), k=3, args=(values,))
    asked = top_eigenpairs(lambda v, d: d * v, np.ones(100), k=3, num_iters=26, args=(values,))
    np.testing.assert_array_equal(pairs.values, asked.values)
    np.testing.assert_allclose(top_eigenpairs(lambda v: 2 * v, np.ones(4), k=4).values, 2, rtol=1e-14)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k": 4}, "raise num_iters"),
        ({"k": 0}, "1 <= k"),
        ({"num_iters": 6}, "exceeds the dimension 5"),
        ({"starts": 0}, "starts = 0"),
        ({"v0": np.zeros(5)}, "not zero"),
        ({"v0": np.full(5, np.nan)}, "finite"),
        ({"v0": np.ones((5, 1))}, "vector"),
        ({"v0": np.ones(5, int)}, "v0 is int32"),
        ({"v0": jnp.ones(5, jnp.bfloat16)}, "v0 is bfloat16"),
    ],
)
def test_bad_input(change, says):
    with pytest.raises(UserError, match=says):
        top_eigenpairs(lambda v: v, **{"v0": np.ones(5), "k": 2, "num_iters": 3} | change)


@pytest.mark.parametrize("python_loop", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_product_that_is_not_finite_is_refused(value, python_loop):
    def broken(v):
        return v * jnp.array([1, 2, 3, 4, value], v.dtype)

    with pytest.raises(UserError, match="not finite"):
        top_eigenpairs(broken, jnp.ones(5), k=2, num_iters=4, python_loop=python_loop)


@pytest.mark.parametrize("python_loop", [False, True])
def test_a_product_of_another_shape_is_refused(python_loop):
    for matvec in (lambda v: v[:3], lambda v: v[:1], lambda v: v[None], lambda v: v.sum()):
        with pytest.raises(UserError, match="H must be square"):
            top_eigenpairs(matvec, jnp.ones(5), k=2, num_iters=4, python_loop=python_loop)


ASYMMETRIC = {
    "random": np.random.default_rng(0).standard_normal((40, 40)),
    "skew": np.triu(np.ones((40, 40)), 1) - np.tril(np.ones((40, 40)), -1),
    "nilpotent": np.diag(np.ones(39), 1),
    "triangular": np.triu(np.ones((40, 40))),
}


@pytest.mark.parametrize("python_loop", [False, True])
@pytest.mark.parametrize("name", ASYMMETRIC)
def test_an_operator_that_is_not_symmetric_is_refused(name, python_loop):
    A = jnp.asarray(ASYMMETRIC[name], jnp.float32)
    start = np.random.default_rng(1).standard_normal(40).astype(np.float32)
    for k in (1, 5):
        with pytest.raises(UserError, match="not symmetric"):
            top_eigenpairs(product, start, k=k, num_iters=10, args=(A,), python_loop=python_loop)


def test_a_product_that_changes_from_call_to_call_is_refused():
    rng = np.random.default_rng(0)

    def noisy(v):
        return rng.integers(0, 2, 30) * 2 * v

    with pytest.raises(UserError, match="changes from call to call"):
        top_eigenpairs(noisy, jnp.ones(30), k=2, num_iters=10, python_loop=True)


def test_residuals_tell_where_symmetry_is_not_checked():
    A = jnp.asarray(ASYMMETRIC["random"], jnp.float32)
    start = np.random.default_rng(1).standard_normal(40).astype(np.float32)
    pairs = top_eigenpairs(product, start, k=2, num_iters=10, args=(A,), check_symmetry=False)
    assert (pairs.residuals > 0.1 * np.abs(pairs.values)).all()


def test_rounding_of_half_precision_is_no_asymmetry():
    A = jnp.asarray(MATRICES["spike"], jnp.bfloat16)
    v0 = np.random.default_rng(5).standard_normal(100).astype(np.float32)
    pairs = top_eigenpairs(lambda v, A: A @ v.astype(jnp.bfloat16), v0, k=1, num_iters=12, args=(A,))
    np.testing.assert_allclose(pairs.values, 50, rtol=0.02)
    assert pairs.residuals[0] > 0.01  # they say how coarse it is


@pytest.mark.parametrize("python_loop", [False, True])
def test_a_basis_that_is_not_orthonormal_is_refused(python_loop, monkeypatch):
    """The products' own rounding, with no reorthogonalisation against it (Algorithm 1)."""
    monkeypatch.setattr(lanczos, "_orthonormal", lambda v, basis: lanczos._unit(v))
    values = np.r_[100.0, 50.0, 20.0, np.linspace(0, 1, 394)].astype(np.float32)
    v0 = np.random.default_rng(0).standard_normal(397).astype(np.float32)
    with pytest.raises(UserError, match="off orthonormal"):
        top_eigenpairs(lambda v, d: d * v, v0, k=3, num_iters=41, args=(values,), python_loop=python_loop)


def test_python_loop_calls_compiled_functions():
    traces = []

    @jax.jit
    def compiled(v):
        traces.append(1)
        return jnp.arange(9.0) * v

    pairs = top_eigenpairs(lambda v: compiled(v), jnp.ones(9), k=2, num_iters=9, python_loop=True)
    np.testing.assert_allclose(pairs.values, [8, 7], rtol=1e-5)
    assert len(traces) == 1


def test_equal_shapes_compile_once_and_arrays_are_arguments():
    traces = []

    def matvec(v, A):
        traces.append(A)
        return A @ v

    def found(scale):
        A = jnp.diag(scale * jnp.arange(11.0))
        return top_eigenpairs(matvec, jnp.ones(11), k=2, num_iters=11, args=(A,)).values

    np.testing.assert_allclose(found(1), [10, 9], rtol=1e-5)
    count = len(traces)
    np.testing.assert_allclose(found(3), [30, 27], rtol=1e-5)
    assert len(traces) == count
    assert all(isinstance(A, jax.core.Tracer) for A in traces)
