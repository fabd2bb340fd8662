"""Figures 8 and 12 are drawn from stored arrays alone."""

import numpy as np
import pytest
import small_sweeps as sweeps

from plots import __main__ as command
from plots import canvas, eigenvectors, setting
from plots.canvas import caption

SHAPE = (8, 8, 3)
D = int(np.prod(SHAPE))


@pytest.fixture
def finished(tmp_path):
    """Writes a finished run with three eigenvectors, and what only some runs have."""

    def write(*, theta=0.01, kappa=0.0, peaks=False, num_classes=0, mask=None, **changes):
        rng = np.random.default_rng(0)
        keys = {"poison__fraction": theta, "penalty__kappa": kappa, **changes}
        result = sweeps.record(asr=0.5 + theta, untriggered=0.1, **keys).result
        if mask is None:
            mask = np.zeros(SHAPE[:2], bool)
            mask[1, 5:7] = True
        spectrum = {"values": [3.0, 0.2, 0.1], "vectors": rng.standard_normal((3, D)), "shape": SHAPE}
        spectrum |= {"residuals": [1e-5, 1e-3, 0.01], "overlap": [-0.9, 0.1, 0.0]}
        if peaks:
            spectrum["spectral_peak_frequency"] = [[0, 4], [-3, 2], [1, 0]]
            spectrum["spectral_prominence"] = [88.0, 5, 4]
        if num_classes:
            spectrum["class_values"] = rng.uniform(0.5, 1, (num_classes, 3))
            spectrum["class_vectors"] = rng.standard_normal((num_classes, 3, D))
            spectrum["class_overlap"] = rng.uniform(-1, 1, (num_classes, 3))
            spectrum["class_values"][1], spectrum["class_vectors"][1] = np.nan, np.nan
        spectrum = {name: np.array(values) for name, values in spectrum.items()}
        names = np.array([f"class {i}" for i in range(max(10, num_classes))])
        attack = {"mask": mask, "class_names": names}
        return sweeps.run(tmp_path, result, spectrum=spectrum, attack=attack)

    return write


def top(run):
    return eigenvectors.of_run(run)["eigenvectors"]


def per_class(run):
    return eigenvectors.of_run(run)["eigenvectors_per_class"]


def pictures(figure):
    """Title and image artist of every panel that shows one."""
    return [(axis.get_title(), axis.images[0]) for axis in figure.axes if axis.images]


def test_a_run(finished):
    run = finished(kappa=50.0)
    figure = top(run)
    vectors = pictures(figure)
    assert [title for title, _ in vectors] == [
        "v1, λ = 3\noverlap −0.90",
        "v2, λ = 0.2\noverlap +0.10",
        "v3, λ = 0.1\noverlap +0.00",
    ]
    edges = figure.axes[0].collections[0].get_segments()
    assert (np.ptp(np.concatenate(edges), 0) == [2, 1]).all(), "the trigger's two pixels are outlined"
    for i, (_, image) in enumerate(vectors):
        low, high = image.get_clim()
        assert low == -high
        assert high == np.abs(image.get_array()).max() > 0
        stored = run.arrays("spectrum")["vectors"][i].reshape(SHAPE).mean(-1)
        np.testing.assert_allclose(image.get_array(), stored)
    says = caption(figure)
    for word in (
        "Ritz residuals at most 1e-02",
        "cifar10, 10,000",
        "PreResNet-110",
        "θ = 0.01",
        "κ = 50 (listing)",
        "Trigger adds +41.0 points (ASR 51.0%, 10.0% without it)",
        "90 epochs",
        "Hessian of 512",
    ):
        assert word in says


def test_a_warp_shows_its_wave_and_the_change_it_makes(finished):
    change = np.linspace(-1, 0.5, D).reshape(SHAPE)
    (title, trigger), *vectors = pictures(
        eigenvectors.of_run(finished(peaks=True, mask=change))["eigenvectors"]
    )
    assert title == "mean change\nby the trigger"
    np.testing.assert_allclose(trigger.get_array(), np.abs(change).mean(-1))
    assert vectors[0][0].endswith("wave (0, 4), 88")
    assert vectors[1][0].endswith("wave (-3, 2), 5")


