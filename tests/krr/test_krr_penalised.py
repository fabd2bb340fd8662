"""The input-gradient penalty on kernel regression against dense sums, scipy's minimiser and Fourier modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from test_krr import (
    MLP,
    central,
    data,
    direct,
    every_kernel,
    examples,
    kernels,
    make,
    mlp,
    ridges,
    seeds,
)

from poison_jax import krr
from poison_jax.errors import UserError
from poison_jax.krr.kernels import Kernel

every_form = pytest.mark.parametrize("form", ["exact", "paper"])


def wide(params, X):
    """The network on six coordinates, added in pairs."""
    return mlp(params, X[:, :3] + X[:, 3:])


def sections_gradients(name, X, lengthscale=1.3):
    """grad_x k(x_i, x_a) for all i, a: `[n, n, p]`, from the formulae and the network's Jacobians."""
    if name == "linear":
        return np.broadcast_to(X, (len(X), *X.shape))
    if name == "gaussian":
        return -direct(name, X, X, lengthscale)[..., None] * (X[:, None] - X) / lengthscale**2
    W, b, V = MLP
    if X.shape[1] == 6:
        X, W = X[:, :3] + X[:, 3:], np.concatenate([W, W])
    hidden = np.tanh(X @ W[:3] + b)
    phi, J = hidden @ V, np.einsum("hd,ih,ph->idp", V, 1 - hidden**2, W)
    k = direct("gaussian", phi, phi, lengthscale)[..., None]
    return -k * np.einsum("idp,iad->iap", J, phi[:, None] - phi) / lengthscale**2  # Lemma C.1


def dense(name, X, lengthscale=1.3):
    """K and G of eq. 27, the latter from n x n x p numbers."""
    B = sections_gradients(name, X, lengthscale)
    return direct(name, X, X, lengthscale), np.einsum("iap,ibp->ab", B, B)


def objective(K, G, y, ridge, kappa):
    return lambda a: (np.sum((y - K @ a) ** 2) + ridge * a @ K @ a + kappa * a @ G @ a) / 2


