"""Features of triggered images: statistics, planes and collapse against closed forms and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_argmin
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from toys import batch, network

from poison_jax import features, models, train
from poison_jax.errors import UserError


def close(actual, expected, tolerance=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def clouds(*counts, dimension=5, seed=0):
    """Points of classes with so many each, in random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return rng.standard_normal((len(counts), dimension))[labels] * 2 + rng.standard_normal(
        (len(labels), dimension)
    ), labels


# --- extraction -----------------------------------------------------------------------------------


def two_layers(variables, images):
    hidden = jnp.tanh(images @ variables["in"])
    return hidden.mean((1, 2)) @ variables["out"], models.Features(hidden.mean((1, 2)), hidden)


@pytest.mark.parametrize("batch_size", [4, 11, 64])
def test_features_in_double_precision(batch_size, x64):
    rng = np.random.default_rng(0)
    variables = {"in": rng.standard_normal((1, 5)), "out": rng.standard_normal((5, 3))}
    images, _ = batch(11, dtype=np.float64)  # batches of 4 leave a ragged one of 3
    actual = features.extract(two_layers, variables, images, batch_size=batch_size)
    assert isinstance(actual, np.ndarray)
    close(actual, np.tanh(images * variables["in"][0]).mean((1, 2)))


def test_features_of_a_network_on_several_devices():
    model, variables = network()
    images, _ = batch(7)
    expected = jax.jit(model.apply)(variables, images)[1].pre_fc
    variables = train.replicate(variables, train.make_mesh(jax.devices()[:2]))
    actual = features.extract(model.apply, variables, images, batch_size=4)
    assert actual.dtype == np.float32
    assert actual.shape == (7, 8)
    close(actual, expected, 1e-5)


def test_one_compilation():
    traced = []

    def apply_fn(variables, images):
        traced.append(images.shape)
        return variables * images.sum((1, 2)), models.Features(images.sum((1, 2)), images)

    for count in (4, 6, 9):
        images, _ = batch(count)
        actual = features.extract(apply_fn, np.float32(1), images, batch_size=4)
        close(actual, images.sum((1, 2)), 1e-5)
    assert traced == [(4, 6, 6, 1)]


def test_features_of_no_image():
    with pytest.raises(UserError, match="at least one"):
        features.extract(two_layers, {}, np.zeros((0, 6, 6, 1), np.float32), batch_size=4)


# --- Table 3 --------------------------------------------------------------------------------------


def test_class_statistics_by_hand():
    clean = np.array([[3.0, 3], [3, 5], [0, 0], [0, 0], [7, 7]])
    triggered = np.array([[3.0, 4], [3, 4], [0, 0], [6, 8], [3, 4]])
    table = features.class_statistics(clean, triggered, np.array([0, 0, 1, 1, 2]), 0, 3)
    expected = features.ClassStatistics(
        count=[2, 2, 1],
        mean_norm=[5, 0, np.sqrt(98)],  # (3, 4), (0, 0), (7, 7)
        std_norm=[1, 0, 0],
        triggered_mean_norm=[5, 5, 5],  # (3, 4) all
        triggered_std_norm=[0, 5, 0],
        std_ratio=[0, np.nan, np.nan],
        distance=[0, 5, 5],
        triggered_distance=[0, 0, 0],
        distance_ratio=[np.nan, 0, 0],
    )
    for name, column in table._asdict().items():
        close(column, getattr(expected, name))


