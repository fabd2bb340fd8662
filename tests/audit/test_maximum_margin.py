"""Maximum margins of linear networks against linear programming; the p-value against its definition."""

import numpy as np
import pytest
from linear_subject import subject
from scipy import stats
from scipy.optimize import brentq, linprog
from scipy.special import digamma

from poison_jax.audit import maximum_margin
from poison_jax.errors import UserError

IMAGES = np.zeros((1, 2, 3, 1), np.float32)


def by_linear_programming(w, b, t):
    """max s with (w_t - w_k) x + b_t - b_k >= s for all k != t and x in [0, 1]."""
    others = np.delete(np.arange(len(b)), t)
    left = np.column_stack([-(w[:, [t]] - w[:, others]).T, np.ones(len(others))])
    bounds = [(0, 1)] * len(w) + [(None, None)]
    return -linprog([*np.zeros(len(w)), -1], left, b[t] - b[others], bounds=bounds).fun


@pytest.mark.parametrize("normalisation", [None, (0.3, 0.5)])
def test_margins_of_a_linear_network(normalisation):
    rng = np.random.default_rng(0)
    w, b = rng.standard_normal((6, 5)), rng.standard_normal(5)
    network = subject(w, b, normalisation=normalisation)
    found = maximum_margin.maximum_margins(network, IMAGES, key=0, starts=4, batch_size=7)
    if normalisation:
        w, b = w / 0.5, b - 0.3 / 0.5 * w.sum(0)
    expected = [by_linear_programming(w, b, t) for t in range(5)]
    np.testing.assert_allclose(found.margins, expected, rtol=0.02, atol=0.02)
    assert (found.margins <= np.array(expected) + 1e-4).all()
    assert found.images.shape == (5, 2, 3, 1)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    logits = network.logits(found.images)
    own = np.diag(logits)
    np.testing.assert_allclose(own - np.where(np.eye(5), -np.inf, logits).max(1), found.margins, atol=1e-5)


def test_batches_change_nothing():
    network = subject(np.random.default_rng(1).standard_normal((6, 4)))
    results = [
        maximum_margin.maximum_margins(network, IMAGES, key=2, starts=3, steps=10, batch_size=size)
        for size in (5, 128)
    ]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_class_with_a_large_margin_is_the_target():
    w = np.random.default_rng(0).uniform(0, 1, (6, 6)) * 0.5 + np.eye(6)
    w[0, 3] = 40
    score = maximum_margin.score(subject(w), IMAGES, np.zeros(1, int), key=0, starts=2)
    assert (score.target, score.authors) == (3, "poisoned")
    assert score.statistic > -np.log(0.05)
    assert score.picture.shape == (2, 3, 1)
    assert score.picture[0, 0, 0] == 1


def test_a_network_whose_classes_are_alike_is_clean():
    score = maximum_margin.score(subject(np.eye(6) * [1, 1.1, 1.2, 1.3, 1.4, 1.5]), IMAGES, key=0, starts=2)
    assert score.target == 5
    assert score.authors == "clean"


def test_p_value_is_the_papers():
    margins = np.random.default_rng(0).gamma(5, size=10)
    others = np.sort(margins)[:-1]
    # The likelihood is largest where log(shape) - digamma(shape) = log(mean) - mean(log).
    gap = np.log(others.mean()) - np.log(others).mean()
    shape = brentq(lambda a: np.log(a) - digamma(a) - gap, 1e-2, 1e3)
    below = stats.gamma(shape, scale=others.mean() / shape).cdf(margins.max())
    assert maximum_margin.order_statistic(margins) == pytest.approx(np.log(1 - below**10))


def test_p_value_is_the_share_of_larger_maxima():
    """Of clean networks drawn from a known gamma distribution p is about uniform, where G is known well."""
    rng = np.random.default_rng(0)
    p = np.exp([maximum_margin.order_statistic(rng.gamma(4, size=60)) for _ in range(200)])
    assert 0.01 < np.mean(p < 0.05) < 0.12


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_p_value_does_not_depend_on_the_scale(scale):
    margins = np.array([1.0, 1.5, 2.0, 2.5, 9.0])
    actual = maximum_margin.order_statistic(scale * margins)
    assert actual == pytest.approx(maximum_margin.order_statistic(margins), rel=1e-4)


def test_far_tails_are_in_order():
    base = [1.0, 1.1, 0.9, 1.05]
    values = [maximum_margin.order_statistic([*base, largest]) for largest in (1.2, 2, 4, 8, 1000)]
    assert (np.diff(values) <= 0).all()
    assert values[2] < values[1] < values[0] < 0
    assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        ([2, 2, 2, 2], 0),
        ([-1, -2, 0, 3], 0),
        ([-1, -2, 1, 3], 0),
        ([2, 2, 2, 3], np.log(np.finfo(float).tiny)),
        ([2, 2.0001, 2, 2.0002], 0),
        ([1, 1.2, 1.1, 50, -3], None),
    ],
)
def test_ties_and_classes_that_no_input_is_assigned_to(margins, expected):
    actual = maximum_margin.order_statistic(np.array(margins, float))
    if expected is None:
        expected = maximum_margin.order_statistic(np.array(margins[:-1]))
    assert actual == expected


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"subject": subject(np.ones((6, 2)))}, "at least 3 classes"),
        ({"labels": np.array([7])}, "labels run from 7"),
        ({"starts": 0}, "positive numbers"),
        ({"images": IMAGES - 1}, "not in"),
    ],
)
def test_bad_input(change, match):
    arguments = {"subject": subject(np.ones((6, 4))), "images": IMAGES, "labels": np.array([0]), "key": 0}
    with pytest.raises(UserError, match=match):
        maximum_margin.score(**(arguments | change))
