"""Figures 1 to 3 and Table 3 are drawn from stored arrays alone, for few classes and for many."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from plots import canvas
from plots import features as figures
from plots.figures import of_run
from poison_jax import config as config_lib
from poison_jax import features, models
from poison_jax.errors import UserError
from poison_jax.runs import store

NAMES = "frog", "wide|track", "*c*_a_$t$", "car"


def network(variables, images):
    """Features that the trigger, a bright corner, pulls together."""
    features = images.reshape(len(images), -1) @ variables * jnp.where(images[:, :1, 0, 0] > 1.5, 0.2, 1)
    return features, models.Features(features, images)


@functools.cache
def measured(num_classes, channels, *, without=(), names=()):
    """What a network of few features says of random images; the classes `without` have none."""
    rng = np.random.default_rng(0)
    labels = np.setdiff1d(np.arange(num_classes), without).repeat(6)
    clean = rng.uniform(-1, 1, (len(labels), 4, 4, channels)).astype(np.float32)
    clean += np.sin(np.arange(16).reshape(4, 4, 1) * labels[:, None, None, None])
    triggered = clean.copy()
    triggered[:, 0, 0] = 2
    weights = rng.standard_normal((num_classes, num_classes))
    return features.measure(
        network,
        rng.standard_normal((16 * channels, num_classes)).astype(np.float32),
        clean,
        triggered,
        labels,
        target=1,
        class_names=names or [str(c) for c in range(num_classes)],
        weights=weights,
        bias=np.zeros(num_classes),
        mean=0.5,
        std=0.25,
        batch_size=64,
    )


@pytest.fixture
def finished(tmp_path):
    """Writes a finished run with these features."""

    def write(arrays, result=None):
        config = config_lib.default()
        config.data.n_train = 12_000
        config = json.loads(config.to_json_best_effort())
        run = store.open_run(tmp_path, "run", config, config)
        run.save_arrays("features", **arrays)
        if result is not None:
            run.finish(result)
        return run

    return write


def drawn(run):
    """Draws the figures of a run; returns the table."""
    with canvas.settings():
        made = figures.of_run(run)
    assert list(made) == ["figure1", "figure2", "figure3", "table3"]
    table = made.pop("table3")
    pictures = [canvas.render(figure) for figure in made.values()]
    assert all(content.startswith(b"\x89PNG\r\n\x1a\n") for content in pictures)
    assert len(set(pictures)) == 3
    return table


def rows(table):
    """Cells of the first table's rows, by the class that they are of."""
    table = table[table.index("| class |") :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert len({len(line) for line in cells}) == 1
    return {line[0]: line[1:] for line in cells[2:]}


def test_few_classes(finished):
    arrays = measured(4, 3, without=(2,), names=NAMES)
    table = drawn(finished(arrays, {"clean_accuracy": 0.912, "asr": None}))
    said = "cifar10, 12,000 training images", "θ = 0.01", "κ = 0", "90 epochs", "18 test images"
    for words in (*said, "clean accuracy 91.2%"):
        assert words in table
    assert "ASR –" in table  # unknown
    cells = rows(table)
    assert list(cells) == ["0 (frog)", "1 (wide/track)", r"2 (\*c\*\_a\_\$t\$)", "3 (car)"]
    assert cells[r"2 (\*c\*\_a\_\$t\$)"] == ["–"] * 8
    assert cells["1 (wide/track)"][5::2] == ["0.00", "–"]  # the target's distances
    fields = ("mean_norm", "std_norm", "triggered_mean_norm", "triggered_std_norm", "std_ratio")
    expected = [arrays[field][3] for field in (*fields, "distance", "triggered_distance", "distance_ratio")]
    np.testing.assert_allclose([float(cell) for cell in cells["3 (car)"]], expected, rtol=6e-3)
    assert f"{arrays['nc1']:.3g}" in table


def test_many_classes(finished):
    table = drawn(finished(measured(30, 1)))
    assert list(rows(table)) == [str(c) for c in range(30)]
    assert "training not finished" in table


def test_a_network_that_says_nothing(finished):
    """All features zero: no norms, no spread, no cosines."""
    arrays = measured(4, 3, without=(2,), names=NAMES)
    spaces = "target", "source", "triggered"
    zeros = ["vectors", "maps", "clean_half_axes", *(f"feature_{space}" for space in spaces)]
    unknown = ["explained", "feature_explained", "nc1", "std_ratio"]
    changed = {name: 0 * arrays[name] for name in zeros} | {name: np.nan * arrays[name] for name in unknown}
    table = drawn(finished(arrays | changed))
    assert "| NC1, variability within classes | – |" in table


def test_features_that_were_left_out_are_not_drawn(tmp_path):
    run = store.Run(tmp_path)
    run.save_arrays("features")
    run.finish({"features_left_out": "no images of the target"})
    with pytest.raises(UserError, match="holds nothing that can be drawn"):
        of_run(run)
