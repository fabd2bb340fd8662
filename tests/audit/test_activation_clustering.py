"""Clusters of planted features, and the reduction that they are found in."""

import jax
import numpy as np
import pytest
from linear_subject import linear, subject, with_features
from scipy.spatial.distance import pdist
from sklearn.decomposition import FastICA

from poison_jax.audit import activation_clustering
from poison_jax.errors import UserError


def planted(poisoned=8, count=40, apply_fn=with_features, seed=0):
    """Class 1 holds images of two kinds, the `poisoned` last ones apart from the others."""
    rng = np.random.default_rng(seed)
    images = 0.3 + 0.02 * rng.standard_normal((3 * count, 6))
    labels = np.repeat(np.arange(3), count)
    hidden = np.zeros(3 * count, bool)
    hidden[2 * count - poisoned : 2 * count] = True
    images[hidden, 2:4] += 0.5
    network = subject(rng.standard_normal((6, 3)), apply_fn=apply_fn)
    return network, images.reshape(-1, 2, 3, 1), labels, hidden


@pytest.mark.parametrize("apply_fn", [with_features, linear])
def test_planted_clusters_are_found(apply_fn):
    """In the features, and in the logits of a network that gives none."""
    network, images, labels, hidden = planted(apply_fn=apply_fn)
    found = activation_clustering.score(network, images, labels, key=0, batch_size=50)
    of_class = labels == 1
    np.testing.assert_array_equal(found.flagged[of_class], hidden[of_class])
    assert found.suspicion[of_class & hidden].min() > 0.1
    assert found.suspicion[of_class & ~hidden].max() < 0
    assert found.classes.argmax() == 1
    assert np.abs(found.suspicion).max() <= 1


def test_a_cluster_of_half_the_class_is_not_flagged():
    network, images, labels, hidden = planted(poisoned=16)
    found = activation_clustering.score(network, images, labels, key=0)
    assert not found.flagged[labels == 1].any()
    found = activation_clustering.score(network, images, labels, key=0, threshold=0.41)
    np.testing.assert_array_equal(found.flagged[labels == 1], hidden[labels == 1])


def test_whitened_components_are_independent_ones_but_for_a_turn():
    """2-means sees distances alone: those of FastICA's components, as the paper takes them, are the same."""
    features = np.random.default_rng(0).laplace(size=(60, 7)) @ np.random.default_rng(1).normal(size=(7, 7))
    features += 3
    actual = activation_clustering.whitened(features, 4)
    ica = FastICA(4, whiten="unit-variance", random_state=0, max_iter=2000, tol=1e-3).fit_transform(features)
    # FastICA divides the variance by n, PCA here by n - 1.
    np.testing.assert_allclose(pdist(actual) * np.sqrt(60 / 59), pdist(ica), rtol=1e-6)


def test_silhouettes_from_centres():
    """Clusters {0, 1, 2} and {10}, whatever the whitening: the centres are 1 and 10."""
    features = np.array([[0.0], [1], [2], [10]])
    found = activation_clustering.cluster(features, 10, np.random.default_rng(0))
    np.testing.assert_array_equal(found.smaller, [False, False, False, True])
    np.testing.assert_allclose(found.silhouettes, [9 / 10, 1, 7 / 8, 1])


def test_constant_features_and_small_classes():
    network, images, labels, _ = planted()
    images[labels == 0] = 0.5
    labels[labels == 2] = 1
    labels[-1] = 2  # a class with one image
    found = activation_clustering.score(network, images, labels, key=0)
    for label in (0, 2):
        np.testing.assert_array_equal(found.suspicion[labels == label], 0)
        assert not found.flagged[labels == label].any()
        assert found.classes[label] == 0
    labels[labels == 2] = 1
    assert np.isnan(activation_clustering.score(network, images, labels, key=0).classes[2])


def test_the_key_decides_and_batches_do_not():
    network, images, labels, _ = planted(poisoned=0)
    first, *others = (
        activation_clustering.score(network, images, labels, key=jax.random.key(0), batch_size=size)
        for size in (7, 7, 128)
    )
    for other in others:
        np.testing.assert_allclose(other.suspicion, first.suspicion, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": np.full(120, 3)}, "labels run from 3"),
        ({"labels": np.zeros(119, int)}, "not N images and N labels"),
        ({"dimensions": 0}, "at least 1"),
        ({"subject": subject(np.ones((6, 1)))}, "at least 2 classes"),
    ],
)
def test_bad_input(change, match):
    network, images, labels, _ = planted()
    arguments = {"subject": network, "images": images, "labels": labels, "key": 0} | change
    with pytest.raises(UserError, match=match):
        activation_clustering.score(**arguments)
