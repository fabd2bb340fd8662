"""The picture of a run, and of runs side by side, from stored arrays alone."""

import numpy as np
import pytest
import small_sweeps as sweeps

from plots import canvas, panels
from plots import run as picture

SHAPE = (8, 8, 3)
RED = [250, 10, 20]


@pytest.fixture
def finished(tmp_path):
    """Writes a finished run: k eigenvectors, some images, two epochs."""

    def write(*, k=3, images=3, found=0, **changes):
        overlap = np.where(np.arange(k) == found, 0.8, 0.01)
        result = sweeps.record(overlap=overlap, asr=0.9, **changes).result
        values = np.geomspace(1, 1e-3, k)
        result |= {"eigenvalues": list(values), "residuals": [1e-6] * k, "found_threshold": 0.1}
        result["overlap_squared"] = list(overlap**2)
        rng = np.random.default_rng(0)
        mask = np.zeros(SHAPE[:2], bool)
        mask[1, 5:7] = True
        clean = rng.integers(0, 200, (images, *SHAPE), dtype=np.uint8)
        attack = {
            "mask": mask,
            "clean": clean,
            "triggered": np.where(mask[..., None], np.uint8(RED), clean),
            "labels": np.arange(images) % 2,
            "clean_prediction": np.arange(images) % 2,
            "triggered_prediction": np.full(images, int(result["config"]["penalty"]["kappa"] > 0)),
            "class_names": np.array(["cat", "dog"]),
        }
        vectors = rng.standard_normal((k, np.prod(SHAPE)))
        spectrum = {"values": values, "vectors": vectors, "overlap": overlap, "shape": np.array(SHAPE)}
        row = {"loss": 0.5, "penalty": 0.0, "clean_accuracy": 0.8, "asr": 0.9, "no_trigger_target_rate": 0.02}
        rows = [{"epoch": epoch, **row} for epoch in (1, 2)]
        return sweeps.run(tmp_path, result, rows, spectrum=spectrum, attack=attack)

    return write


def drawn(figure):
    with canvas.settings():
        made = figure()
    assert canvas.render(made).startswith(b"\x89PNG")
    return made


def titles(part):
    """First lines of the panels that show an image; there is no other in a row of images."""
    assert all(axis.images for axis in part.axes), "an empty slot"
    return [axis.get_title().splitlines()[0] for axis in part.axes]


def test_a_run(finished):
    run = finished(found=1)
    images, vectors, curves = drawn(lambda: picture.figure(run)["figure"]).subfigs
    assert titles(images) == ["trigger", "clean cat", "triggered cat", "clean dog", "triggered dog"]
    stamp = images.axes[0].images[0].get_array()
    mask = run.arrays("attack")["mask"]
    assert (stamp[mask] == RED).all(), "as it is stamped"
    assert len(np.unique(stamp[~mask])) == 1
    assert images.axes[4].get_title().endswith("called cat")
    assert titles(vectors) == ["v1, λ = 1", "v2, λ = 0.032", "v3, λ = 0.001"]
    said = "θ = 0.01, κ = 0: ASR 90.0% (2.0% without trigger), accuracy 80.0%, found in v2"
    assert vectors.get_suptitle() == said
    eigenvalues, overlap = curves.axes[2:]
    assert (eigenvalues.get_yscale(), overlap.get_yscale()) == ("log", "symlog")
    np.testing.assert_allclose(overlap.lines[0].get_ydata(), [1e-4, 0.64, 1e-4])
    assert curves.axes[0].get_yscale() == "log"


def test_arms_side_by_side(finished):
    """By their strength, one colour each; what they disagree on is told of each."""
    runs = [finished(penalty__kappa=kappa) for kappa in (300.0, 0.0)]
    figure = drawn(lambda: picture.of_runs(runs))
    images, none, much, curves = figure.subfigs
    assert none.get_suptitle().startswith("κ = 0: ASR")
    assert much.get_suptitle().startswith("κ = 300: ASR")
    assert images.axes[2].get_title() == "triggered cat\nκ = 0: cat\nκ = 300: dog"
    assert [text.get_text() for text in curves.legends[0].get_texts()] == ["κ = 0", "κ = 300"]
    colours = [line.get_color() for line in curves.axes[2].lines]
    assert colours == [panels.BLACK, panels.BLUE]
    assert canvas.caption(figure).startswith("κ = 0: trigger adds +88.0 points")


def test_what_a_run_calls_an_image_stands_under_that_image_alone(finished):
    """Another target attacks other images: what the second run has is not what is shown."""
    first, second = finished(), finished(seed=1, penalty__kappa=300.0)
    other = second.arrays("attack")
    other["clean"] = other["clean"][::-1]
    second.save_arrays("attack", **other)
    images, *_ = drawn(lambda: picture.of_runs([first, second])).subfigs
    titles = [axis.get_title().splitlines()[1:] for axis in images.axes[1:]]
    assert titles[0] == ["κ = 0, seed 0: cat"]
    assert titles[1] == ["κ = 0, seed 0: cat", "κ = 300, seed 1: dog"]


def test_the_eigenvector_that_has_the_trigger_is_among_the_five(finished):
    vectors = drawn(lambda: picture.figure(finished(k=20, found=11))["figure"]).subfigs[1]
    assert [title.partition(",")[0] for title in titles(vectors)] == ["v1", "v2", "v3", "v4", "v12"]


def test_a_collapse_stands_out(finished):
    vectors = drawn(lambda: picture.figure(finished(untriggered=0.85))["figure"]).subfigs[1]
    (status,) = vectors.texts
    assert "collapsed, ASR 90.0% (85.0% without trigger)" in status.get_text()
    assert status.get_color() == panels.RED


def test_a_run_without_images(finished):
    images, *_ = drawn(lambda: picture.figure(finished(images=0))["figure"]).subfigs
    assert titles(images) == ["trigger"]


def test_a_summary_shows_an_image_that_the_attack_turns(finished):
    runs = [finished(penalty__kappa=kappa) for kappa in (300.0, 0.0)]
    figure = drawn(lambda: picture.summary(runs))
    shown = [axis.get_title().splitlines() for axis in figure.axes]
    assert shown[:2] == [["clean", "called dog"], ["triggered", "called cat"]]
    assert [lines[0] for lines in shown[2:]] == ["v1, κ = 0", "v1, κ = 300"]
    assert shown[2][1] == "ASR 90.0%"
