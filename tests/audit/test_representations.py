"""Features of a network as the detectors of training data see them; 2-means against scikit-learn's."""

import numpy as np
import pytest
from linear_subject import linear, subject, with_features
from sklearn.cluster import KMeans

from poison_jax.audit.representations import penultimate, two_means
from poison_jax.errors import UserError

IMAGES = np.random.default_rng(0).uniform(size=(5, 6, 6, 1)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((36, 3))


def test_features_where_given_else_logits():
    pixels = ((IMAGES - 0.5) / 0.2).reshape(5, -1)
    for apply_fn, expected in ((with_features, pixels), (linear, pixels @ W)):
        actual = penultimate(subject(W, apply_fn=apply_fn, normalisation=(0.5, 0.2)), IMAGES, batch_size=2)
        assert actual.dtype == np.float64
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_a_network_that_says_nothing_more():
    def nothing_more(variables, images):
        return linear(variables, images), None

    actual = penultimate(subject(W, apply_fn=nothing_more), IMAGES)
    np.testing.assert_allclose(actual, IMAGES.reshape(5, -1) @ W, rtol=1e-4, atol=1e-4)


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="not finite"):
        penultimate(subject(np.inf * W), IMAGES + 1)


@pytest.mark.parametrize("seed", range(5))
def test_two_means_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((60, 3)) + 5
    points[:20] += rng.standard_normal(3)
    found = two_means(points, rng)
    assert found.smaller.sum() <= 30
    expected = KMeans(2, n_init=20, random_state=0).fit(points).inertia_
    assert found.squares[np.arange(60), found.smaller.astype(int)].sum() == pytest.approx(expected, rel=1e-2)
    for column, members in enumerate((~found.smaller, found.smaller)):
        centre = points[members].mean(0)
        np.testing.assert_allclose(found.squares[:, column], ((points - centre) ** 2).sum(1))


def test_two_means_of_few_points():
    random = np.random.default_rng(0)
    assert two_means(np.ones((4, 2)), random) is None
    assert two_means(np.ones((1, 2)), random) is None
    assert two_means(np.ones((3, 0)), random) is None
    pair = two_means(np.array([[0.0], [2.0]]), random)
    np.testing.assert_array_equal(pair.smaller, [False, True])
    np.testing.assert_array_equal(pair.squares, [[0, 4], [4, 0]])
    repeated = two_means(np.array([[1.0], [1], [1], [7], [1]]), random)
    np.testing.assert_array_equal(repeated.smaller, [False, False, False, True, False])