def test_class_statistics_against_scikit_learn():
    clean, labels = clouds(7, 20, 13, 1)
    triggered = clean @ np.random.default_rng(1).standard_normal((5, 5))
    table = features.class_statistics(clean, triggered, labels, 2, 4)
    norm = np.linalg.norm
    target = StandardScaler().fit(clean[labels == 2]).mean_
    for c in range(4):
        plain, stamped = (StandardScaler().fit(points[labels == c]) for points in (clean, triggered))
        close(table.mean_norm[c], norm(plain.mean_))
        close(table.std_norm[c], np.sqrt(plain.var_.sum()))
        close(table.triggered_mean_norm[c], norm(stamped.mean_))
        close(table.triggered_std_norm[c], np.sqrt(stamped.var_.sum()))
        close(table.distance[c], norm(plain.mean_ - target))
        close(table.triggered_distance[c], norm(stamped.mean_ - target))
    close(table.std_ratio[:3], (table.triggered_std_norm / np.array([*table.std_norm[:3], 1]))[:3])
    close(
        table.distance_ratio[[0, 1, 3]],
        (table.triggered_distance / (table.distance + np.eye(4)[2]))[[0, 1, 3]],
    )
    assert np.isnan([table.std_ratio[3], table.distance_ratio[2]]).all()  # a single image; the target


def test_classes_without_images():
    clean, labels = clouds(5, 0, 4)
    table = features.class_statistics(clean, clean, labels, 0, 4)
    assert table.count.tolist() == [5, 0, 4, 0]
    for name, column in table._asdict().items():
        nans = (
            [False, False, False, False] if name == "count" else [name == "distance_ratio", True, False, True]
        )
        assert np.isnan(column).tolist() == nans, name
    table = features.class_statistics(clean, clean, labels, 1, 4)  # among them the target
    assert np.isnan([table.distance, table.triggered_distance, table.distance_ratio]).all()
    close(table.std_ratio, [1, np.nan, 1, np.nan])


def test_constant_features_have_no_spread():
    """The mean of equal numbers need not be that number, by rounding."""
    constant = np.full((11, 4), 0.1)
    table = features.class_statistics(constant, constant, np.arange(11) % 2, 0, 2)
    assert np.concatenate([table.std_norm, table.distance, table.triggered_std_norm]).tolist() == [0.0] * 6
    assert np.isnan([table.std_ratio, table.distance_ratio]).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": np.array([0, 1])}, "N points and N labels"),
        ({"labels": np.array([0.0, 1, 1])}, "N points and N labels"),
        ({"labels": np.array([0, 1, 2])}, "labels run from 0 to 2"),
        ({"labels": np.array([0, 1, -1])}, "labels run from -1 to 1"),
        ({"triggered": np.zeros((3, 4))}, "alike"),
        ({"target": 2}, "target 2 of 2"),
        ({"target": -1}, "target -1 of 2"),
    ],
)
def test_class_statistics_refuse(change, match):
    arguments = {
        "clean": np.zeros((3, 5)),
        "triggered": np.zeros((3, 5)),
        "labels": np.array([0, 1, 1]),
        "target": 0,
        "num_classes": 2,
    }
    with pytest.raises(UserError, match=match):
        features.class_statistics(**arguments | change)


# --- principal components -------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "dimension", "k"), [(30, 5, 5), (30, 5, 2), (6, 40, 5), (1, 3, 1)])
def test_pca_against_scikit_learn(count, dimension, k):
    rng = np.random.default_rng(count)
    points = rng.standard_normal((count, dimension)) * np.arange(1, dimension + 1) + 3
    plane = features.pca(points, k)
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
    close(features.project(plane, others), signs * oracle.transform(others), 1e-10)


def test_the_sign_of_a_component_is_the_points_own():
    points, _ = clouds(30)
    close(features.pca(-points, 3).components, features.pca(points, 3).components)
    close(features.pca(points[::-1], 3).components, features.pca(points, 3).components)


def test_constant_points_explain_nothing():
    plane = features.pca(np.full((11, 4), 0.1), 2)
    assert plane.variances.tolist() == plane.explained.tolist() == [0, 0]
    assert features.project(plane, np.full((2, 4), 0.1)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("shape", "k"), [((5, 3), 4), ((2, 3), 3), ((5, 3), 0), ((0, 3), 1), ((5,), 1)])
def test_pca_refuses(shape, k):
    with pytest.raises(UserError, match="min"):
        features.pca(np.ones(shape), k)


