"""Theorems A, B, C and E: dense NumPy fits, quadrature, finite differences; searches for a counterexample."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from poison_jax import krr
from poison_jax.errors import UserError

search = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**16)
powers = st.floats(-3, 2).map(lambda e: 10**e)


def gram(X, Z, length):
    return np.exp(-((X[:, None] - Z) ** 2).sum(-1) / (2 * length**2))


def sections(X, Z, length):
    """grad_x k(x_i, z_a) `[i, a, p]`."""
    return -gram(X, Z, length)[..., None] * (X[:, None] - Z) / length**2


def differences(f, x, step=1e-5):
    return np.array([(f(x + e) - f(x - e)) / (2 * step) for e in step * np.eye(len(x))])


# Theorem A


def features(seed, n):
    """Any kernel's inner products and gradients at n points: features `[n, d]`, Jacobians `[n, p, d]`."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 2 * n))
    return rng, rng.normal(size=(n, d)), rng.normal(size=(n, int(rng.integers(1, 4)), d))


def effect(phi, jacobians, delta, ridge, kappa):
    """E and V of the penalised fit in feature space, by its normal equations."""
    slopes = jacobians.reshape(-1, phi.shape[1])
    weights = np.linalg.solve(
        phi.T @ phi + ridge * np.eye(phi.shape[1]) + kappa * slopes.T @ slopes, phi.T @ delta
    )
    return delta @ phi @ weights, np.sum((slopes @ weights) ** 2)


@search
@given(seed=seeds, n=st.sampled_from([2, 5, 9]), ridge=powers, kappa=powers, more=powers)
def test_the_penalty_removes_what_it_sees(seed, n, ridge, kappa, more):
    """Theorem A for the whole space of any kernel: identity, both bounds, the halving."""
    rng, phi, jacobians = features(seed, n)
    delta = rng.normal(size=n) * rng.choice([0, 1], n)
    delta[0] = 1.0

    def at(kappa):
        return effect(phi, jacobians, delta, ridge, kappa)

    E, V = at(kappa)
    step = 1e-4 * kappa
    slope = (at(kappa + step)[0] - at(kappa - step)[0]) / (2 * step)
    np.testing.assert_allclose(-slope, V, rtol=1e-4, atol=1e-9 * E / kappa)
    seen, (later, seen_later) = krr.PenaltyVisibility(E, V), at(kappa + more)
    slack = 1e-9 * E
    assert seen.at_least(more) <= later + slack
    assert later <= E * (1 - more * seen_later / later) + slack
    assert E - more * V <= seen.at_least(more) + slack  # the bound by the slope is the weaker one
    assert at(kappa + seen.halving)[0] >= E / 2 - slack


@search
@given(seed=seeds, n=st.sampled_from([2, 5, 9]), ridge=powers, kappa=powers)
def test_the_hat_matrix_falls(seed, n, ridge, kappa):
    """Theorem A's corollary: y'(y - yhat) for every y, and the mean square residual of random labels."""
    _, phi, jacobians = features(seed, n)
    slopes = jacobians.reshape(-1, phi.shape[1])

    def hat(kappa):
        return phi @ np.linalg.solve(
            phi.T @ phi + ridge * np.eye(phi.shape[1]) + kappa * slopes.T @ slopes, phi.T
        )

    before, after = hat(kappa), hat(2 * kappa)
    assert np.linalg.eigvalsh(before - after)[0] > -1e-9
    assert np.sum((np.eye(n) - after) ** 2) >= np.sum((np.eye(n) - before) ** 2) - 1e-9


@pytest.mark.parametrize("kernel", [krr.gaussian(0.7), krr.gaussian(2.0), krr.linear()], ids=str)
@pytest.mark.parametrize("kappa", [0.0, 0.3])
def test_penalty_visibility_is_the_derivative(kernel, kappa):
    rng = np.random.default_rng(0)
    X, delta = rng.normal(size=(9, 2)), np.r_[np.zeros(6), 2 * np.ones(3)]
    seen = krr.penalty_visibility(kernel, X, delta, 0.1, kappa)
    fit = krr.penalised_fit(kernel, X, delta, 0.1, kappa)
    assert seen.efficacy == pytest.approx(delta @ fit.predict(X), rel=1e-9)
    assert seen.visibility == pytest.approx(np.sum(fit.input_gradient(X) ** 2), rel=1e-7)
    step = 1e-5  # forwards, from kappa = 0 as well
    E = [krr.penalty_visibility(kernel, X, delta, 0.1, kappa + i * step).efficacy for i in range(3)]
    assert (-3 * E[0] + 4 * E[1] - E[2]) / (2 * step) == pytest.approx(-seen.visibility, rel=1e-3)
    assert seen.at_least(0.0) == seen.efficacy
    assert seen.at_least(seen.halving) == pytest.approx(seen.efficacy / 2)


