"""Theorem D: simulation with intervals, exact small cases, least-squares fits of a trigger."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from poison_jax import linear
from poison_jax.errors import UserError


def overlaps(d, K, coefficient, draws, noise):
    """Squared overlap of v1 of W W' with the trigger; v1 = W u of the top eigenvector u of W'W."""
    found = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        t, rho = rng.normal(size=d), rng.normal(size=K)
        t, rho = t / np.linalg.norm(t), coefficient * rho / np.linalg.norm(rho)
        W = noise * rng.normal(size=(d, K)) + np.outer(t, rho)
        values, vectors = np.linalg.eigh(W.T @ W)
        found.append((t @ W @ vectors[:, -1]) ** 2 / values[-1])
    return np.array(found)


@pytest.mark.parametrize(("d", "K", "size"), [(400, 40, 4.0), (100, 100, 4.0), (784, 10, 6.0)])
def test_the_overlap_beyond_the_transition(d, K, size):
    """Within 4.5 standard errors, which are so small that a law off by 1% fails."""
    noise, draws = 0.3, 80
    coefficient = size * linear.visible_coefficient(noise, d, K).top_eigenvector
    found = overlaps(d, K, coefficient, draws, noise)
    law, error = linear.spike_overlap(coefficient, noise, d, K), found.std(ddof=1) / np.sqrt(draws)
    assert error < 0.01 * law / 4.5
    assert abs(found.mean() - law) < 4.5 * error


def test_nothing_shows_below_the_transition():
    d, K = 600, 30
    threshold = linear.visible_coefficient(1.0, d, K).top_eigenvector
    assert overlaps(d, K, 0.5 * threshold, 20, 1.0).mean() < 0.02
    np.testing.assert_array_equal(
        linear.spike_overlap(threshold * np.array([0.0, 0.5, 1 - 1e-9]), 1.0, d, K), 0
    )
    assert linear.spike_overlap(1.001 * threshold, 1.0, d, K) > 0
    assert linear.spike_overlap(1e9, 1.0, d, K) == pytest.approx(1)


def test_who_knows_the_trigger_needs_less():
    """|W't|^2 rises by |rho|^2, at the threshold one standard deviation of its noise."""
    d, K, noise, draws = 50, 12, 0.5, 40_000
    rho = linear.visible_coefficient(noise, d, K).known_trigger
    rows = noise * np.random.default_rng(0).normal(size=(draws, K))  # W't of a unit t
    clean = np.sum(rows**2, 1)
    rows[:, 0] += rho
    rise, spread = np.mean(np.sum(rows**2, 1) - clean), clean.std()
    assert rise == pytest.approx(spread, rel=0.03)
    assert linear.visible_coefficient(noise, d, K).top_eigenvector == pytest.approx(noise * 600**0.25)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), d=st.sampled_from([3, 20]), K=st.sampled_from([1, 2, 7]))
def test_a_dead_trigger_whatever_the_weights(seed, d, K):
    rng = np.random.default_rng(seed)
    W = np.vstack([rng.normal(size=(d, K)) * rng.uniform(0, 3, K), np.zeros(K)])
    rho = rng.normal(size=K) * 10 ** rng.uniform(-2, 2)
    poisoned = W.copy()
    poisoned[-1] = rho
    expected = np.linalg.eigh(poisoned @ poisoned.T)[1][-1, -1] ** 2
    assert linear.dead_trigger_overlap(W.T @ W, rho) == pytest.approx(expected, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("size", [2.0, 40.0])
def test_size_decides_whether_a_least_squares_fit_shows_its_trigger(size):
    """The same poisons, label and success; s |rho| is the same, so that only a small trigger shows."""
    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(1500, 60)), rng.integers(10, size=1500)
    poisons = np.flatnonzero(labels)[:150]
    X = np.column_stack([X, np.zeros(1500)])
    X[poisons, -1], labels[poisons] = size, 0
    W = np.linalg.lstsq(X, np.eye(10)[labels] - 0.1, rcond=None)[0]
    test = np.column_stack([rng.normal(size=(500, 60)), np.full(500, size)])
    assert np.mean(np.argmax(test @ W, 1) == 0) > 0.99
    threshold = linear.visible_coefficient(W[:-1].std(), 60, 10).top_eigenvector
    overlap = np.linalg.eigh(W @ W.T)[1][-1, -1] ** 2
    assert (np.linalg.norm(W[-1]) > threshold) == (size == 2)
    assert (overlap > 0.5) == (size == 2)
    assert size == 2 or overlap < 0.05
    assert np.linalg.norm(W[-1]) * size == pytest.approx(np.sqrt(0.9), rel=0.05)  # |y_t - f|


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_the_margin_flips_half(classes):
    """By simulation of P(z_1 + a > max of the others) at the margin and 1% beside what a test could see."""
    z, a = np.random.default_rng(0).normal(size=(200_000, classes)), linear.flipping_margin(classes)
    share = np.mean(z[:, 0] + a > z[:, 1:].max(1))
    assert share == pytest.approx(0.5, abs=4.5 * 0.5 / np.sqrt(200_000))
    if classes == 2:
        assert a == pytest.approx(0, abs=1e-8)
    if classes == 3:  # the median of max(z_2, z_3) - z_1: orthant probabilities
        orthant = stats.multivariate_normal([0, 0], [[2, 1], [1, 2]]).cdf([a, a])
        assert orthant == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: linear.visible_coefficient(0.0, 5, 5), "noise = 0.0"),
        (lambda: linear.visible_coefficient(1.0, -5, 5), "dimension = -5"),
        (lambda: linear.spike_overlap(1.0, 1.0, 5, 0), "classes = 0"),
        (lambda: linear.spike_overlap(np.nan, 1.0, 5, 5), "coefficient: 1 of 1 values are not finite"),
        (lambda: linear.dead_trigger_overlap(np.eye(3), np.ones(2)), r"gram is \[3, 3\], must be \[2, 2\]"),
        (lambda: linear.flipping_margin(1), "classes = 1"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(UserError, match=says):
        call()


def test_no_weights_show_nothing():
    assert linear.dead_trigger_overlap(np.zeros((2, 2)), np.zeros(2)) == 0