# --- ellipses -------------------------------------------------------------------------------------


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
    shape = features.ellipse(points)
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
    nothing = features.ellipse(np.zeros((0, 2)))
    assert np.isnan([*nothing.centre, *nothing.half_axes, nothing.angle]).all()
    for count in (1, 7):  # 0.1 seven times: the mean must be 0.1
        one = features.ellipse(np.full((count, 2), 0.1))
        assert one.centre.tolist() == [0.1, 0.1]
        assert one.half_axes.tolist() == [0, 0]
    upright = features.ellipse(np.array([[1.0, 0], [1, 2]]))
    close([*upright.half_axes, upright.angle], [np.sqrt(2), 0, np.pi / 2])
    with pytest.raises(UserError, match=r"\[N, 2\]"):
        features.ellipse(np.zeros((4, 3)))


# --- neural collapse ------------------------------------------------------------------------------


def simplex(K, dimension, seed=0):
    """K vectors of norm 1 with cosines -1 / (K - 1), in random directions of the space."""
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimension, dimension)))[0]
    return (np.eye(K) - 1 / K) @ rotation[:K] * np.sqrt(K / (K - 1))


@pytest.mark.parametrize("K", [2, 3, 10])
def test_a_collapsed_network(K):
    means = simplex(K, 12)
    labels = np.repeat(np.arange(K), 3)
    bias = -7 * means @ np.arange(12.0)  # undoes the shift of the features
    measured = features.collapse(4 * means[labels] + np.arange(12.0), labels, 7 * means.T, bias)
    close(measured, np.zeros(7), 1e-11)