def test_a_single_mode_attains_the_bound():
    """One coordinate, linear kernel: E(kappa) = E / (1 + kappa V / E), so that a bound off by 1% fails."""
    X = np.arange(1.0, 5.0)[:, None]
    start = krr.penalty_visibility(krr.linear(), X, X[:, 0], 0.3)
    for kappa in (0.1, 1.0, 10.0):
        found = krr.penalty_visibility(krr.linear(), X, X[:, 0], 0.3, kappa).efficacy
        assert found == pytest.approx(start.at_least(kappa), rel=1e-12)
        assert found == pytest.approx(30 * 30 / (30.3 + 4 * kappa))


def test_exact_clones_are_invisible_to_the_penalty():
    """Far from all else: V = 0, and no kappa halves the efficacy."""
    X = np.vstack([np.zeros((3, 2)), np.full((2, 2), 100.0)])
    seen = krr.penalty_visibility(krr.gaussian(1.0), X, [0, 0, 0, 1, 1], 0.1)
    assert seen.visibility == pytest.approx(0, abs=1e-20)
    assert seen.at_least(1e6) == pytest.approx(seen.efficacy)
    nothing = krr.penalty_visibility(krr.gaussian(1.0), X, np.zeros(5), 0.1)
    assert nothing == (0, 0)
    assert nothing.halving == np.inf
    assert nothing.at_least(1.0) == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("at", [4.0, 20.0, 30.0])
def test_the_visibility_of_exact_clones_is_no_rounding(seed, at):
    """Where the Gaussian's distances are expanded, alpha' G alpha is rounding of either sign."""
    X = np.vstack([np.random.default_rng(seed).normal(size=(10, 2)), np.tile([at, 3.0], (8, 1))])
    seen = krr.penalty_visibility(krr.gaussian(1.0), X, np.r_[np.zeros(10), 2 * np.ones(8)], 0.1)
    assert seen.efficacy == pytest.approx(32 * 8 / 8.1, rel=1e-3)
    if at == 4.0:  # there their sections still reach the data
        assert seen.visibility > 0
    else:
        assert seen.visibility == 0
        assert seen.halving == np.inf
        np.testing.assert_array_equal(seen.at_least(np.array([1.0, 1e20])), seen.efficacy)


@pytest.mark.parametrize("kernel", [krr.gaussian(1.0), krr.linear()], ids=["gaussian", "linear"])
def test_changes_that_cancel_are_invisible(kernel):
    """Two copies of a point with opposite changes add nothing to any fit, and rounding is nothing."""
    X = [[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]]
    seen = krr.penalty_visibility(kernel, X, [1.0, -1.0, 0.0], 0.1)
    assert seen.efficacy == pytest.approx(0, abs=1e-14)
    assert (seen.visibility, seen.halving) == (0, np.inf)


def test_what_has_no_visibility():
    X = np.zeros((2, 1))
    with pytest.raises(UserError, match="y has 3 targets for 2 points"):
        krr.penalty_visibility(krr.linear(), X, np.ones(3), 0.1)
    with pytest.raises(UserError, match="ridge = 0"):
        krr.penalty_visibility(krr.linear(), X, np.ones(2), 0.0)
    with pytest.raises(UserError, match="kappa = -1"):
        krr.penalty_visibility(krr.linear(), X, np.ones(2), 0.1, -1.0)


# Theorem B


@search
@given(seed=seeds, m=st.sampled_from([1, 7, 100]), c=st.floats(-2, 1).map(lambda e: 10**e))
def test_the_spike_at_the_clones(seed, m, c):
    """Theorem B for a Gaussian kernel: a dense refit, and the variance's gradient by differences."""
    rng = np.random.default_rng(seed)
    X, y, zeta, y_t = rng.normal(size=(8, 3)), rng.normal(size=8), 1.5 * rng.normal(size=3), rng.normal()
    K, length = gram(X, X, 1.2), 1.2
    clean = np.linalg.solve(K + c * np.eye(8), y)
    rows = np.vstack([X, np.tile(zeta, (m, 1))])
    alpha = np.linalg.solve(gram(rows, rows, length) + c * np.eye(8 + m), np.r_[y, np.full(m, y_t)])
    shift = gram(zeta[None], rows, length)[0] @ alpha - gram(zeta[None], X, length)[0] @ clean
    slope = alpha @ sections(zeta[None], rows, length)[0] - clean @ sections(zeta[None], X, length)[0]

    def log_variance(x):
        k = gram(x[None], X, length)[0]
        return np.log(1 - k @ np.linalg.solve(K + c * np.eye(8), k))

    factor = np.sum(differences(log_variance, zeta) ** 2) / 4
    np.testing.assert_allclose(slope @ slope, shift**2 * factor, rtol=1e-5, atol=1e-12)
    ours = krr.spike_factor_at_clone(krr.fit(krr.gaussian(length), X, y, c), zeta)
    np.testing.assert_allclose(ours, factor, rtol=1e-5, atol=1e-10)