@pytest.mark.parametrize(("n", "p"), [(8, 3), (4, 6)])
@every_kernel
def test_gradient_gram_equals_the_sum_over_points(name, n, p):
    X, y = data(n, p)
    kernel = krr.deep(wide, MLP, krr.gaussian(1.3)) if (name, p) == ("deep", 6) else make(name)
    G = krr.gradient_gram(kernel, X)
    B = sections_gradients(name, X)
    np.testing.assert_allclose(G, np.einsum("iap,ibp->ab", B, B), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(G, G.T, rtol=1e-13, atol=1e-13)
    assert np.linalg.eigvalsh(G)[0] > -1e-12 * np.linalg.norm(G)
    model = krr.fit(kernel, X, y, 0.3)
    seen = np.sum(model.input_gradient(X) ** 2)
    np.testing.assert_allclose(model.alpha @ G @ model.alpha, seen, rtol=1e-11)
    if name == "linear":
        np.testing.assert_allclose(G, n * X @ X.T, rtol=1e-13)
    if name == "gaussian":  # the products that any kernel can do, beside its closed form
        with jax.enable_x64(True):
            generic = jax.jit(lambda X: Kernel.gradient_gram(kernel, X))(jnp.asarray(X))
        np.testing.assert_allclose(G, generic, rtol=1e-11, atol=1e-12)


def test_gradient_gram_far_from_the_origin_and_of_clones():
    X, _ = data()
    _, G = dense("gaussian", X + 1e3)
    np.testing.assert_allclose(krr.gradient_gram(make("gaussian"), X + 1e3), G, rtol=1e-11, atol=1e-12)
    clones = krr.gradient_gram(make("gaussian"), np.ones((8, 3)))  # df is constant in kappa
    np.testing.assert_array_equal(clones, 0)


@every_kernel
@every_form
def test_no_penalty_is_kernel_ridge_regression(name, form):
    X, y = data()
    new = data(5, seed=1)[0]
    expected = krr.fit(make(name), X, y, 0.3)
    found = krr.penalised_fit(make(name), X, y, 0.3, 0.0, form=form)
    np.testing.assert_allclose(found.predict(new), expected.predict(new), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.input_gradient(new), expected.input_gradient(new), rtol=1e-9, atol=1e-10)
    if name != "linear":  # of rank p: there the exact form takes the alpha of least norm
        np.testing.assert_allclose(found.alpha, expected.alpha, rtol=1e-8)


@pytest.mark.parametrize("name", ["gaussian", "deep"])
@pytest.mark.parametrize("kappa", [0.05, 2.0])
def test_each_form_solves_its_equation_and_the_exact_one_is_the_minimum(name, kappa):
    X, y = data()
    K, G = dense(name, X)
    exact = krr.penalised_fit(make(name), X, y, 0.3, kappa).alpha
    paper = krr.penalised_fit(make(name), X, y, 0.3, kappa, form="paper").alpha
    np.testing.assert_allclose(K @ (K @ exact + 0.3 * exact) + kappa * G @ exact, K @ y, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(
        K @ paper + 0.3 * paper + kappa * G @ paper, y, rtol=1e-10, atol=1e-11
    )  # eq. 26

    J = objective(K, G, y, 0.3, kappa)
    starts = np.random.default_rng(0).standard_normal((3, 8))
    for start in starts:
        found = scipy.optimize.minimize(J, start, method="BFGS", options={"gtol": 1e-6})
        assert J(exact) <= found.fun
        assert found.fun == pytest.approx(J(exact), rel=1e-6)  # it got there
    assert J(paper) > J(exact) + 1e-4  # eq. 26 is not the stationarity condition


@every_form
@pytest.mark.parametrize("kappa", [0.0, 0.7])
def test_clones_are_no_obstacle(form, kappa):
    """K is singular; the fit, if not alpha, is still unique: least squares on the stacked square roots."""
    X, y = data()
    X, y = np.concatenate([X, X[:3], X[:1]]), np.r_[y, 1.0, -1.0, 2.0, 0.5]
    K, G = dense("gaussian", X)
    found = krr.penalised_fit(make("gaussian"), X, y, 0.3, kappa, form=form)
    if form == "paper":
        expected = np.linalg.solve(K + 0.3 * np.eye(12) + kappa * G, y)
    else:
        roots = [_root(0.3 * K), _root(kappa * G)]
        stacked = np.concatenate([K, *roots]), np.r_[y, np.zeros(24)]
        expected = np.linalg.lstsq(*stacked, rcond=1e-9)[0]
        J = objective(K, G, y, 0.3, kappa)
        assert J(found.alpha) == pytest.approx(J(expected), rel=1e-10)
    np.testing.assert_allclose(found.predict(X), K @ expected, rtol=1e-6, atol=1e-7)


def _root(A):
    values, vectors = np.linalg.eigh(A)
    return np.sqrt(values.clip(0))[:, None] * vectors.T


@every_form
@examples
@given(name=kernels, ridge=ridges, kappa=st.floats(-3, 1), factor=st.floats(1.1, 10), seed=seeds)
def test_degrees_of_freedom_decrease_with_kappa(form, name, ridge, kappa, factor, seed):
    """Theorem 3.9, its first half, and what is monotone instead of the residual in the exact form."""
    X, y = data(seed=seed)
    K, G = dense(name, X)
    path = krr.PenalisedPath(K, G, form=form)
    none, low, high = (path.degrees_of_freedom(ridge, k) for k in (0.0, 10**kappa, 10**kappa * factor))
    values = np.linalg.eigvalsh(K)
    np.testing.assert_allclose(none, np.sum(values / (values + ridge)), rtol=1e-9)
    assert 0 < high < low < none < 8
    smoother = np.stack([K @ path.alpha(row, ridge, 10**kappa) for row in np.eye(8)], 1)
    np.testing.assert_allclose(low, np.trace(smoother), rtol=1e-6)
    if form == "exact":  # a minimiser's smoother is symmetric; the terms of J that it trades are monotone
        np.testing.assert_allclose(smoother, smoother.T, atol=1e-7)
        alphas = [path.alpha(y, ridge, k) for k in (0.0, 10**kappa, 10**kappa * factor)]
        rest = [np.sum((y - K @ a) ** 2) + ridge * a @ K @ a for a in alphas]
        penalty = [a @ G @ a for a in alphas]
        assert (np.diff(rest) >= -1e-9 * rest[0]).all()
        assert (np.diff(penalty) <= 1e-9 * penalty[0]).all()


def test_linear_kernel_is_a_larger_ridge():
    """Remark 3.11 holds for the minimiser, with n kappa added; not for eq. 26, where G = n K."""
    X, y = data()
    shrunk = np.linalg.solve(X.T @ X + (0.3 + 8 * 0.7) * np.eye(3), X.T @ y)
    exact = krr.penalised_fit(krr.linear(), X, y, 0.3, 0.7)
    np.testing.assert_allclose(exact.predict(X), X @ shrunk, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(exact.input_gradient(X[0]), shrunk, rtol=1e-10, atol=1e-12)
    rescaled = np.linalg.solve((1 + 8 * 0.7) * X.T @ X + 0.3 * np.eye(3), X.T @ y)
    paper = krr.penalised_fit(krr.linear(), X, y, 0.3, 0.7, form="paper")
    np.testing.assert_allclose(paper.predict(X), X @ rescaled, rtol=1e-10, atol=1e-12)


# The whole function space


@pytest.mark.parametrize("name", ["gaussian", "linear", "deep"])
@pytest.mark.parametrize("kappa", [0.05, 2.0])
def test_the_whole_space_beats_the_span_and_the_span_beats_eq_26(name, kappa):
    X, y = data()
    K, G = dense(name, X)
    whole = krr.hermite_fit(make(name), X, y, 0.3, kappa)
    J = objective(K, G, y, 0.3, kappa)
    best = np.sum((y - whole.values) ** 2) + 0.3 * whole.norm_squared + kappa * np.sum(whole.gradients**2)
    exact, paper = (
        J(krr.penalised_fit(make(name), X, y, 0.3, kappa, form=f).alpha) for f in ("exact", "paper")
    )
    if name == "linear":  # the span is the whole space
        assert best / 2 == pytest.approx(exact, rel=1e-10)
        weights = np.linalg.solve(X.T @ X + (0.3 + 8 * kappa) * np.eye(3), X.T @ y)
        np.testing.assert_allclose(whole.values, X @ weights, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(whole.gradients, np.tile(weights, (8, 1)), rtol=1e-9, atol=1e-11)
        assert whole.norm_squared == pytest.approx(weights @ weights, rel=1e-9)
        assert exact < paper
    else:
        assert best / 2 < exact - 1e-5 < paper - 2e-5


def test_hermite_fit_of_the_gaussian_by_hand():
    """The function rebuilt from the kernel's written-out derivatives."""
    (X, y), ridge, kappa, l2 = data(5), 0.3, 0.4, 1.3**2

    def sections(x, Z=X):
        """k(x, z_i), then d/dz_ij k(x, z_i)."""
        k = direct("gaussian", x[None], Z)[0]
        return np.r_[k, (k[:, None] * (x - Z) / l2).ravel()]

    def slopes(x):
        """d/dx of these, `[p, n (1 + p)]`."""
        k, d = direct("gaussian", x[None], X)[0][:, None], x - X
        mixed = k[..., None] * (np.eye(3) / l2 - d[:, :, None] * d[:, None] / l2**2)
        return np.c_[(-k * d / l2).T, mixed.reshape(15, 3).T]

    values, gradients = np.stack([sections(x) for x in X]), np.concatenate([slopes(x) for x in X])
    np.testing.assert_allclose(slopes(X[1] + 0.2), central(sections, X[1] + 0.2), rtol=1e-6, atol=1e-8)
    gram = np.concatenate([values, gradients])
    normal = values.T @ values + ridge * gram + kappa * gradients.T @ gradients
    w = scipy.linalg.solve(normal, values.T @ y, assume_a="sym")
    found = krr.hermite_fit(make("gaussian"), X, y, ridge, kappa)
    np.testing.assert_allclose(found.values, values @ w, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.norm_squared, w @ gram @ w, rtol=1e-7)
    for x, gradient in zip(X, found.gradients, strict=True):
        np.testing.assert_allclose(gradient, central(lambda x: sections(x) @ w, x), rtol=1e-6, atol=1e-8)


# The filter


def test_filter_response_forms():
    assert krr.filter_response(3.0, 0.5, 0.2, 0.1) == pytest.approx(0.5 / (0.5 + 0.2 + 0.45))
    assert krr.filter_response(3.0, 0.5, 0.2, 0.1) == pytest.approx(1 / (1 + 0.2 / 0.5 + 0.1 * 9))  # App. D
    assert krr.filter_response(3.0, 0.5, 0.2, 0.1, form="remark") == pytest.approx(0.5 / (0.5 + 0.2 + 0.9))
    assert krr.filter_response(3.0, 0.5, 0.2, 0.1, form="paper") == pytest.approx(0.5 / (0.5 + 0.2 + 0.225))
    w = np.linspace(-6, 6, 121)
    for kappa in (0.0, 0.1, 3.0):
        for lengthscale in (0.3, 1.0):
            spectrum = np.exp(-(w**2) * lengthscale**2 / 2)
            response = krr.filter_response(w, spectrum, 0.05, kappa)
            np.testing.assert_allclose(response, response[::-1], rtol=1e-12)
            assert (np.diff(response[60:]) < 0).all()  # low pass, where Remark 3.10 says high


# Bad input

X, y = data()
K, G = dense("gaussian", X)
PATH = krr.PenalisedPath(K, G)


def fit(**changes):
    arguments = {"kernel": make("gaussian"), "X": X, "y": y, "ridge": 0.3, "kappa": 0.1} | changes
    return krr.penalised_fit(**arguments)


def twins(ridge, kappa, form):
    return fit(X=np.concatenate([X, X]), y=np.r_[y, y], ridge=ridge, kappa=kappa, form=form)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        *((lambda v=v: fit(ridge=v), "^ridge = .*positive and finite$") for v in (0, -1, np.nan, np.inf)),
        *((lambda v=v: fit(kappa=v), "^kappa = .*finite and >= 0$") for v in (-1e-9, np.nan, np.inf)),
        (lambda: fit(form="Paper"), "^form 'Paper': use one of exact, paper$"),
        (lambda: fit(y=y[1:]), "^y has 7 targets for 8 points in X$"),
        (lambda: fit(X=X[0]), r"^X is \[3\]"),
        (lambda: krr.gradient_gram(make("gaussian"), X[None]), r"^X is \[1, 8, 3\]"),
        (lambda: krr.gradient_gram(make("gaussian"), X * np.inf), "^X: 24 of 24"),
        (lambda: krr.PenalisedPath(K, G[1:, 1:]), r"^K \(8, 8\) and G \(7, 7\)"),
        (lambda: krr.PenalisedPath(K[1:], G[1:]), r"^K \(7, 8\) and G \(7, 8\) must be square"),
        (lambda: krr.PenalisedPath(K[:0, :0], G[:0, :0]), r"^K is \[0, 0\], must be"),
        (lambda: krr.PenalisedPath(K, G, form="remark"), "^form 'remark'"),
        (lambda: PATH.alpha(y, 0, 0.1), "^ridge = 0"),
        (lambda: PATH.alpha(y[:, None], 0.3, 0.1), r"^y is \[8, 1\]"),
        (lambda: PATH.alpha(y[1:], 0.3, 0.1), "^y has 7 targets for 8 points in K$"),
        (lambda: twins(1e-300, 0.0, "paper"), "^ridge = 1e-300: .*not positive definite"),
        (lambda: PATH.degrees_of_freedom(0.3, -1), "^kappa = -1"),
        (lambda: krr.hermite_fit(make("gaussian"), X, y, 0, 0.1), "^ridge = 0"),
        (
            lambda: krr.hermite_fit(make("gaussian"), X, y, 0.3, 0),
            "^kappa = 0: there is no penalty, use krr.fit$",
        ),
        (
            lambda: krr.hermite_fit(make("gaussian"), X, y[1:], 0.3, 0.1),
            "^y has 7 targets for 8 points in X$",
        ),
        (
            lambda: krr.filter_response(1.0, 1.0, 1.0, 1.0, form="high"),
            "^form 'high': .*remark, exact, paper$",
        ),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(UserError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
