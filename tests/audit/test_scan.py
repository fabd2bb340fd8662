"""SCAn's likelihood ratios against SciPy's densities and the best of all divisions."""

import itertools

import numpy as np
import pytest
from linear_subject import subject, with_features
from scipy.stats import median_abs_deviation, multivariate_normal
from sklearn.covariance import LedoitWolf

from poison_jax.audit import scan
from poison_jax.errors import UserError

CLASSES = 8


def planted(count=30, poisoned=6):
    """The last images of class 1 lie apart from its others."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(0.3, 0.7, (CLASSES, 6))
    labels = np.repeat(np.arange(CLASSES), count)
    images = centres[labels] + 0.03 * rng.standard_normal((len(labels), 6))
    hidden = np.zeros(len(labels), bool)
    hidden[2 * count - poisoned : 2 * count] = True
    clean = images.copy()
    images[hidden, :2] += 0.2
    network = subject(rng.standard_normal((6, CLASSES)), apply_fn=with_features)
    return network, images.reshape(-1, 2, 3, 1), clean.reshape(-1, 2, 3, 1), labels, hidden


@pytest.mark.parametrize("with_clean", [True, False])
def test_a_planted_group(with_clean):
    network, images, clean, labels, hidden = planted()
    clean = (clean, labels) if with_clean else None
    found = scan.score(network, images, labels, key=0, clean=clean, batch_size=100)
    assert found.classes.argmax() == 1
    assert found.classes[1] > np.e**2
    np.testing.assert_array_equal(found.flagged[labels == 1], hidden[labels == 1])
    assert found.suspicion[hidden].min() > 0 > found.suspicion[(labels == 1) & ~hidden].max()


def test_clean_data():
    network, _, clean, labels, _ = planted()
    found = scan.score(network, clean, labels, key=0)
    assert found.classes[1] < np.e**2


def test_whitening_is_that_of_the_covariance_within_classes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 50)
    features = rng.standard_normal((50, 4)) @ rng.standard_normal((4, 4)) + 10 * labels[:, None]
    rest = features - np.stack([features[labels == c].mean(0) for c in range(3)])[labels]
    expected = LedoitWolf(assume_centered=True).fit(rest).covariance_ * 50 / 47
    root = scan.whitening(features, labels)
    np.testing.assert_allclose(root @ expected @ root.T, np.eye(4), atol=1e-8)


def test_ratio_is_the_largest_of_all_divisions():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((7, 2))
    found = scan.division(points, np.random.default_rng(0))

    def log_likelihood(group):
        return multivariate_normal(group.mean(0), np.eye(2)).logpdf(group).sum() if len(group) else 0

    ratios = []
    for members in itertools.product([False, True], repeat=6):
        group = np.array([False, *members])
        both = log_likelihood(points[group]) + log_likelihood(points[~group])
        ratios.append(2 * (both - log_likelihood(points)))
    assert found.ratio == pytest.approx(max(ratios))
    smaller, larger = points[found.smaller], points[~found.smaller]
    assert len(smaller) < len(larger)
    densities = [multivariate_normal(group.mean(0), np.eye(2)).logpdf(points) for group in (smaller, larger)]
    np.testing.assert_allclose(found.suspicion, 2 * (densities[0] - densities[1]))


def test_class_score_is_the_papers_whatever_the_degrees_of_freedom():
    network, images, _, labels, _ = planted()
    found = scan.score(network, images, labels, key=0)
    whitened = images.reshape(-1, 6) @ scan.whitening(images.reshape(-1, 6), labels)
    random = np.random.default_rng(0)
    ratios = np.array([scan.division(whitened[labels == c], random).ratio for c in range(CLASSES)])
    freedom = 7 * 8 / 2
    normal = (ratios - freedom) / np.sqrt(2 * freedom)
    expected = (normal - np.median(normal)) / median_abs_deviation(normal, scale=1 / 1.4826)
    np.testing.assert_allclose(found.classes, expected, rtol=1e-3, atol=1e-3)


def test_constant_features_and_small_classes():
    network, images, _, labels, _ = planted()
    images[labels == 0] = 0.3
    labels[labels == 2] = 1
    labels[-1] = 2
    found = scan.score(network, images, labels, key=0)
    for label in (0, 2):
        np.testing.assert_allclose(found.suspicion[labels == label], 0, atol=1e-9)
        assert not found.flagged[labels == label].any()
    labels[-1] = 1
    found = scan.score(network, images, labels, key=0)
    np.testing.assert_array_equal(np.isnan(found.classes), np.arange(CLASSES) == 2)


@pytest.mark.parametrize(
    ("rows", "change", "match"),
    [
        (slice(None), {"labels": np.full(240, 8)}, "labels run from 8"),
        (slice(None, None, 30), {}, "8 images of 8 classes"),
        (slice(None), {"images": np.full((240, 2, 3, 1), 0.5)}, "all equal"),
        (slice(None), {"clean": (np.zeros((1, 2, 3, 1)), np.zeros(2, int))}, "not N images"),
        (slice(None), {"clean": (np.zeros((1, 3, 3, 1)), np.zeros(1, int))}, "differ in size"),
        (slice(None), {"subject": subject(np.ones((6, 1)))}, "at least 2 classes"),
    ],
)
def test_bad_input(rows, change, match):
    network, images, _, labels, _ = planted()
    arguments = {"subject": network, "images": images[rows], "labels": labels[rows], "key": 0} | change
    with pytest.raises(UserError, match=match):
        scan.score(**arguments)