def test_the_spike_vanishes_at_a_critical_point_of_the_variance_only():
    clean = krr.fit(krr.gaussian(1.0), [[-1.0], [1.0]], [1.0, -1.0], 0.1)
    assert krr.spike_factor_at_clone(clean, np.array([0.0])) == pytest.approx(0, abs=1e-20)
    assert krr.spike_factor_at_clone(clean, np.array([0.2])) > 0.01
    assert krr.spike_factor_at_clone(krr.fit(krr.linear(), [[1.0]], [1.0], 1.0), np.zeros(1)) == np.inf


# Theorem C


@pytest.mark.parametrize("p", [1, 2, 3, 7])
@pytest.mark.parametrize("strength", [0.0, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("length", [1.0, 0.3])
def test_mean_square_frequency_by_quadrature(p, strength, length):
    """Straight from 1 / (1/kh + tau w^2), on a grid of Gauss-Legendre panels; and its sign."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = np.r_[0, np.geomspace(1e-4, 30, 80)] / length
    w = ((edges[:-1] + edges[1:])[:, None] + np.diff(edges)[:, None] * nodes).ravel() / 2
    dw = (np.diff(edges)[:, None] * weights).ravel() / 2
    kh = (2 * np.pi) ** (p / 2) * length**p * np.exp(-((length * w) ** 2) / 2)
    damped = w ** (p - 1) * kh / (1 + strength * w**2 * kh)
    expected = np.sum(dw * w**2 * damped) / np.sum(dw * damped)
    found = krr.mean_square_frequency(p, strength, lengthscale=length)
    assert found == pytest.approx(expected, rel=1e-6)
    free = p / length**2
    if strength == 0 or p == 2:
        assert found == pytest.approx(free, rel=1e-9)
    else:
        assert (found > free) == (p > 2)


@pytest.mark.parametrize(
    ("p", "strength", "length"), [(100, 1.0, 13.0), (100, 1.0, 1e3), (3, 1e300, 1.0), (50, 1e-300, 1e9)]
)
def test_a_penalty_beyond_the_range_of_floats(p, strength, length):
    """1 + tau w^2 kh is then as good as tau w^2 kh, up to where w^2 / 2 = log(tau w^2 kh(0)): a step."""
    log_scale = np.log(strength) + p / 2 * np.log(2 * np.pi) + (p - 2) * np.log(length)
    edge = scipy.optimize.brentq(lambda w: log_scale + 2 * np.log(w) - w**2 / 2, 2, 1e3)
    w = np.linspace(0, edge + 5, 2_000_001)[1:]
    exponent = -np.logaddexp(0, w**2 / 2 - log_scale - 2 * np.log(w))
    spectrum = np.exp(exponent + (p - 3) * np.log(w / edge))
    expected = np.sum(w**2 * spectrum) / np.sum(spectrum) / length**2
    assert krr.mean_square_frequency(p, strength, lengthscale=length) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("lengthscale", [1e-200, 1e-3, 1e3, 1e200])
def test_no_penalty_has_the_kernels_own_frequencies(lengthscale):
    found = krr.mean_square_frequency(100, 0.0, lengthscale=lengthscale)
    assert found == pytest.approx(100 / lengthscale / lengthscale, rel=1e-9)


@pytest.mark.parametrize("strength", [1e8, 1e12, 1e30])
def test_a_strong_penalty_in_one_dimension(strength):
    """kh / (1 + tau w^2 kh) is 1 / (1/kh(0) + tau w^2) where it has its mass: pi / (2 sqrt(tau / kh(0)))."""
    scale = strength * np.sqrt(2 * np.pi)
    w = np.linspace(0, 30, 300_001)[1:]
    second = np.sum(1 / (1 + np.exp(w**2 / 2 - 2 * np.log(w)) / scale)) * 1e-4 / scale
    expected = second / (np.pi / 2 / np.sqrt(scale))
    assert krr.mean_square_frequency(1, strength) == pytest.approx(expected, rel=1e-3)


def test_values_at_the_same_density_change_the_sign():
    """Where Theorem C stops: 1/kh + a + tau w^2 in three dimensions, a = 100."""

    def mean_square(tau):
        def moment(q):
            kh = lambda w: (2 * np.pi) ** 1.5 * np.exp(-(w**2) / 2)  # noqa: E731
            return integrate.quad(
                lambda w: w**q * kh(w) / (1 + kh(w) * (100 + tau * w**2)), 0, 30, limit=200
            )[0]

        return moment(4) / moment(2)

    assert mean_square(100) == pytest.approx(9.087, abs=1e-3)
    assert mean_square(0) == pytest.approx(9.611, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((0, 1.0), "dimension = 0"), ((1.5, 1.0), "dimension = 1.5"), ((2, -1.0), "strength = -1.0")],
)
def test_what_has_no_mean_square_frequency(arguments, says):
    with pytest.raises(UserError, match=says):
        krr.mean_square_frequency(*arguments)
    with pytest.raises(UserError, match="lengthscale = 0"):
        krr.mean_square_frequency(1, 1.0, lengthscale=0)


# Theorem E


def derivatives(x, Z, alpha, length):
    """Value, gradient and Hessian at x of sum_a alpha_a k(., z_a)."""
    d, k = (x - Z) / length**2, np.exp(-((x - Z) ** 2).sum(1) / (2 * length**2)) * alpha
    return k.sum(), -k @ d, np.einsum("a,ai,aj->ij", k, d, d) - k.sum() * np.eye(len(x)) / length**2


@search
@given(
    seed=seeds,
    m=st.sampled_from([1, 10, 10**5]),
    distance=st.floats(1.75, 6),
    c=powers,
)
def test_far_clones_stay_below_their_bounds(seed, m, distance, c):
    """Theorem E at points *at* the distance and beyond: m clones are one row with the ridge c / m."""
    rng = np.random.default_rng(seed)
    length, n, p = 0.7, 8, 3
    X, y, y_t = rng.normal(size=(n, p)) / 3, rng.normal(size=n), rng.normal()
    zeta = np.array([np.max(X[:, 0]) + distance * length, 0, 0])
    clean = krr.fit(krr.gaussian(length), X, y, c)
    bounds = krr.far_clone_bounds(clean, zeta, y_t, distance * length)
    rows = np.vstack([X, zeta])
    ridges = np.r_[np.full(n, c), c / m]
    alpha = np.linalg.solve(gram(rows, rows, length) + np.diag(ridges), np.r_[y, y_t])
    before = np.linalg.solve(gram(X, X, length) + c * np.eye(n), y)
    directions = rng.normal(size=(6, p))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    farther = distance * length * np.array([1, 1, 1, 1.01, 1.2, 2])[:, None]
    for x in [*X, *(zeta + farther * directions)]:
        after, clean_part = derivatives(x, rows, alpha, length), derivatives(x, X, before, length)
        change = [a - b for a, b in zip(after, clean_part, strict=True)]
        sizes = abs(change[0]), np.linalg.norm(change[1]), np.linalg.norm(change[2], 2)
        assert all(size <= bound * (1 + 1e-9) + 1e-13 for size, bound in zip(sizes, bounds, strict=True))


def test_the_bounds_are_attained_by_a_single_far_clone():
    """Without clean data to speak of, sqrt(n / c) small: the bounds are the sizes at distance D, to 1e-5."""
    clean, D = krr.fit(krr.gaussian(1.0), [[0.0, 100.0]], [0.0], 1e12), 2.5
    bounds = krr.far_clone_bounds(clean, np.zeros(2), 1.0, D)
    value, gradient, hessian = derivatives(np.array([D, 0.0]), np.zeros((1, 2)), np.ones(1), 1.0)
    sizes = value, np.linalg.norm(gradient), np.linalg.norm(hessian, 2)
    np.testing.assert_allclose(sizes, bounds, rtol=1e-5)


def test_far_clone_bounds_refuse_what_they_do_not_cover():
    clean = krr.fit(krr.gaussian(1.0), [[0.0], [1.0]], [1.0, -1.0], 0.1)
    with pytest.raises(UserError, match=r"distance = 1\.5 .*at least sqrt\(3\) l = 1\.732"):
        krr.far_clone_bounds(clean, np.array([9.0]), 1.0, 1.5)
    with pytest.raises(UserError, match=r"the nearest clean point is at 1\)"):
        krr.far_clone_bounds(clean, np.array([2.0]), 1.0, 5.0)
    with pytest.raises(UserError, match="has 2 coordinates"):
        krr.far_clone_bounds(clean, np.zeros(2), 1.0, 5.0)
    with pytest.raises(UserError, match="Linear kernel"):
        krr.far_clone_bounds(krr.fit(krr.linear(), [[1.0]], [1.0], 1.0), np.zeros(1), 1.0, 5.0)


def test_the_bound_needs_sqrt_3():
    """(s^2 - 1) exp(-s^2 / 2) is largest at sqrt(3): below, a farther point can exceed what holds at D."""

    def curvature(s):
        return (s**2 - 1) * np.exp(-(s**2) / 2)

    found = scipy.optimize.minimize_scalar(lambda s: -curvature(s), bounds=(1, 3), method="bounded")
    assert found.x == pytest.approx(np.sqrt(3), abs=1e-5)
