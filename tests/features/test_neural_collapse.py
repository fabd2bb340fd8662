"""Neural collapse against closed forms, dense covariances and scikit-learn."""

import numpy as np
import pytest
from points import close, clouds
from sklearn.neighbors import NearestCentroid

from poison_jax.errors import UserError
from poison_jax.features.neural_collapse import Collapse, collapse


def simplex(K, dimension, seed=0):
    """K vectors of norm 1 with cosines -1 / (K - 1), in random directions of the space."""
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimension, dimension)))[0]
    return (np.eye(K) - 1 / K) @ rotation[:K] * np.sqrt(K / (K - 1))


@pytest.mark.parametrize("K", [2, 3, 10])
def test_a_collapsed_network(K):
    means = simplex(K, 12)
    labels = np.repeat(np.arange(K), 3)
    bias = -7 * means @ np.arange(12.0)  # undoes the shift of the features
    measured = collapse(4 * means[labels] + np.arange(12.0), labels, 7 * means.T, bias)
    close(measured, np.zeros(7), 1e-11)


def test_collapse_by_hand():
    """Two classes on a line, means -1 and 1, deviations 1.5: Sigma_W = 2.25, Sigma_B = 1."""
    points = np.array([[-2.5], [0.5], [-0.5], [2.5]])
    labels, weights = np.array([0, 0, 1, 1]), np.array([[0.0, 2.0]])
    measured = collapse(points, labels, weights, np.array([0.0, 1.2]))
    expected = Collapse(
        nc1=2.25 / 2,
        nc2_norms=0,
        nc2_angles=0,
        nc2_weight_norms=1,  # norms 0 and 2
        nc2_weight_angles=1,  # cosine 0 in the place of -1
        nc3=2 - np.sqrt(2),  # (0, 1) against (-1, 1) / sqrt 2
        nc4=1 / 4,  # -0.5 is nearer to -1, but 2 (-0.5) + 1.2 > 0
    )
    close(measured, expected)


def test_angles_by_hand():
    """Means at 0, 90 and 180 degrees and their opposite sum: centred (1, -1/3), (0, 2/3), (-1, -1/3)."""
    means = np.array([[1.0, 0], [0, 1], [-1, 0]])
    measured = collapse(means, np.arange(3), means.T, np.zeros(3))
    cosines = np.array([-8 / 10, -1 / np.sqrt(10), -1 / np.sqrt(10)])
    close(measured.nc2_angles, np.abs(cosines + 1 / 2).mean())
    norms = np.array([np.sqrt(10) / 3, 2 / 3, np.sqrt(10) / 3])
    close(measured.nc2_norms, norms.std() / norms.mean())
    close(measured.nc2_weight_angles, np.abs(np.array([0, 0, -1]) + 1 / 2).mean())
    close([measured.nc1, measured.nc2_weight_norms, measured.nc4], 0)


@pytest.mark.parametrize(("counts", "dimension"), [((9, 9, 9), 5), ((4, 15, 2, 30), 7), ((3, 8, 5, 6, 9), 2)])
def test_collapse_against_dense_covariances(counts, dimension):
    points, labels = clouds(*counts, dimension=dimension)
    K = len(counts)
    rng = np.random.default_rng(1)
    weights, bias = rng.standard_normal((dimension, K)), rng.standard_normal(K)
    measured = collapse(points, labels, weights, bias)

    means = np.array([points[labels == c].mean(0) for c in range(K)])
    within = np.mean([np.cov(points[labels == c].T, bias=True) for c in range(K)], axis=0)
    between = np.cov(means.T, bias=True)
    close(measured.nc1, np.trace(within @ np.linalg.pinv(between, rtol=1e-10)) / K, 1e-9)
    nearest = NearestCentroid().fit(points, labels).predict(points)
    close(measured.nc4, np.mean(nearest != np.argmax(points @ weights + bias, axis=1)))
    assert 0 < measured.nc3 < 4

    # Nothing changes when features are turned, scaled and shifted, and the classifier with them.
    turn = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
    turned = turn.T @ weights * 2
    for shift in (5, 1e5):
        again = collapse(3 * points @ turn + shift, labels, turned, 6 * bias - shift * turned.sum(0))
        close(again, measured, 1e-9)


def test_collapse_of_the_classes_that_have_images():
    points, labels = clouds(6, 9, 7)
    rng = np.random.default_rng(1)
    weights, bias = rng.standard_normal((5, 3)), rng.standard_normal(3)
    wider = np.insert(weights, 1, rng.standard_normal(5), axis=1)
    measured = collapse(points, np.array([0, 2, 3])[labels], wider, np.insert(bias, 1, -1e9))
    close(measured, collapse(points, labels, weights, bias))
    never_right = collapse(points, np.array([0, 2, 3])[labels], wider, np.insert(bias, 1, 1e9))
    assert never_right.nc4 == 1
    assert never_right[:6] == measured[:6]


@pytest.mark.parametrize("labels", [np.zeros(11, int), np.arange(11) % 2])
def test_collapse_without_classes_to_tell_apart(labels):
    points = np.full((11, 4), 0.1)
    assert np.isnan(collapse(points, labels, np.ones((4, 2)), np.zeros(2))).all()


def test_collapse_of_an_untrained_classifier():
    points, labels = clouds(4, 4, 4)
    measured = collapse(points, labels, np.zeros((5, 3)), np.zeros(3))
    assert np.isnan([measured.nc2_weight_norms, measured.nc3]).all()
    assert measured.nc2_weight_angles == 1 / 2
    assert np.isfinite([measured.nc1, measured.nc2_norms, measured.nc2_angles, measured.nc4]).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": np.zeros(3, int)}, "N labels"),
        ({"labels": np.full(4, 2)}, "labels run"),
        ({"weights": np.zeros((2, 5))}, "do not fit"),
        ({"bias": np.zeros(3)}, "do not fit"),
        ({"features": np.zeros((0, 5)), "labels": np.zeros(0, int)}, "do not fit"),
        ({"weights": np.full((5, 2), np.nan)}, "weights: 10 of 10 values are not finite"),
        ({"bias": np.full(2, np.inf)}, "biases: 2 of 2"),
        # NaN is the largest entry for argmax: the decision would be class 0.
        ({"features": np.where(np.arange(20) == 7, np.nan, 1.0).reshape(4, 5)}, "features: 1 of 20"),
    ],
)
def test_collapse_refuses(change, match):
    arguments = {"features": np.zeros((4, 5)), "labels": np.zeros(4, int), "weights": np.zeros((5, 2))}
    with pytest.raises(UserError, match=match):
        collapse(**arguments | {"bias": np.zeros(2)} | change)