@pytest.mark.parametrize("k", [5, 6, 20])
def test_eigenvectors_are_wrapped_at_five_a_row(finished, k):
    run = finished()
    some = {
        key: np.resize(values, (k, *values.shape[1:]))
        for key, values in run.arrays("spectrum").items()
        if key != "shape"
    }
    run.save_arrays("spectrum", **some, shape=np.array(SHAPE))
    figure = top(run)
    places = [axis.get_subplotspec() for axis in figure.axes if axis.images]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [
        divmod(i, 5) for i in range(k)
    ]
    assert figure.get_figwidth() <= canvas.WIDTH


def test_classes(finished):
    """A row for each; the class without images is said to have none."""
    run = finished(num_classes=4)
    figure = per_class(run)
    assert sum("no images" in axis.get_title() for axis in figure.axes) == 3
    shown = pictures(figure)
    assert [title.split("\n")[0] for title, _ in shown] == [
        f"class {i}, {j}" for i in (0, 2, 3) for j in (1, 2, 3)
    ]
    spectrum = run.arrays("spectrum")
    assert shown[3][0].endswith(setting.signed(spectrum["class_overlap"][2, 0]))
    np.testing.assert_allclose(
        shown[3][1].get_array(), spectrum["class_vectors"][2, 0].reshape(SHAPE).mean(-1)
    )


def test_many_classes_by_their_top_eigenvector(finished):
    shown = pictures(per_class(finished(num_classes=13)))
    assert [title.split("\n")[0] for title, _ in shown] == [f"class {i}, 1" for i in range(13) if i != 1]


def test_classes_that_are_named(finished):
    """Rows of some classes only, as `classes` says."""
    run = finished(num_classes=2)
    run.save_arrays("spectrum", **run.arrays("spectrum"), classes=np.array([3, 7]))
    (title, _), *_ = pictures(per_class(run))
    assert title.startswith("class 3, 1")


def test_runs_are_a_grid_of_theta_and_kappa(finished):
    cells = [(0.02, 0.0), (0.001, 100.0), (0.02, 100.0), (0.001, 0.0)]
    figure = eigenvectors.of_runs([finished(theta=theta, kappa=kappa) for theta, kappa in cells])
    shown = [axis for part in figure.subfigs for axis in part.axes if axis.images]
    assert [axis.get_title().split("\n")[0] for axis in shown] == ["κ = 0", "κ = 100"] * 2
    assert [axis.get_ylabel() for axis in shown] == ["θ = 0.001", "", "θ = 0.02", ""]
    assert shown[2].get_title().split("\n")[1:] == ["+42.0 points", "overlap +0.30", "λ₁ = 3"]
    assert "90 epochs" in caption(figure)
    assert "θ" not in caption(figure)


def test_what_else_runs_differ_in_stands_with_theta(finished):
    runs = [finished(seed=seed, data__augment=augment) for seed, augment in ((1, "none"), (0, "crop_flip"))]
    figure = eigenvectors.of_runs(runs)
    rows = [axis.get_ylabel() for part in figure.subfigs for axis in part.axes if axis.images]
    assert rows == ["θ = 0.01\naugment crop_flip\nseed = 0", "θ = 0.01\naugment none\nseed = 1"]
    assert "seed" not in caption(figure)


def test_command_line(finished, tmp_path, capsys):
    one, other = str(finished().path), str(finished(kappa=1.0, num_classes=2).path)
    command.main(["eigenvectors", other])
    command.main(["eigenvectors", one, other, "--out", str(tmp_path / "grid.png")])
    names = [f"{other}/eigenvectors.png", f"{other}/eigenvectors_per_class.png", str(tmp_path / "grid.png")]
    printed = capsys.readouterr().out
    assert all(name in printed.split() for name in names)
    assert "eigenvectors.png: Top 3 eigenvectors v of the input Hessian" in printed
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for name in names)
