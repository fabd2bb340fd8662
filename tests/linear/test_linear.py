"""Least squares and Lemma F.1, against NumPy, statsmodels and the fit of the whole design."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from poison_jax import linear
from poison_jax.errors import UserError

CLOSE = {"rtol": 1e-8, "atol": 1e-9}


def lstsq(X, Y):
    return np.linalg.lstsq(X, Y, rcond=None)[0]


def ridge_fit(X, Y, c):
    return np.linalg.solve(X.T @ X + c * np.eye(X.shape[1]), X.T @ Y)


def regression(n=60, p=7, outputs=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, p)), rng.standard_normal((n, outputs)), rng


def check_update(X, Y, Z):
    """The update against the fit of the whole design; returns it."""
    fit = linear.least_squares(X, Y)
    update = linear.add_feature(X, Y, fit, Z)
    X = X.X if isinstance(X, linear.Factorisation) else X
    whole = np.column_stack([X, Z])
    direct = lstsq(whole, Y)
    new = update.beta_new.reshape(-1, *Y.shape[1:])
    np.testing.assert_allclose(np.concatenate([update.beta_old, new]), direct, **CLOSE)
    before, after = (((Y - design @ beta) ** 2).sum(0) for design, beta in ((X, fit), (whole, direct)))
    np.testing.assert_allclose(update.rss_drop, before - after, atol=1e-8)
    return update


# --- the fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 7), (7, 60), (7, 7), (1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize("ridge", [0.0, 1e-3, 1.0, 1e3])
def test_fit_is_that_of_numpy(shape, ridge):
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal(shape), rng.standard_normal((shape[0], 2))
    expected = ridge_fit(X, Y, ridge) if ridge else lstsq(X, Y)
    np.testing.assert_allclose(linear.least_squares(X, Y, ridge=ridge), expected, **CLOSE)
    np.testing.assert_allclose(linear.least_squares(X, Y[:, 0], ridge=ridge), expected[:, 0], **CLOSE)


def test_minimum_norm_where_columns_are_zero_or_repeated():
    X, Y, _ = regression()
    X = np.column_stack([X, np.zeros(len(X)), X[:, 0], X[:, 1] - X[:, 2]])
    factorisation = linear.factorise(X)
    assert factorisation.rank == 7
    beta = linear.least_squares(factorisation, Y)
    np.testing.assert_allclose(beta, lstsq(X, Y), **CLOSE)
    np.testing.assert_array_equal(beta[7], 0)
    np.testing.assert_allclose(beta[8], beta[0], **CLOSE)


@pytest.mark.parametrize("shape", [(60, 7), (7, 60), (5, 7)])
def test_leading_columns_share_the_factorisation(shape):
    rng = np.random.default_rng(4)
    X, Y = rng.standard_normal(shape), rng.standard_normal((shape[0], 2))
    for columns in (1, 6, 7):
        part = linear.leading(linear.factorise(X), columns)
        np.testing.assert_allclose(linear.least_squares(part, Y), lstsq(X[:, :columns], Y), **CLOSE)
        check_update(part, Y, rng.standard_normal((shape[0], 2)))


@pytest.mark.parametrize("columns", [0, 8])
def test_leading_columns_that_are_not_there(columns):
    factorisation = linear.factorise(regression()[0])
    refused(lambda: linear.leading(factorisation, columns), rf"^columns = {columns}: X has 7")


def test_design_of_zeros():
    np.testing.assert_array_equal(linear.least_squares(np.zeros((4, 2)), np.ones(4)), [0, 0])


def test_float64_whatever_comes_in():
    X, Y, _ = regression()
    integers = np.round(10 * X).astype(np.int16)
    beta = linear.least_squares(integers, Y.astype(np.float32))
    assert beta.dtype == np.float64
    np.testing.assert_allclose(beta, lstsq(integers.astype(float), Y.astype(np.float32)), **CLOSE)


def test_tiny_and_huge_units_do_not_matter():
    X, Y, _ = regression()
    np.testing.assert_allclose(linear.least_squares(1e-200 * X, Y), 1e200 * lstsq(X, Y), **CLOSE)
    np.testing.assert_allclose(linear.least_squares(1e150 * X, Y), 1e-150 * lstsq(X, Y), rtol=1e-8)


# --- Lemma F.1 ------------------------------------------------------------------------------------


def test_lemma_as_printed_and_statsmodels():
    """Its three formulas, literally, with full column rank and one column."""
    X, Y, rng = regression(outputs=1)
    Y, x_new = Y[:, 0], rng.standard_normal(len(X))
    before, after = sm.OLS(Y, X).fit(), sm.OLS(Y, np.column_stack([X, x_new])).fit()
    update = linear.add_feature(X, Y, before.params, x_new)
    inverse = np.linalg.inv(X.T @ X)
    M = np.eye(len(X)) - X @ inverse @ X.T
    e = Y - X @ before.params
    beta_new = (x_new @ e) / (x_new @ M @ x_new)
    beta_old = before.params - inverse @ X.T @ x_new * beta_new
    printed = beta_old, beta_new, (x_new @ e) ** 2 / (x_new @ M @ x_new)
    theirs = after.params[:-1], after.params[-1], before.ssr - after.ssr
    for ours, *oracles in zip(update, printed, theirs, strict=True):
        for oracle in oracles:
            np.testing.assert_allclose(ours, oracle, **CLOSE)


SMALL = st.integers(-3, 3)


@st.composite
def designs(draw):
    """X and Z of any rank, Z partly in the span of X and with columns that depend on each other.

    Products of small integers, whose singular values are either zero or far from it.
    """
    n, p, q = draw(st.integers(1, 12)), draw(st.integers(1, 6)), draw(st.integers(1, 5))

    def product(rows, columns):
        rank = draw(st.integers(0, min(rows, columns)))
        left = draw(hnp.arrays(int, (rows, rank), elements=SMALL))
        return left @ draw(hnp.arrays(int, (rank, columns), elements=SMALL))

    X = product(n, p)
    Z = product(n, q) + X @ draw(hnp.arrays(int, (p, q), elements=st.integers(-1, 1)))
    return X, Z, draw(hnp.arrays(int, (n, 2), elements=st.integers(-9, 9)))


@settings(max_examples=200, deadline=None)
@given(designs())
def test_update_is_the_fit_of_the_whole_design(arrays):
    X, Z, Y = arrays
    check_update(X, Y, Z)


def test_four_identical_columns_share_the_coefficient():
    """The trigger's pixels: on in the same images, all off in the others."""
    X, Y, rng = regression()
    X = np.column_stack([X, np.zeros(len(X))])  # as MNIST, not of full rank
    trigger = np.repeat((rng.random(len(X)) < 0.2)[:, None], 4, axis=1).astype(float)
    block = check_update(X, Y, trigger)
    one = check_update(X, Y, 2 * trigger[:, 0])  # the unit vector in the trigger's direction
    np.testing.assert_allclose(block.beta_new, np.broadcast_to(one.beta_new / 2, (4, 3)), **CLOSE)
    np.testing.assert_allclose(block.rss_drop, one.rss_drop, **CLOSE)


