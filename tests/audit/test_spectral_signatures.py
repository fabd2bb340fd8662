"""Projections on a planted direction, against the covariance's eigenvector."""

import numpy as np
import pytest
from linear_subject import linear, subject, with_features

from poison_jax.audit import spectral_signatures
from poison_jax.errors import UserError


def planted(count=40, poisoned=5, apply_fn=with_features):
    """The last images of class 1 lie apart along one direction."""
    rng = np.random.default_rng(0)
    images = 0.4 + 0.02 * rng.standard_normal((3 * count, 6))
    labels = np.repeat(np.arange(3), count)
    hidden = np.zeros(3 * count, bool)
    hidden[2 * count - poisoned : 2 * count] = True
    images[hidden] += 0.3 * np.array([1, 0, -1, 0, 0, 0])
    network = subject(rng.standard_normal((6, 3)), apply_fn=apply_fn)
    return network, images.reshape(-1, 2, 3, 1), labels, hidden


def test_a_planted_direction():
    network, images, labels, hidden = planted()
    found = spectral_signatures.score(network, images, labels, rate=5 / 40 / 1.5, batch_size=50)
    of_class = labels == 1
    np.testing.assert_array_equal(found.flagged[of_class], hidden[of_class])
    assert found.suspicion[hidden].min() > 10 * found.suspicion[~hidden].max()
    assert found.classes.argmax() == 1


@pytest.mark.parametrize("normalisation", [None, (0.5, 0.25)])
@pytest.mark.parametrize("apply_fn", [linear, with_features])
def test_scores_are_the_papers(apply_fn, normalisation):
    _, images, labels, _ = planted()
    w = np.random.default_rng(1).standard_normal((6, 3))
    network = subject(w, apply_fn=apply_fn, normalisation=normalisation)
    found = spectral_signatures.score(network, images, labels)
    mean, std = normalisation or (0, 1)
    features = (images.reshape(-1, 6) - mean) / std
    features = features if apply_fn is with_features else features @ w
    for label in range(3):
        of_class = features[labels == label]
        values, vectors = np.linalg.eigh(np.cov(of_class.T))
        expected = ((of_class - of_class.mean(0)) @ vectors[:, -1]) ** 2
        np.testing.assert_allclose(found.suspicion[labels == label], expected, rtol=1e-2, atol=1e-4)
        assert found.classes[label] == pytest.approx(values[-1] / values.sum(), rel=1e-3)


@pytest.mark.parametrize(("rate", "removed"), [(0, 0), (0.05, 3), (0.1, 6), (0.7, 40), (1, 40)])
def test_each_class_loses_one_and_a_half_times_the_rate(rate, removed):
    network, images, labels, _ = planted()
    found = spectral_signatures.score(network, images, labels, rate=rate)
    for label in range(3):
        of_class = labels == label
        assert found.flagged[of_class].sum() == removed
        if 0 < removed < 40:
            kept = found.suspicion[of_class & ~found.flagged]
            assert found.suspicion[of_class & found.flagged].min() >= kept.max()


def test_constant_features_and_small_classes():
    network, images, labels, _ = planted()
    images[labels == 0] = 0.3
    labels[labels == 2] = 1
    labels[-1] = 2
    found = spectral_signatures.score(network, images, labels)
    for label in (0, 2):
        np.testing.assert_array_equal(found.suspicion[labels == label], 0)
        assert not found.flagged[labels == label].any()
        assert found.classes[label] == 0
    labels[-1] = 1
    assert np.isnan(spectral_signatures.score(network, images, labels).classes[2])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": np.full(120, 3)}, "labels run from 3"),
        ({"rate": 1.5}, "0 to 1"),
        ({"images": np.full((120, 2, 3, 1), 2.0)}, "not in"),
        ({"subject": subject(np.ones((6, 1)))}, "at least 2 classes"),
    ],
)
def test_bad_input(change, match):
    network, images, labels, _ = planted()
    with pytest.raises(UserError, match=match):
        spectral_signatures.score(**({"subject": network, "images": images, "labels": labels} | change))
