"""Features of triggered images and their statistics against closed forms and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points import close, clouds
from sklearn.metrics import pairwise_distances_argmin
from sklearn.preprocessing import StandardScaler
from toys import batch, network

from poison_jax import features, models
from poison_jax.errors import UserError
from poison_jax.mesh import make_mesh, replicate

# --- extraction -----------------------------------------------------------------------------------


def two_layers(variables, images):
    hidden = jnp.tanh(images @ variables["in"])
    return hidden.mean((1, 2)) @ variables["out"], models.Features(hidden.mean((1, 2)), hidden)


def test_features_in_double_precision(x64):
    rng = np.random.default_rng(0)
    variables = {"in": rng.standard_normal((1, 5)), "out": rng.standard_normal((5, 3))}
    images, _ = batch(11, dtype=np.float64)  # batches of 4 leave a ragged one of 3
    actual = features.extract(two_layers, variables, images, batch_size=4)
    assert isinstance(actual, np.ndarray)
    close(actual, np.tanh(images * variables["in"][0]).mean((1, 2)))


def test_features_of_a_network_on_several_devices():
    model, variables = network()
    images, _ = batch(7)
    expected = jax.jit(model.apply)(variables, images)[1].pre_fc
    variables = replicate(variables, make_mesh(jax.devices()[:2]))
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


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": np.zeros((5, 6, 6, 1), np.uint8)}, "uint8: scale and normalise"),
        ({"batch_size": 0}, "at least 1"),
        ({"in": np.full((1, 5), np.nan)}, "logits or features are not"),
        ({"out": np.full((5, 3), np.inf)}, "logits or features are not"),
        ({"out": jnp.tanh}, r"variables\['out'\] is of type"),
    ],
)
def test_no_features_of(change, match):
    arguments = {"images": batch(5)[0], "batch_size": 4, "in": np.ones((1, 5)), "out": np.ones((5, 3))}
    arguments |= change
    variables = {name: arguments.pop(name) for name in ("in", "out")}
    with pytest.raises(UserError, match=match):
        features.extract(two_layers, variables, **arguments)


# --- Table 3 --------------------------------------------------------------------------------------


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
        ({"labels": np.array([0, 1])}, "N features and N labels"),
        ({"clean": np.full((3, 5), np.nan)}, "clean features: 15 of 15 values are not finite"),
        ({"triggered": np.full((3, 5), np.inf)}, "triggered features: 15 of 15"),
        ({"labels": np.array([0, 1, 2])}, "labels run from 0 to 2"),
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
        ({"class_names": (*NAMES, "none")}, "4 class names for a network of 3 logits"),
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
