"""Kernel ridge regression against scikit-learn, direct sums, finite differences and explicit refits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct
from sklearn.kernel_ridge import KernelRidge

from poison_jax import krr
from poison_jax.errors import UserError
from poison_jax.krr import regression

_rng = np.random.default_rng(7)
MLP = (_rng.standard_normal((3, 5)), _rng.standard_normal(5), _rng.standard_normal((5, 2)))  # R^3 -> R^2


def mlp(params, X):
    W, b, V = params
    return jnp.tanh(X @ W + b) @ V


def make(name, lengthscale=1.3):
    return {
        "gaussian": krr.gaussian(lengthscale),
        "linear": krr.linear(),
        "deep": krr.deep(mlp, MLP, krr.gaussian(lengthscale)),
    }[name]


def direct(name, X, Z, lengthscale=1.3, xp=np):
    """The Gram matrix from differences, point by point: what the kernels are tested against."""
    if name == "linear":
        return (X[:, None] * Z).sum(-1)
    if name == "deep":
        W, b, V = MLP
        X, Z = xp.tanh(X @ W + b) @ V, xp.tanh(Z @ W + b) @ V
    return xp.exp(-((X[:, None] - Z) ** 2).sum(-1) / (2 * lengthscale**2))


def data(n=8, p=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, p)), rng.standard_normal(n)


def central(f, x, step=1e-5):
    """Gradient (or Jacobian, row by coordinate) by central differences."""
    return np.array([(f(x + e) - f(x - e)) / (2 * step) for e in step * np.eye(len(x))])


# Numbers are traced, but each shape compiles: 8 points (9 with a poison, 12) in R^3, looked at from 5 others.
examples = settings(max_examples=15, deadline=None)
kernels = st.sampled_from(["gaussian", "linear", "deep"])
labels = st.integers(-30, 30).map(lambda tenths: tenths / 10)
ridges = st.floats(-3, 1).map(lambda e: 10**e)
lengthscales = st.floats(0.5, 4)
seeds = st.integers(0, 2**16)
every_kernel = pytest.mark.parametrize("name", ["gaussian", "linear", "deep"])


# Fit, kernels and derivatives


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("name", ["gaussian", "linear"])
def test_fit_equals_scikit_learn_in_float64_whatever_jax_is_set_to(name, enabled, dtype):
    X, y = (part.astype(dtype) for part in data())
    new = data(5, seed=1)[0].astype(dtype)
    oracle = {"gaussian": KernelRidge(alpha=0.3, kernel="rbf", gamma=1 / (2 * 1.3**2))}
    oracle = oracle.get(name, KernelRidge(alpha=0.3, kernel="linear")).fit(X.astype(float), y.astype(float))
    with jax.enable_x64(enabled):
        model = krr.fit(make(name), X, y, 0.3)
        results = model.alpha, model.predict(new), model.predict(new[0]), model.input_gradient(new)
        results += model.loss_hessian(new[0], 1.0), model.loss_hvp(new[0], 1.0, new[1])
    for result in results:
        assert result.dtype == np.float64
        assert not isinstance(result, jax.Array)
    np.testing.assert_allclose(results[0], oracle.dual_coef_, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(results[1], oracle.predict(new.astype(float)), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(results[2], results[1][0], rtol=1e-12)
    assert [result.shape for result in results[2:]] == [(), (5, 3), (3, 3), (3,)]


@every_kernel
def test_gram_equals_direct_differences_far_from_the_origin_and_at_clones(name):
    X, _ = data(7)
    Z = np.concatenate([X[:2], data(4, seed=1)[0]])  # two exact clones
    for offset in (0.0,) if name == "deep" else (0.0, 1e3):  # far away the units of the network saturate
        with jax.enable_x64(True):
            K = np.asarray(make(name)(jnp.asarray(X + offset), jnp.asarray(Z + offset)))
        expected = direct(name, X + offset, Z + offset)
        np.testing.assert_allclose(K, expected, rtol=1e-13, atol=1e-13)  # undone by 3e6 eps if not centred


def cancelling():
    """Points and length scales at which |x|^2 + |z|^2 - 2 x.z has lost the distances: `{name: (X, l)}`."""
    rng = np.random.default_rng(0)
    cube = rng.random((5, 3))
    pairs = np.concatenate([cube, cube[:3] + 1e-8 * rng.standard_normal((3, 3))])
    outlier = data()[0]
    outlier[3, 1] = 1e8
    return {
        "length scale of 1e-8": (pairs, 1e-8),
        "one value of 1e8": (outlier, 1.3),
        "two clusters": (np.concatenate([data(4)[0], data(4, seed=1)[0] + 1e6]), 1.3),
    }


@pytest.mark.parametrize("name", cancelling())
def test_gaussian_where_expanded_squares_cancel(name):
    X, lengthscale = cancelling()[name]
    y, kernel = data(len(X))[1], krr.gaussian(lengthscale)
    K = direct("gaussian", X, X, lengthscale)
    for dtype, rtol in ((np.float32, 1e-4), (np.float64, 1e-12)):
        with jax.enable_x64(True):
            found = [k(jnp.asarray(X, dtype), jnp.asarray(X, dtype)) for k in (kernel, jax.jit(kernel))]
        expected = direct("gaussian", *[X.astype(dtype).astype(float)] * 2, lengthscale)
        for gram in found:
            np.testing.assert_allclose(gram, expected, rtol=rtol, atol=rtol)

    model = krr.fit(kernel, X, y, 0.3)
    alpha = np.linalg.solve(K + 0.3 * np.eye(len(X)), y)
    np.testing.assert_allclose(model.alpha, alpha, rtol=1e-9)
    new = X[:5] + 0.3 * lengthscale
    near = direct("gaussian", new, X, lengthscale)
    np.testing.assert_allclose(model.predict(new), near @ alpha, rtol=1e-9)
    slopes = -np.einsum("ta,a,tap->tp", near, alpha, new[:, None] - X) / lengthscale**2
    np.testing.assert_allclose(model.input_gradient(new), slopes, rtol=1e-8)
    with jax.enable_x64(True):
        loss = jax.hessian(
            lambda x: (direct("gaussian", x[None], X, lengthscale, jnp)[0] @ alpha - 1) ** 2 / 2
        )
        np.testing.assert_allclose(model.loss_hessian(new[0], 1), loss(jnp.asarray(new[0])), rtol=1e-7)

    B = -K[..., None] * (X[:, None] - X) / lengthscale**2
    expected = np.einsum("iap,ibp->ab", B, B)
    np.testing.assert_allclose(
        krr.gradient_gram(kernel, X), expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max()
    )
    same = krr.deep(lambda scale, X: scale * X, 1.0, kernel)
    np.testing.assert_allclose(krr.fit(same, X, y, 0.3).predict(new), model.predict(new), rtol=1e-9)


def test_what_is_derived_from_a_fit_is_as_accurate_at_its_own_points():
    """The outlier is the last point, or the poison: the other points alone are harmless, all together not."""
    X, y = data()
    far = np.array([1e8, 0.0, 0.0])
    both = np.concatenate([X, far[None]]), np.r_[y, 1.0]
    model = krr.fit(G, X, y, 0.3)
    whole = krr.fit(G, *both, 0.3)
    np.testing.assert_allclose(whole.leading(8).predict(X[:5]), model.predict(X[:5]), rtol=1e-10)
    for end, x in ((far, far + 0.5), (X[0], far)):
        section = np.linalg.solve(
            direct("gaussian", X, X) + 0.3 * np.eye(8), direct("gaussian", X, end[None])
        )
        expected = direct("gaussian", x[None], end[None]) - direct("gaussian", x[None], X) @ section
        np.testing.assert_allclose(model.posterior(end).predict(x), expected[0, 0], rtol=1e-10, atol=1e-300)
    effect = krr.clone_effect(model, far, 1.0, 1)
    np.testing.assert_allclose(effect.predict(far + 0.5), whole.predict(far + 0.5), rtol=1e-10)


@pytest.mark.parametrize("spread", [1, 10, 31, 33, 100])
def test_either_formula_is_accurate_where_it_is_taken(spread):
    X, y = data()
    X *= spread / np.abs(X).max()
    new = np.concatenate([X[:2] + 0.2, 3 * X[:2], np.full((1, 3), 40.0 * spread)])
    model = krr.fit(krr.gaussian(1.0), X, y, 0.3)
    alpha = np.linalg.solve(direct("gaussian", X, X, 1.0) + 0.3 * np.eye(8), y)
    near = direct("gaussian", new, X, 1.0)
    np.testing.assert_allclose(model.predict(new), near @ alpha, rtol=1e-10, atol=1e-11)
    slopes = -np.einsum("ta,a,tap->tp", near, alpha, new[:, None] - X)
    np.testing.assert_allclose(model.input_gradient(new), slopes, rtol=1e-10, atol=1e-10)


@every_kernel
@pytest.mark.parametrize("at", ["elsewhere", "training point"])
def test_derivatives_equal_finite_differences_and_dense_autodiff(name, at):
    X, y = data()
    x0 = X[2] if at == "training point" else np.array([0.3, -0.2, 0.5])
    label, model = 2.0, krr.fit(make(name), X, y, 0.3)

    def score(x, xp=np):  # rebuilt from the coefficients, not by the module's kernel
        return (direct(name, x[None], X, xp=xp) @ model.alpha)[0]

    def loss(x):
        return 0.5 * (score(x, jnp) - label) ** 2

    gradient, hessian = model.input_gradient(x0), model.loss_hessian(x0, label)
    np.testing.assert_allclose(gradient, central(score, x0), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(model.input_gradient(X[:5])[1], central(score, X[1]), rtol=1e-7, atol=1e-8)
    slope = central(lambda x: (score(x) - label) * central(score, x, 1e-4), x0, 1e-4)
    np.testing.assert_allclose(hessian, slope, rtol=1e-5, atol=1e-6)
    with jax.enable_x64(True):
        dense = np.asarray(jax.jit(jax.hessian(loss))(jnp.asarray(x0)))
        curvature = np.asarray(jax.jit(jax.hessian(lambda x: score(x, jnp)))(jnp.asarray(x0)))
    np.testing.assert_allclose(hessian, dense, rtol=1e-11, atol=1e-11)
    v = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(model.loss_hvp(x0, label, v), dense @ v, rtol=1e-11, atol=1e-11)
    # eq. 4: where the label is met only the rank-one Gauss-Newton term is left ...
    met = model.loss_hessian(x0, model.predict(x0))
    np.testing.assert_allclose(met, np.outer(gradient, gradient), rtol=1e-11, atol=1e-13)
    # ... and the residual times the curvature of f makes up the rest (none for a linear f).
    residual = model.predict(x0) - label
    np.testing.assert_allclose(hessian - met, residual * curvature, rtol=1e-11, atol=1e-11)
    assert np.abs(curvature).max() < 1e-13 if name == "linear" else np.abs(residual * curvature).max() > 0.01


def test_chain_rule_of_the_deep_kernel():
    """Lemma C.1, the Jacobian of the features formed."""
    (x0, zeta), _ = data(2, seed=3)
    found = krr.trigger(make("deep", 0.7), x0, zeta)
    with jax.enable_x64(True):
        J = np.asarray(jax.jacfwd(lambda x: mlp(MLP, x))(jnp.asarray(x0)))
        difference = np.asarray(mlp(MLP, x0) - mlp(MLP, zeta))
    k = np.exp(-difference @ difference / (2 * 0.7**2))
    gradient = -k / 0.7**2 * J.T @ difference
    # `Expansion` with one unit coefficient is the section k(., zeta) itself.
    section = krr.Expansion(make("deep", 0.7), zeta[None], np.ones(1))
    np.testing.assert_allclose(section.input_gradient(x0), gradient, rtol=1e-12)
    np.testing.assert_allclose(found, [k, 1, gradient @ gradient, gradient @ gradient / k**2], rtol=1e-12)


@every_kernel
def test_leading_points_alone(name):
    X, y = data(12)
    part = krr.fit(make(name), X, y, 0.3).leading(8)
    K, cross = direct(name, X[:8], X[:8]) + 0.3 * np.eye(8), direct(name, X, X[:8])
    alpha = np.linalg.solve(K, y[:8])
    np.testing.assert_allclose(part.alpha, alpha, rtol=1e-10)
    np.testing.assert_allclose(part.predict(X[7:]), cross[7:] @ alpha, rtol=1e-10, atol=1e-13)
    left = direct(name, X[8:9], X[8:9])[0, 0] - cross[8] @ np.linalg.solve(K, cross[8])
    np.testing.assert_allclose(part.posterior(X[8]).predict(X[8]), left, rtol=1e-9)  # the factor went along


@every_kernel
def test_posterior_is_the_covariance_of_a_gaussian_process(name):
    X, y = data()
    new = data(5, seed=1)[0]
    model = krr.fit(make(name), X, y, 0.2)
    found = np.stack([model.posterior(z).predict(new) for z in new], 1)
    cross = direct(name, new, X)
    inverse = np.linalg.inv(direct(name, X, X) + 0.2 * np.eye(8))
    np.testing.assert_allclose(found, direct(name, new, new) - cross @ inverse @ cross.T, atol=1e-12)
    if name != "deep":
        prior = RBF(1.3, "fixed") if name == "gaussian" else DotProduct(0.0, "fixed")
        process = GaussianProcessRegressor(prior, alpha=0.2, optimizer=None).fit(X, y)
        mean, covariance = process.predict(new, return_cov=True)
        np.testing.assert_allclose(found, covariance, atol=1e-12)
        np.testing.assert_allclose(model.predict(new), mean, atol=1e-12)


def test_posterior_closes_at_a_training_point_as_the_ridge_vanishes():
    X, y = data()
    fits = [krr.fit(make("gaussian"), X, y, c) for c in (1e-4, 1e-6, 1e-8)]
    left = [fit.posterior(X[3]).predict(X[3]) for fit in fits]
    np.testing.assert_allclose(left, [1e-4, 1e-6, 1e-8], rtol=0.01)  # c (1 - O(c))
    assert fits[-1].posterior(X[3] + 1).predict(X[3] + 1) > 1e-3


# Laws of a cloned poison


@examples
@given(kernels, st.sampled_from([1, 4]), ridges, labels, lengthscales, seeds)
def test_clone_effect_is_the_refit_less_the_clean_fit(name, m, c, label, lengthscale, seed):
    """No isolation: the clones sit among the clean points, and x0 with them."""
    X, y = data(seed=seed)
    zeta, *new = data(6, seed=seed + 1)[0]
    new = np.array(new)
    clean = krr.fit(make(name, lengthscale), X, y, c)
    together = np.concatenate([X, np.tile(zeta, (m, 1))]), np.concatenate([y, np.full(m, label)])
    poisoned = krr.fit(make(name, lengthscale), *together, c)
    effect = krr.clone_effect(clean, zeta, label, m)
    shift, tilt = effect.predict(new), effect.input_gradient(new)
    np.testing.assert_allclose(shift, poisoned.predict(new) - clean.predict(new), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(
        tilt, poisoned.input_gradient(new) - clean.input_gradient(new), rtol=1e-7, atol=1e-8
    )

    # Theorem 3.4 with the posterior kernel's R_k, that kernel computed densely here.
    K = direct(name, X, X, lengthscale) + c * np.eye(8)
    section = np.linalg.solve(K, direct(name, X, zeta[None], lengthscale)[:, 0])

    def posterior(x):
        x = x[None]
        k = direct(name, x, zeta[None], lengthscale)[0, 0]
        return k - direct(name, x, X, lengthscale)[0] @ section

    for x0, moved, gradient in zip(new, shift, tilt, strict=True):
        square = np.sum(central(posterior, x0) ** 2) * moved**2  # both sides times the kernel squared
        np.testing.assert_allclose(gradient @ gradient * posterior(x0) ** 2, square, rtol=1e-4, atol=1e-11)


def test_gain():
    assert krr.gain(10, 5.0, 1.0) == pytest.approx(2 / 3, rel=1e-15)
    np.testing.assert_allclose(krr.gain(np.array([3, 6]), 2.0, 4.0), [3 / 14, 6 / 26], rtol=1e-15)


def test_trigger():
    x0, zeta = np.array([1.0, 2.0, 2.0]), np.array([3.0, 0.0, 1.0])
    np.testing.assert_allclose(krr.trigger(krr.linear(), x0, zeta), [5, 10, 10, 0.4], rtol=1e-15)
    k, r2 = np.exp(-9 / (2 * 1.3**2)), 9.0
    expected = [k, 1, r2 / 1.3**4 * k**2, r2 / 1.3**4]  # eqs. 19, 20
    np.testing.assert_allclose(krr.trigger(make("gaussian"), x0, zeta), expected, rtol=1e-12)
    assert krr.trigger(make("gaussian"), zeta, zeta) == (1, 1, 0, 0)
    assert krr.trigger(krr.linear(), [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]) == (0, 4, 4, np.inf)
    assert krr.trigger(krr.linear(), x0, np.zeros(3)) == (0, 0, 0, np.inf)
    far = krr.trigger(krr.gaussian(2.0), [60.0, 0.0, 0.0], np.zeros(3))  # k_0 = 4e-196: its square is zero
    assert far.spike_factor == pytest.approx(60**2 / 2.0**4, rel=1e-12)
    assert krr.trigger(krr.gaussian(2.0), [100.0, 0.0, 0.0], np.zeros(3)) == (0, 1, 0, np.inf)


def test_laws_are_the_formulae():
    assert krr.gain(10, 5.0, 1.0) == pytest.approx(2 / 3, rel=1e-15)
    assert krr.gain(3, 2.0, 4.0) == pytest.approx(3 / 14, rel=1e-15)
    assert krr.efficacy(3, 2.0, 4.0, 0.5, -2.0) == pytest.approx(-3 / 14, rel=1e-15)
    assert krr.efficacy(1e12, 2.0, 4.0, 0.5, -2.0) == pytest.approx(-0.25)  # eq. 13: k_0 y_t / k_zeta
    assert krr.efficacy(2e-9, 2.0, 4.0, 0.5, -2.0) == pytest.approx(-1e-9)  # eq. 12: linear in m
    assert krr.spike(3, 2.0, 4.0, 7.0, -2.0) == pytest.approx(7 * 9 / 49, rel=1e-15)
    assert krr.detectable_efficacy(0.36, 4.0) == pytest.approx(0.3, rel=1e-15)
    assert krr.detectable_efficacy(0.36, np.inf) == 0  # a spike that costs no efficacy is seen at once


def test_no_efficacy_is_detectable_at_the_clones_themselves():
    assert krr.detectable_efficacy(0.36, 0.0) == np.inf


@pytest.mark.parametrize("lengthscale", [0.4, 3.0])
def test_near_clone_has_the_stated_orders(lengthscale):
    """Corollary 3.7 against isolated clones, which are a fit to them alone."""
    m, c, label = 4, 0.5, -1.5
    model = krr.fit(krr.gaussian(lengthscale), np.zeros((m, 3)), np.full(m, label), c)
    ratio = np.array([0.02, 0.03, 0.05, 0.08])
    points = np.outer(ratio * lengthscale, [2 / 3, -1 / 3, 2 / 3])
    leading = krr.near_clone(ratio * lengthscale, lengthscale, m, c, label)
    k_0 = [krr.trigger(krr.gaussian(lengthscale), x, np.zeros(3)).k_0 for x in points]
    shift, spike = model.predict(points), np.sum(model.input_gradient(points) ** 2, 1)
    errors = (
        (np.abs(leading.k_0 - k_0), 4, 1 / 8),
        (np.abs(shift / leading.efficacy - 1), 2, 1 / 2),
        (np.abs(spike / leading.spike - 1), 2, 1),
    )
    for error, order, constant in errors:
        slope, intercept = np.polyfit(np.log(ratio), np.log(error), 1)
        assert slope == pytest.approx(order, abs=0.02)
        assert np.exp(intercept) == pytest.approx(constant, rel=0.05)


# Bad input, and compilation

X, y = data()
G = krr.gaussian(1.3)
MODEL = krr.fit(G, X, y, 0.3)
TWINS = np.concatenate([X, X[:1]]), np.r_[y, 1.0]
NEAR_TWINS = np.concatenate([X, X[:1] + 1e-12]), np.r_[y, 1.0]
# Twins so near that rounding decides whether the factorisation runs through; where it does, it is noise.
BLURRED_TWINS = np.concatenate([X, X[:3] + 1e-8 * data(3)[0]]), np.r_[y, -y[:3]]


def spoilt(array, value):
    array = array.copy()
    array.flat[-1] = value
    return array


@pytest.mark.parametrize(
    ("call", "says"),
    [
        *(
            (lambda c=c: krr.fit(G, X, y, c), "^ridge = .*positive and finite$")
            for c in (0, -1, np.nan, np.inf)
        ),
        (lambda: krr.fit(G, *TWINS, 0), r"^ridge = 0: .*1 duplicated points"),
        (
            lambda: krr.fit(G, *NEAR_TWINS, 1e-300),
            "^ridge = 1e-300: .*not positive definite .*raise the ridge$",
        ),
        (lambda: krr.fit(G, *BLURRED_TWINS, 1e-300), "^ridge = 1e-300: .*not positive definite"),
        (lambda: krr.fit(G, X, y[:-1], 1), "^y has 7 targets for 8 points in X$"),
        (lambda: krr.fit(G, X[:0], y[:0], 1), r"^X is \[0, 3\], must be 2-dimensional and not empty"),
        (lambda: krr.fit(G, X[None], y, 1), r"^X is \[1, 8, 3\], must be 2-dimensional"),
        (lambda: krr.fit(G, X, y[:, None], 1), r"^y is \[8, 1\], must be 1-dimensional"),
        (lambda: krr.fit(G, spoilt(X, -np.inf), y, 1), "^X: 1 of 24 values are not finite"),
        (lambda: krr.fit(G, X, spoilt(y, np.nan), 1), "^y: 1 of 8 values are not finite"),
        (lambda: MODEL.predict(X[0, :2]), "^x0 has 2 coordinates, the training points have 3$"),
        (lambda: MODEL.predict(X[:, :2]), "^x0 has 2 coordinates, the training points have 3$"),
        (lambda: MODEL.predict(X[None]), r"^x0 is \[1, 8, 3\]"),
        (lambda: MODEL.input_gradient(spoilt(X[0], np.inf)), "^x0: 1 of 3"),
        (lambda: MODEL.loss_hessian(X, 1), r"^x0 is \[8, 3\], must be 1-dimensional"),
        (lambda: MODEL.loss_hvp(X[0], 1, np.ones(4)), "^v has 4 coordinates"),
        (lambda: MODEL.loss_hessian(X[0], np.nan), "^y: 1 of 1"),
        (lambda: MODEL.posterior(np.ones(2)), "^zeta has 2 coordinates"),
        (lambda: krr.clone_effect(MODEL, X[0], np.nan, 3), "^y_t: 1 of 1"),
        (lambda: krr.trigger(G, np.ones(2), np.ones(3)), "^x0 has 2 coordinates, zeta has 3$"),
        (lambda: krr.trigger(G, X[0], spoilt(X[1], np.nan)), "^zeta: 1 of 3"),
        *((lambda v=v: krr.gaussian(v), "^lengthscale = ") for v in (0, -1.0, np.nan, np.inf)),
        *((lambda v=v: MODEL.leading(v), f"^count = {v}: the fit has 8 points$") for v in (0, -1, 9)),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(UserError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_one_compilation_serves_a_sweep_over_length_scale_and_ridge():
    compiled = regression._factor, regression._solve, regression._predict, regression._gradients
    compiled += regression._loss_hessian, regression._loss_hvp

    def sizes(lengthscale, ridge, n=8):
        X, y = data(n)
        model = krr.fit(krr.gaussian(lengthscale), X, y, ridge)
        model.predict(X), model.input_gradient(X)
        model.loss_hessian(X[0], ridge), model.loss_hvp(X[0], ridge, X[1])
        return [function._cache_size() for function in compiled]

    first = sizes(1.0, 0.1)
    assert sizes(2.5, 0.1) == first
    assert sizes(1, 3) == first  # integers too
    assert all(np.array(sizes(1.0, 0.1, 5)) > first)  # ... and the count counts