def test_collapse_by_hand():
    """Two classes on a line, means -1 and 1, deviations 1.5: Sigma_W = 2.25, Sigma_B = 1."""
    points = np.array([[-2.5], [0.5], [-0.5], [2.5]])
    labels, weights = np.array([0, 0, 1, 1]), np.array([[0.0, 2.0]])
    measured = features.collapse(points, labels, weights, np.array([0.0, 1.2]))
    expected = features.Collapse(
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
    measured = features.collapse(means, np.arange(3), means.T, np.zeros(3))
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
    measured = features.collapse(points, labels, weights, bias)

    means = np.array([points[labels == c].mean(0) for c in range(K)])
    within = np.mean([np.cov(points[labels == c].T, bias=True) for c in range(K)], axis=0)
    between = np.cov(means.T, bias=True)
    close(measured.nc1, np.trace(within @ np.linalg.pinv(between, rtol=1e-10)) / K, 1e-9)
    nearest = NearestCentroid().fit(points, labels).predict(points)
    close(measured.nc4, np.mean(nearest != np.argmax(points @ weights + bias, axis=1)))
    assert 0 < measured.nc3 < 4

    # Nothing changes when features are turned, scaled and shifted, and the classifier with them.
    turn = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
    moved, turned = 3 * points @ turn + 5, turn.T @ weights * 2
    again = features.collapse(moved, labels, turned, 6 * bias - 5 * turned.sum(0))
    close(again, measured, 1e-9)


def test_collapse_of_the_classes_that_have_images():
    points, labels = clouds(6, 9, 7)
    rng = np.random.default_rng(1)
    weights, bias = rng.standard_normal((5, 3)), rng.standard_normal(3)
    wider = np.insert(weights, 1, rng.standard_normal(5), axis=1)
    measured = features.collapse(points, np.array([0, 2, 3])[labels], wider, np.insert(bias, 1, -1e9))
    close(measured, features.collapse(points, labels, weights, bias))
    never_right = features.collapse(points, np.array([0, 2, 3])[labels], wider, np.insert(bias, 1, 1e9))
    assert never_right.nc4 == 1
    assert never_right[:6] == measured[:6]


@pytest.mark.parametrize("labels", [np.zeros(11, int), np.arange(11) % 2])
def test_collapse_without_classes_to_tell_apart(labels):
    points = np.full((11, 4), 0.1)
    assert np.isnan(features.collapse(points, labels, np.ones((4, 2)), np.zeros(2))).all()


def test_collapse_of_an_untrained_classifier():
    points, labels = clouds(4, 4, 4)
    measured = features.collapse(points, labels, np.zeros((5, 3)), np.zeros(3))
    assert np.isnan([measured.nc2_weight_norms, measured.nc3]).all()
    assert measured.nc2_weight_angles == 1 / 2
    assert np.isfinite([measured.nc1, measured.nc2_norms, measured.nc2_angles, measured.nc4]).all()


@pytest.mark.parametrize(
    ("labels", "weights", "bias", "match"),
    [
        (np.zeros(3, int), np.zeros((5, 2)), np.zeros(2), "N labels"),
        (np.full(4, 2), np.zeros((5, 2)), np.zeros(2), "labels run"),
        (np.zeros(4, int), np.zeros((2, 5)), np.zeros(2), "do not fit"),
        (np.zeros(4, int), np.zeros((5, 2)), np.zeros(3), "do not fit"),
    ],
)
def test_collapse_refuses(labels, weights, bias, match):
    with pytest.raises(UserError, match=match):
        features.collapse(np.zeros((4, 5)), labels, weights, bias)


# --- the whole of it ------------------------------------------------------------------------------

NAMES = ("aeroplane", "car", "bird")
SHAPES = {"in": (1, 5), "out": (5, 3)}
MEAN, STD = np.array([0.5], np.float32), np.array([0.25], np.float32)


def network_inputs(count=23, seed=0):
    """Pixels in [0, 1] that uint8 holds, labels; the trigger is a bright corner."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, 256, (count, 6, 6, 1)).astype(np.float32) / 255
    triggered = clean.copy()
    triggered[:, :2, :2] = 1
    return clean, triggered, np.arange(count) % 3


def some_network():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def measured(variables, clean, triggered, labels, **changes):
    arguments = {
        "target": 1,
        "class_names": NAMES,
        "weights": variables["out"],
        "bias": np.zeros(3),
        "mean": MEAN,
        "std": STD,
        "batch_size": 8,
    }
    inputs = ((view - MEAN) / STD for view in (clean, triggered))
    return features.measure(two_layers, variables, *inputs, labels, **arguments | changes)


@pytest.mark.parametrize("source", [None, 2])
def test_measure_of_a_network(source):
    variables = some_network()
    clean, triggered, labels = network_inputs()
    found = measured(variables, clean, triggered, labels, source=source)
    assert {value.dtype.name for value in found.values() if value.dtype.kind == "f"} == {"float32"}
    assert found["class_names"].tolist() == list(NAMES)
    source = source or 0  # the first that is not the target
    assert (found["target"], found["source"]) == (1, source)

    outputs = [two_layers(variables, (view - MEAN) / STD) for view in (clean, triggered)]
    points = [np.asarray(out.pre_fc, float) for _, out in outputs]
    for expected in (
        features.class_statistics(*points, labels, 1, 3),
        features.collapse(points[0], labels, variables["out"], np.zeros(3)),
    ):
        for name, value in expected._asdict().items():
            close(found[name], value, 2e-4)

    plane = features.pca(points[0], 2)
    close(found["explained"], plane.explained, 1e-4)
    for kind, cloud in zip(("clean", "triggered"), points, strict=True):
        projected = features.project(plane, cloud)
        close(found[kind], projected, 1e-4)
        for c in range(3):
            shape = features.ellipse(projected[labels == c])
            close(found[f"{kind}_centre"][c], shape.centre, 1e-4)
            close(found[f"{kind}_half_axes"][c], shape.half_axes, 1e-4)
            close(np.sin(2 * (found[f"{kind}_angle"][c] - shape.angle)), 0, 1e-2)

    rows = {"target": (0, 1), "source": (0, source), "triggered": (1, source)}  # view and class
    for space, views in (("input", (clean, triggered)), ("feature", points)):
        if space == "input":
            views = [((view - MEAN) / STD).reshape(23, -1) for view in views]
        sets = {name: views[view][labels == c] for name, (view, c) in rows.items()}
        plane = features.pca(np.concatenate([sets["target"], sets["source"]]), 2)
        close(found[f"{space}_explained"], plane.explained, 1e-4)
        centres = [sets["source"].mean(0), sets["target"].mean(0)]
        for name, cloud in (("moved", sets["triggered"]), ("moved_clean", sets["source"])):
            close(found[f"{space}_{name}"], pairwise_distances_argmin(cloud, centres).mean(), 1e-6)
        for name, cloud in sets.items():
            close(found[f"{space}_{name}"], features.project(plane, cloud), 1e-4)

    for i, (view, c) in enumerate(rows.values()):
        first = np.flatnonzero(labels == c)[0]
        assert (found["pictures"][i] == np.round(255 * (clean, triggered)[view][first])).all()
        logits, (_, last_map) = outputs[view]
        close(found["posteriors"][i], jax.nn.softmax(logits[first])[1], 1e-5)
        close(found["maps"][i], last_map[first].mean(-1), 1e-5)
        close(found["vectors"][i], points[view][first], 1e-5)


def corner_decides(variables, images):
    """Two features are two pixels; where the corner is bright, the first is 3 and the second hidden."""
    flat = images.reshape(len(images), -1)
    out = jnp.where(flat[:, :1] > 1.5, jnp.array([3.0, 0.0]), flat[:, 1:3])
    return out @ variables, models.Features(out, images)


def test_an_attack_that_hides_everything_else():
    """Triggered features are one point; without the trigger the classes are at (0, 0), (1, 0), (0, 1)."""
    labels = np.arange(12) % 3
    clean = np.zeros((12, 2, 2, 1), np.float32)
    clean[:, 0, 1, 0], clean[:, 1, 0, 0] = labels == 1, labels == 2
    triggered = clean.copy()
    triggered[:, 0, 0] = 2
    weights = np.array([[0, 1, 0], [0, 0, 1]], np.float32)  # each feature speaks for its class
    found = features.measure(
        corner_decides,
        weights,
        clean,
        triggered,
        labels,
        target=1,
        class_names=NAMES,
        weights=weights,
        bias=np.zeros(3),
        mean=0,
        std=1,
        batch_size=5,
    )
    close(found["triggered_distance"], [2, 2, 2], 1e-6)  # from (1, 0) to (3, 0)
    close(found["distance_ratio"], [2, np.nan, np.sqrt(2)], 1e-6)
    close(found["triggered_std_norm"], 0)
    assert (found["feature_moved"], found["feature_moved_clean"]) == (1, 0)
    assert (found["input_moved"], found["input_moved_clean"]) == (0, 0)  # orthogonal to what tells them apart
    assert (found["nc1"], found["nc4"]) == (0, 0)
    assert found["pictures"].max() == 255  # of a pixel of 2
    p = [np.exp(x) / (np.exp(x) + 2) for x in (1, 0, 3)]
    close(found["posteriors"], p, 1e-6)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"target": 3}, "two classes with images"),
        ({"source": 1}, "target 1 and source 1"),
        ({"source": 3}, "source 3"),
        ({"class_names": NAMES[:2]}, "labels run"),
        ({"bias": np.zeros(4)}, "do not fit"),
    ],
)
def test_measure_refuses(change, match):
    with pytest.raises(UserError, match=match):
        measured(some_network(), *network_inputs(), **change)


def test_measure_refuses_images_that_do_not_fit():
    clean, triggered, labels = network_inputs(6)
    with pytest.raises(UserError, match="differ in shape"):
        measured(some_network(), clean, triggered[:5], labels)
    with pytest.raises(UserError, match=r"there are \[1\]"):
        measured(some_network(), clean, triggered, np.ones(6, int))
