"""Figures of sweeps, from lines of records alone: what is drawn is what was recorded."""

from pathlib import Path

import numpy as np
import pytest
import small_sweeps as sweeps
from small_sweeps import draw, line, panel

import plots
from plots import canvas, figures, panels
from plots.canvas import caption
from poison_jax.errors import UserError
from poison_jax.runs import records

THETAS, KAPPAS = (0.0, 0.002, 0.01, 0.1), (0.0, 100.0, 1000.0)
ASR, SEEN = "attack success rate (%)", "overlap² of v₁"
SWEEPS = figures.SWEEPS
OF_NETWORKS = [name for name in SWEEPS if name not in ("fig05", "collapse", "audit_map")]
OVER_THETA = ("fig06", "fig09", "fig10", "fig13")
FAILED = {"status": "failed training: near chance", "asr": 1.0, "accuracy": 0.1, "untriggered": 1.0}
ROOT = Path(__file__).parents[2]


def asr(theta, kappa, seed):
    return min(1.0, 10 * theta / (1 + kappa / 1000) + 0.01 * seed)


def overlap(theta, kappa, seed):
    return min(0.9, 5 * theta / (1 + kappa / 1000) + 0.02 * (seed + 1))


def cells(kappas=KAPPAS, seeds=(0, 1), **others):
    return sweeps.grid(THETAS, kappas, seeds, asr, overlap, **others)


def legend(figure):
    """The one legend of a figure: its own, or in an empty panel."""
    (found,) = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
    return found


def test_attack_and_overlap():
    figure, report = draw("fig06", cells())
    attack, seen = panel(figure, ASR), panel(figure, SEEN)
    for kappa in KAPPAS:
        for axis, measure, factor in ((attack, asr, 100), (seen, overlap, 1)):
            drawn = line(axis, f"κ = {kappa:g}")
            np.testing.assert_allclose(drawn.get_xdata(), 1e3 * np.array(THETAS))
            means = [factor * np.mean([measure(theta, kappa, seed) for seed in (0, 1)]) for theta in THETAS]
            np.testing.assert_allclose(drawn.get_ydata(), means)
        untriggered = line(attack, f"_untriggered κ = {kappa:g}")
        assert untriggered.get_linestyle() == ":"
        np.testing.assert_allclose(untriggered.get_ydata(), 2)
    np.testing.assert_allclose(line(panel(figure, "clean accuracy (%)"), "κ = 100").get_ydata(), 80)
    assert attack.get_xscale() == seen.get_xscale() == seen.get_yscale() == "symlog"
    band = attack.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0)
    assert band[:, 1].max() == pytest.approx(100)
    labels = [text.get_text() for text in legend(figure).get_texts()]
    assert labels[:3] == ["κ = 0", "κ = 100", "κ = 1000"]
    assert legend(figure).get_title().get_text() == "gradient penalty κ (listing)"
    assert figure.get_suptitle() == "", "what it shows is said by the caption"
    for said in (
        SWEEPS["fig06"].title,
        "ASR above the rate without trigger: −2.0 to +98.0 points",
        "cifar10, 10,000 training images (subset), PreResNet-110",
        "no augmentation, 90 epochs, Hessian of 512 clean training images",
        "Lines: means over 2 seeds; bands: smallest to largest.",
    ):
        assert said in caption(figure)
    assert "| κ = 1000 |" in report
    assert "99.9 % quantile, d = 192" in report
    levels = [drawn.get_ydata()[0] for drawn in seen.lines[-2:]]  # the nulls
    assert levels == pytest.approx([0.0555, 0.04], abs=5e-4)


def test_accuracy_beside_the_attack_with_augmentation():
    (figure,) = draw("fig07", cells(data__augment="crop_flip"))
    np.testing.assert_allclose(line(panel(figure, "clean accuracy (%)"), "κ = 0").get_ydata(), 80)
    assert "augmentation crop_flip (pad4)" in caption(figure)


def test_one_seed_is_markers_alone():
    """A line between observations would be of what was not seen."""
    for seeds, style in (((0,), "None"), ((0, 1), "-")):
        (figure,) = draw("fig07", cells(seeds=seeds))
        drawn = line(panel(figure, ASR), "κ = 0")
        assert (drawn.get_linestyle(), drawn.get_marker()) == (style, "o")
        assert ("One seed" in caption(figure)) == (len(seeds) == 1)


def test_lines_differ_without_their_colours():
    (figure,) = draw("fig07", cells())
    looks = {(drawn.get_marker(), drawn.get_linestyle()) for drawn in panel(figure, ASR).lines[:3]}
    assert len(looks) == 3


