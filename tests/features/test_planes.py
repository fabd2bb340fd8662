"""Principal components and ellipses against scikit-learn."""

import numpy as np
import pytest
from points import close, clouds
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA

from poison_jax.errors import UserError
from poison_jax.features import planes


@pytest.mark.parametrize(("count", "dimension", "k"), [(30, 5, 5), (30, 5, 2), (6, 40, 5), (1, 3, 1)])
def test_pca_against_scikit_learn(count, dimension, k):
    rng = np.random.default_rng(count)
    points = rng.standard_normal((count, dimension)) * np.arange(1, dimension + 1) + 3
    plane = planes.pca(points, k)
    close(plane.mean, points.mean(0))
    close(plane.components @ plane.components.T, np.eye(k))
    assert all(row[np.abs(row).argmax()] > 0 for row in plane.components)
    if count == 1:
        assert plane.variances == plane.explained == 0
        return
    oracle = PCA(k, svd_solver="full").fit(points)
    close(plane.variances, oracle.explained_variance_)
    close(plane.explained, oracle.explained_variance_ratio_)
    signs = np.sign(np.sum(plane.components * oracle.components_, axis=1))
    close(plane.components, signs[:, None] * oracle.components_, 1e-10)
    others = rng.standard_normal((4, dimension))
    close(planes.project(plane, others), signs * oracle.transform(others), 1e-10)


def test_the_sign_of_a_component_is_the_points_own():
    points, _ = clouds(30)
    close(planes.pca(-points, 3).components, planes.pca(points, 3).components)
    close(planes.pca(points[::-1], 3).components, planes.pca(points, 3).components)


def test_constant_points_explain_nothing():
    plane = planes.pca(np.full((11, 4), 0.1), 2)
    assert plane.variances.tolist() == plane.explained.tolist() == [0, 0]
    assert planes.project(plane, np.full((2, 4), 0.1)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("shape", "k"), [((5, 3), 4), ((2, 3), 3), ((5, 3), 0), ((0, 3), 1), ((5,), 1)])
def test_pca_refuses(shape, k):
    with pytest.raises(UserError, match="min"):
        planes.pca(np.ones(shape), k)


def outline(shape, t):
    """Points of the ellipse at parameters t."""
    x, y = shape.half_axes[:, None] * [np.cos(t), np.sin(t)]
    c, s = np.cos(shape.angle), np.sin(shape.angle)
    return shape.centre + np.column_stack([c * x - s * y, s * x + c * y])


@pytest.mark.parametrize("angle", np.deg2rad([-80.0, -45, 0, 30, 89]))
def test_ellipse_is_the_covariances(angle):
    rng = np.random.default_rng(0)
    c, s = np.cos(angle), np.sin(angle)
    points = rng.standard_normal((20_000, 2)) * [3, 0.5] @ [[c, s], [-s, c]] + [5, -2]
    shape = planes.ellipse(points)
    close(shape.centre, points.mean(0))
    close(shape.half_axes**2, np.linalg.eigvalsh(np.cov(points.T))[::-1], 1e-9)
    axis = np.array([np.cos(shape.angle), np.sin(shape.angle)])
    close(np.cov(points.T) @ axis, shape.half_axes[0] ** 2 * axis, 1e-9)
    assert abs(shape.angle - angle) < 0.01
    assert -np.pi / 2 < shape.angle <= np.pi / 2

    oracle = EmpiricalCovariance().fit(points)  # divides by N
    on_it = oracle.mahalanobis(outline(shape, np.linspace(0, 6, 20)))
    close(on_it, len(points) / (len(points) - 1), 1e-9)
    for sigmas, share in ((1, 1 - np.exp(-1 / 2)), (2, 1 - np.exp(-2))):  # 39 % and 86 %
        within = np.mean(oracle.mahalanobis(points) <= sigmas**2)
        assert within == pytest.approx(share, abs=4 * np.sqrt(0.25 / len(points)))


def test_ellipse_of_few_points():
    nothing = planes.ellipse(np.zeros((0, 2)))
    assert np.isnan([*nothing.centre, *nothing.half_axes, nothing.angle]).all()
    for count in (1, 7):  # 0.1 seven times: the mean must be 0.1
        one = planes.ellipse(np.full((count, 2), 0.1))
        assert one.centre.tolist() == [0.1, 0.1]
        assert one.half_axes.tolist() == [0, 0]
    upright = planes.ellipse(np.array([[1.0, 0], [1, 2]]))
    close([*upright.half_axes, upright.angle], [np.sqrt(2), 0, np.pi / 2])
    with pytest.raises(UserError, match=r"\[N, 2\]"):
        planes.ellipse(np.zeros((4, 3)))


@pytest.mark.parametrize("function", [lambda points: planes.pca(points, 1), planes.ellipse])
def test_points_that_are_not_finite(function):
    with pytest.raises(UserError, match="points: 2 of 8 values are not finite"):
        function(np.array([[0, 1], [np.nan, 0], [1, -np.inf], [3, 4]]))