def test_columns_in_the_span_change_no_prediction():
    X, Y, _ = regression()
    update = check_update(X, Y, X[:, :2] @ [[1.0, 2.0], [3.0, -1.0]])
    np.testing.assert_allclose(update.rss_drop, 0, atol=1e-12)
    assert np.abs(update.beta_new).max() > 1e-3  # of minimum norm: the new columns carry their share


def test_columns_of_zeros_get_nothing():
    X, Y, _ = regression()
    update = check_update(X, Y, np.zeros((len(X), 4)))
    np.testing.assert_array_equal(update.beta_new, 0)
    np.testing.assert_array_equal(update.rss_drop, 0)


def test_nearly_in_the_span():
    """What is left of x_new off the span is a millionth of it, and still counts."""
    X, Y, rng = regression()
    x_new = X[:, 0] + 1e-6 * rng.standard_normal(len(X))
    update = linear.add_feature(X, Y, linear.least_squares(X, Y), x_new)
    direct = lstsq(np.column_stack([X, x_new]), Y)
    np.testing.assert_allclose(update.beta_new, direct[-1], rtol=1e-6)
    assert (update.rss_drop > 1e-3).all()


@pytest.mark.parametrize("new", [(), (1,), (3,)])
@pytest.mark.parametrize("outputs", [(), (1,), (2,)])
def test_shapes(new, outputs):
    rng = np.random.default_rng(3)
    X, Y, x_new = (rng.standard_normal((20, *shape)) for shape in ((5,), outputs, new))
    factorisation = linear.factorise(X)
    update = linear.add_feature(factorisation, Y, linear.least_squares(factorisation, Y), x_new)
    assert [part.shape for part in update] == [(5, *outputs), new + outputs, outputs]
    assert all(part.dtype == np.float64 for part in update)