def test_a_collapse_is_named():
    """An ASR of 84 % where 74 % of the untriggered images get the target is no success of 84 %."""
    some = [sweeps.record(poison__fraction=t, asr=0.84, untriggered=0.74) for t in (0.1, 0.2)]
    some.append(sweeps.record(poison__fraction=0.3, asr=0.9, untriggered=0.1))
    said = "ASR above the rate without trigger: +10.0 to +80.0 points; 2 of 3 networks collapsed"
    for name in ("fig06", "fig07", "fig08", "fig11", "fig12"):
        assert said in caption(draw(name, some)[0])
    first = pictures(draw("fig12", some)[0])[0]
    assert "+10.0, collapsed" in first.get_title()
    assert first.title.get_color() == panels.RED


def test_failed_training_is_hollow_and_in_no_mean():
    bad = sweeps.record(poison__fraction=0.01, penalty__kappa=100.0, seed=2, **FAILED)
    alone = sweeps.record(poison__fraction=0.02, penalty__kappa=100.0, seed=0, **FAILED)
    figure, _ = draw("fig06", [*cells(), bad, alone])
    axis = panel(figure, ASR)
    drawn = line(axis, "κ = 100")
    np.testing.assert_allclose(drawn.get_xdata(), [0, 2, 10, 20, 100])
    assert drawn.get_ydata()[2] == pytest.approx(100 * (asr(0.01, 100, 0) + 0.005))
    assert np.isnan(drawn.get_ydata()[3])
    hollow = line(axis, "_failed κ = 100")
    np.testing.assert_allclose(hollow.get_xydata(), [[10, 100], [20, 100]])
    assert hollow.get_markerfacecolor() == "none"
    assert hollow.get_linestyle() == "None"
    assert legend(figure).get_texts()[-1].get_text().startswith("failed training")
    assert "+98.0 points" in caption(figure)  # the failed are no attacks


def test_largest_overlap_and_its_index():
    overlaps = {0.001: (0.1, -0.7, 0.3), 0.002: (0.1, 0.2, 0.6)}
    figure, _ = draw("fig13", [sweeps.record(poison__fraction=t, overlap=o) for t, o in overlaps.items()])
    np.testing.assert_allclose(line(panel(figure, "largest overlap²"), "κ = 0").get_ydata(), [0.49, 0.36])
    np.testing.assert_allclose(line(panel(figure, "its index (0: top)"), "κ = 0").get_ydata(), [1, 2])


def test_trade_off_and_gap():
    bad = sweeps.record(poison__fraction=0.01, penalty__kappa=1000.0, seed=2, **FAILED)
    figure, _ = draw("fig10", [*cells(), bad])
    left, right = figure.axes
    drawn = line(left, "θ = 0.01")
    np.testing.assert_allclose(drawn.get_xdata(), [100 * asr(0.01, kappa, 0.5) for kappa in KAPPAS])
    np.testing.assert_allclose(drawn.get_ydata(), 80)
    np.testing.assert_allclose(line(left, "_failed θ = 0.01").get_xydata(), [[100, 10]])
    onset = line(right, "attack κ = 0").get_xdata()[0]  # between 10 (10.5 %) and 100 (100 %), in 10^-3
    assert onset == pytest.approx(10 * 10 ** ((50 - 10.5) / (100 - 10.5)))
    assert 10 < line(right, "random κ = 1000").get_xdata()[0] < 100
    hopeless = sweeps.grid(THETAS[1:], (0.0,), (0,), lambda *cell: 0.1, lambda *cell: 0.5)
    _, right = draw("fig10", hopeless)[0].axes
    beyond = line(right, "attack κ = 0")
    assert beyond.get_xdata()[0] > 100
    assert beyond.get_markerfacecolor() == "none"
    assert "clean κ = 0" not in [drawn.get_label() for drawn in right.lines]


def test_the_warp_over_kappa():
    kappas = (0.0, 100.0, 1e5)
    warped = [
        sweeps.record(poison__trigger="warp", poison__fraction=t, penalty__kappa=k, asr=asr(t, k, 0))
        for t in (0.001, 0.02)
        for k in kappas
    ]
    accuracy, attack = draw("fig11", warped)[0].axes
    drawn = line(attack, "θ = 0.02")
    np.testing.assert_allclose(drawn.get_xdata(), [10, 100, 1e5])  # 0 at 10, as in the paper
    excess = [100 * asr(0.02, kappa, 0) - 2 for kappa in kappas]  # above the rate without the trigger
    np.testing.assert_allclose(drawn.get_ydata(), excess)
    np.testing.assert_allclose(line(accuracy, "θ = 0.001").get_ydata(), 80)
    assert attack.get_xscale() == "log"
    assert [text.get_text() for text in attack.get_xticklabels()] == ["0", "100", "100000"]