def test_inputs_are_left_alone():
    X, Y, rng = regression()
    Z, beta = rng.standard_normal((len(X), 2)), linear.least_squares(X, Y)
    before = [array.copy() for array in (X, Y, beta, Z)]
    linear.add_feature(X, Y, beta, Z)
    for array, copy in zip((X, Y, beta, Z), before, strict=True):
        np.testing.assert_array_equal(array, copy)


# --- what is refused ------------------------------------------------------------------------------

GOOD = np.arange(12.0).reshape(4, 3) ** 2
BAD = [
    ({"X": GOOD[0]}, r"^X is \[3\], must be 2-dimensional"),
    ({"X": GOOD * 1j}, r"^X must be real numbers, not complex128"),
    ({"Y": np.full(4, np.inf)}, r"^Y: 4 of 4 values are not finite"),
    ({"Y": np.ones(5)}, r"^Y has 5 rows, X has 4"),
    ({"Y": np.ones((4, 1, 1))}, r"^Y is \[4, 1, 1\], must be 1-dimensional or 2-dimensional"),
]
BAD_FIT = [
    ({"ridge": -1.0}, r"^ridge = -1.0: must be finite and at least 0"),
    ({"ridge": np.nan}, r"^ridge = nan"),
]
BAD_UPDATE = [
    ({"x_new": np.ones(3)}, r"^x_new has 3 rows, X has 4"),
    ({"x_new": np.full((4, 2), np.nan)}, r"^x_new: 8 of 8 values are not finite"),
    ({"beta": np.ones((3, 1))}, r"^beta is \[3, 1\], must be \[3\]"),
    ({"beta": np.array([1.0, np.nan, 0.0])}, r"^beta: 1 of 3 values"),
    ({"beta": np.ones(3)}, r"^beta is not the fit of Y on X"),
]


def refused(call, pattern):
    with pytest.raises(UserError, match=pattern) as error:
        call()
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("bad", "pattern"), BAD + BAD_FIT, ids=[p for _, p in BAD + BAD_FIT])
def test_bad_fit(bad, pattern):
    arguments = {"X": GOOD, "Y": np.arange(4.0), "ridge": 0.0} | bad
    refused(lambda: linear.least_squares(**arguments), pattern)


@pytest.mark.parametrize(("bad", "pattern"), BAD + BAD_UPDATE, ids=[p for _, p in BAD + BAD_UPDATE])
def test_bad_update(bad, pattern):
    beta = linear.least_squares(GOOD, np.arange(4.0))
    arguments = {"X": GOOD, "Y": np.arange(4.0), "beta": beta, "x_new": np.eye(4)[0]} | bad
    refused(lambda: linear.add_feature(**arguments), pattern)