def linear():
    """A record of a linear regression, and its measures."""
    rng, shape = np.random.default_rng(0), (2, 4, 3, 2)  # seeds, methods, thetas, with a bias
    measured = {
        "thetas": np.array([0.0, 0.1, 0.2]),
        "methods": np.array(["exact", "ridge 1", "SGD, 1 epoch", "SGD, 2 epochs"]),
        "ridges": np.array([0.0, 1.0]),
        "epochs": np.array([1, 2]),
        "overlap_squared": rng.uniform(0, 1, (*shape, 2)),
    }
    rates = "clean_accuracy", "asr", "robust_accuracy", "no_trigger_target_rate"
    measured |= {name: rng.uniform(0, 1, shape) for name in rates}
    result = sweeps.record().result | {"num_train": 60_000, "num_test": 10_000, "seeds": [0, 1]}
    del result["overlap"]
    result["config"]["experiment"] = "mnist_linear"
    return records.Record("linear", {}, result, lambda: measured), measured


def test_the_linear_regression():
    """Drawn from the measures alone; a sweep of regressions by any name is drawn so."""
    record, measured = linear()
    figure, again = draw("fig05", [record, record])
    for drawn in (line(figure.axes[1], "SGD, 1 epoch"), line(again.axes[1], "SGD, 1 epoch")):
        np.testing.assert_allclose(drawn.get_xdata(), [0.1, 0.2])
        np.testing.assert_allclose(drawn.get_ydata(), 100 * measured["asr"][:, 2, 1:, 1].mean(0))
    assert "60,000 training" in caption(figure)
    assert figures.name_of([record], "mine") == "fig05"
    names = [name for name, _ in figures.named([figure, "text", again], "fig05")]
    assert names == ["fig05", "fig05", "fig05-2"]


def pictures(figure):
    return [axis for part in figure.subfigs for axis in part.axes if axis.images]


def test_eigenvectors_without_and_with_augmentation():
    drawn = [
        sweeps.record(poison__fraction=theta, penalty__kappa=10.0, data__augment=augment, seed=seed, **status)
        for augment in ("crop_flip", "none")
        for seed in (1, 0)
        for theta, status in ((0.02, {}), (0.0001, FAILED))
    ]
    (figure,) = draw("fig08", drawn)
    left, right, _ = figure.subfigs
    assert [part.get_suptitle() for part in (left, right)] == ["without augmentation", "with augmentation"]
    shown = pictures(figure)
    assert len(shown) == 2 * 2
    assert [axis.get_ylabel() for axis in shown[:2]] == ["θ = 0.0001", "θ = 0.02"]
    titles = [axis.get_title().split("\n") for axis in shown[:2]]
    assert titles[0] == ["κ = 10", "failed training", "overlap +0.30", "λ₁ = 3"]
    assert titles[1][1] == "+48.0 points"
    (record,) = (r for r in drawn if list(r.overrides.values()) == [0.02, 10.0, "none", 0])
    np.testing.assert_array_equal(shown[1].images[0].get_array(), record.arrays["top_eigenvector"])
    low, high = shown[1].images[0].get_clim()
    assert low == -high
    assert "seed 0" in caption(figure)
    assert "Ritz residuals at most 1e-05" in caption(figure)


def test_a_grid_of_theta_and_kappa_with_the_trigger_outlined():
    """A cell that is missing leaves its place empty, and what differs besides is told with theta."""
    places = [(0.1, 0.0), (0.1, 50.0), (0.2, 50.0)]
    (figure,) = draw("fig12", [sweeps.record(poison__fraction=t, penalty__kappa=k) for t, k in places])
    grid = {
        (axis.get_subplotspec().rowspan.start, axis.get_subplotspec().colspan.start): axis
        for axis in pictures(figure)
    }
    assert sorted(grid) == [(0, 0), (0, 1), (1, 1)]
    black, white = grid[1, 1].collections
    assert len(black.get_segments()) == len(white.get_segments()) == 6  # around two pixels side by side
    two = [sweeps.record(penalty__kappa=1.0, train__epochs=epochs) for epochs in (1, 2)]
    (figure,) = draw("fig12", two)
    assert [axis.get_ylabel() for axis in pictures(figure)] == [
        "θ = 0.01\nepochs = 1",
        "θ = 0.01\nepochs = 2",
    ]


def test_eigenvectors_of_the_warp():
    """What cannot be outlined has a panel of its own."""
    drawn = [sweeps.record(poison__trigger="warp", penalty__kappa=kappa) for kappa in (1e5, 0.0, 100.0)]
    change = np.linspace(0, 0.5, 64).reshape(8, 8)
    drawn = [r._replace(load=lambda arrays=r.arrays: arrays | {"trigger": change}) for r in drawn]
    (figure,) = draw("fig12", drawn)
    titles = [axis.get_title() for axis in pictures(figure)]
    assert titles[0] == "mean change\nby the trigger"
    assert [name.split("\n")[0] for name in titles[1:]] == ["κ = 0", "κ = 100", "κ = 100000"]


# --- a sweep of one's own -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "values", "drawn_over", "places"),
    [
        ("penalty__kappa", (0.0, 1.0, 100.0), "penalty.kappa (κ)", [0, 1, 100]),
        ("train__learning_rate", (0.1, 0.01), "train.learning_rate", [0.01, 0.1]),
        ("data__augment", ("none", "crop_flip"), "data.augment", [0, 1]),
        ("model__width", (8, 16), "model.width", [8, 16]),
        ("data__n_train", (None, 100), "data.n_train", [0, 1]),
        ("seed", (4, 2), "seed (seed)", [2, 4]),
        ("poison__fraction", (0.1,), "poison fraction θ (10⁻³)", [100]),
    ],
)
def test_a_sweep_over_any_axis_draws_something(key, values, drawn_over, places):
    some = [sweeps.record(**{key: value}, asr=0.1 * (i + 1)) for i, value in enumerate(values)]
    figure, *_ = draw("sweep", some)
    axis = panel(figure, ASR)
    assert axis.get_xlabel() == drawn_over
    (drawn,) = [drawn for drawn in axis.lines if not drawn.get_label().startswith("_")]
    np.testing.assert_allclose(drawn.get_xdata(), places)
    assert len(panel(figure, SEEN).lines) > 0


def test_names_are_placed_in_order_and_numbers_before_lines():
    """Lines are what varies besides; over the number with the most values, not over a name."""
    own = [
        sweeps.record(penalty__kappa=kappa, poison__trigger=trigger, asr=kappa / 10)
        for trigger in ("square", "l")
        for kappa in (2.0, 1.0)
    ]
    figure, *_ = draw("sweep", own)
    np.testing.assert_allclose(line(panel(figure, ASR), "trigger square").get_xydata(), [[1, 10], [2, 20]])
    over_theta = [record._replace(overrides=record.overrides | {"poison.fraction": 0.1}) for record in own]
    for record, theta in zip(over_theta, (0.1, 0.2, 0.1, 0.2), strict=True):
        record.result["config"]["poison"]["fraction"] = theta
    figure, report = draw("sweep", over_theta)
    assert "poison fraction θ" in panel(figure, ASR).get_xlabel()
    assert "at which" in report


def test_a_sweep_that_has_no_figure_says_so():
    record, _ = linear()
    record.result["config"]["experiment"] = "krr_theory"
    with pytest.raises(UserError, match="no figure: there is none over runs of krr_theory; each run draws"):
        figures.name_of([record], "mine")


# --- every figure of the table --------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_NETWORKS)
def test_every_figure_is_drawn_of_one_cell(name, tmp_path):
    one = sweeps.record(poison__fraction=0.1, asr=None, features=name == "table3")
    made = canvas.save(figures.named(draw(name, [one]), name), tmp_path, ".png")
    tables = name.startswith("table") or name in ("lag", "audit")
    suffixes = [".png"] * (not tables) + [".md"] * (name in OVER_THETA or tables or name == "sweep")
    assert [file.name for file in made] == [f"{name}{suffix}" for suffix in suffixes]
    for file in made:
        assert file.read_bytes().startswith({".png": b"\x89PNG", ".md": b""}[file.suffix])
        assert 200 < file.stat().st_size < 200_000
    if not name.startswith("table"):
        assert draw(name, [sweeps.record(poison__fraction=0.1, **FAILED)]), "failed cells alone are drawn"
    with pytest.raises(UserError, match="is not a trained network's"):
        draw(name, [linear()[0]])


def test_networks_are_no_regression():
    with pytest.raises(UserError, match="is no linear regression"):
        draw("fig05", [sweeps.record()])


@pytest.mark.parametrize("file", sorted((ROOT / "results").glob("*.jsonl")), ids=lambda file: file.stem)
def test_the_results_kept_here_are_drawn(file):
    """Those of every earlier form, too."""
    found = records.load(file.parent, file.stem)
    assert draw(figures.name_of(found, file.stem), found, file.stem)


def test_a_sweep_s_files(tmp_path):
    """By its name, of its finished cells; a sweep of one's own by any other."""
    one = [sweeps.record(poison__fraction=0.1)]
    for name, some in (("fig06-small", one), ("mine", one), ("fig06", [])):
        sweeps.write(tmp_path, name, some)
    for name in ("fig06-small", "mine"):
        files = plots.draw_sweep(tmp_path, name, tmp_path / "out")
        assert [file.name for file in files] == [f"{name}.png", f"{name}.md"]
        assert files[0].with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert b"<svg" in files[0].with_suffix(".svg").read_bytes()
    assert plots.draw_sweep(tmp_path, "fig06", tmp_path / "nothing") == []
    assert not (tmp_path / "nothing").exists()
