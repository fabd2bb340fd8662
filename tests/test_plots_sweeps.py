"""The paper's figures, drawn from lines of records alone: what is drawn is what was recorded."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import small_sweeps as sweeps
from matplotlib.figure import Figure

import plots
from plots import fig05, fig06, fig13
from poison_jax.errors import UserError
from poison_jax.runs import records

THETAS, KAPPAS = (0.0, 0.002, 0.01, 0.1), (0.0, 100.0, 1000.0)
OVER_THETA = ("fig06", "fig09", "fig10", "fig13")


def asr(theta, kappa, seed):
    return min(1.0, 10 * theta / (1 + kappa / 1000) + 0.01 * seed)


def overlap(theta, kappa, seed):
    return min(0.9, 5 * theta / (1 + kappa / 1000) + 0.02 * (seed + 1))


def cells(kappas=KAPPAS, seeds=(0, 1), **others):
    return sweeps.grid(THETAS, kappas, seeds, asr, overlap, **others)


FAILED = {"status": "failed training: near chance", "asr": 1.0, "accuracy": 0.1, "untriggered": 1.0}


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, in order; their files are empty: writing takes most of the time."""
    drawn, close = [], plt.close
    monkeypatch.setattr(plt, "close", drawn.append)
    monkeypatch.setattr(Figure, "savefig", lambda *_, **options: None)
    yield drawn
    close("all")


def panel(figure, name):
    """The panel whose y axis has this name."""
    return next(axis for axis in figure.axes if axis.get_ylabel() == name)


def line(axis, label):
    (found,) = (line for line in axis.lines if line.get_label() == label)
    return found


def names(files):
    assert all(file.exists() for file in files)
    return [file.name for file in files]


@pytest.mark.parametrize("name", ["fig06", "fig09"])
def test_attack_and_overlap(name, tmp_path, figures, capsys):
    script = importlib.import_module(f"plots.{name}")
    script.main(["--runs", str(sweeps.write(tmp_path, name, cells())), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    files = [Path(file) for file in printed.splitlines()[0].split()]
    assert names(files) == [f"{name}.png", f"{name}.pdf", f"{name}.md"]
    assert files[2].read_text() in printed
    (figure,) = figures
    attack, seen = panel(figure, "attack success rate (%)"), panel(figure, "overlap² of v₁ with the trigger")
    for kappa in KAPPAS:
        for axis, measure, factor in ((attack, asr, 100), (seen, overlap, 1)):
            drawn = line(axis, f"κ = {kappa:g}")
            np.testing.assert_allclose(drawn.get_xdata(), 1e3 * np.array(THETAS))
            means = [factor * np.mean([measure(theta, kappa, seed) for seed in (0, 1)]) for theta in THETAS]
            np.testing.assert_allclose(drawn.get_ydata(), means)
        untriggered = line(attack, f"_untriggered κ = {kappa:g}")
        assert untriggered.get_linestyle() == ":"
        np.testing.assert_allclose(untriggered.get_ydata(), 2)
    (inset,) = seen.child_axes
    np.testing.assert_allclose(line(inset, "κ = 100").get_ydata(), 80)
    band = attack.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0)
    assert band[:, 1].max() == pytest.approx(100)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:3] == ["κ = 0", "κ = 100", "κ = 1000"]
    assert figure.legends[0].get_title().get_text() == "gradient penalty κ\n(listing)"
    says = " ".join(figure.get_suptitle().split())
    for word in ("cifar10, 10,000 training images (subset)", "PreResNet-110", "90 epochs", "no augmentation"):
        assert word in says
    assert "Hessian of 512 clean training images" in says
    assert "mean over 2 seeds, range: smallest to largest" in says
    (words,) = (text.get_text() for axis in figure.axes for text in axis.texts)
    assert "κ = 1000" in words
    assert "99.9 % quantile, d = 192" in words


def test_the_nulls_are_drawn(tmp_path, figures):
    fig06.draw(cells(), tmp_path, "fig06")
    levels = [line.get_ydata()[0] for line in panel(figures[0], "overlap² of v₁ with the trigger").lines[-2:]]
    assert levels == pytest.approx([0.055, 0.04], abs=5e-4)


def test_failed_training_is_hollow_and_in_no_mean(tmp_path, figures):
    bad = sweeps.record(poison__fraction=0.01, penalty__kappa=100.0, seed=2, **FAILED)
    alone = sweeps.record(poison__fraction=0.02, penalty__kappa=100.0, seed=0, **FAILED)
    fig06.draw([*cells(), bad, alone], tmp_path, "fig06")
    axis = panel(figures[0], "attack success rate (%)")
    drawn = line(axis, "κ = 100")
    np.testing.assert_allclose(drawn.get_xdata(), [0, 2, 10, 20, 100])
    assert drawn.get_ydata()[2] == pytest.approx(100 * (asr(0.01, 100, 0) + 0.005))
    assert np.isnan(drawn.get_ydata()[3])
    hollow = line(axis, "_failed κ = 100")
    np.testing.assert_allclose(hollow.get_xydata(), [[10, 100], [20, 100]])
    assert hollow.get_markerfacecolor() == "none"
    assert hollow.get_linestyle() == "None"
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels[-1].startswith("failed training")


def test_an_inset_covers_no_line(tmp_path, figures):
    """Where no corner is empty there is room made above, and the axis still ends at its own range."""
    levels, thetas = np.linspace(0, 1, 5), (0.001, 0.002, 0.003)
    full = sweeps.grid(thetas, levels, (0,), lambda *cell: cell[1], lambda *cell: cell[1])
    fig06.draw(full, tmp_path, "fig06")
    fig13.draw(full, tmp_path, "fig13")
    for figure, name in zip(
        figures, ("overlap² of v₁ with the trigger", "attack success rate (%)"), strict=True
    ):
        axis = panel(figure, name)
        (inset,) = axis.child_axes
        figure.canvas.draw()
        (_, low), _ = axis.transData.inverted().transform(inset.get_tightbbox().get_points())
        most = max(np.max(drawn.get_ydata()) for drawn in axis.lines)
        assert low > most == pytest.approx(max(axis.get_yticks()))
        assert most in (1, 100)


def test_augmentation(tmp_path, figures):
    fig07 = importlib.import_module("plots.fig07")
    sweeps.write(tmp_path, "fig07", cells(data__augment="crop_flip"))
    fig07.main(["--runs", str(tmp_path), "--out", str(tmp_path)])
    accuracy = panel(figures[0], "clean accuracy (%)")
    np.testing.assert_allclose(line(accuracy, "κ = 0").get_ydata(), 80)
    assert "augmentation crop_flip (pad4)" in " ".join(figures[0].get_suptitle().split())


def test_largest_overlap_and_its_index(tmp_path, figures):
    overlaps = {0.001: (0.1, -0.7, 0.3), 0.002: (0.1, 0.2, 0.6)}
    drawn = [sweeps.record(poison__fraction=t, overlap=o) for t, o in overlaps.items()]
    assert names(fig13.draw(drawn, tmp_path, "fig13")) == ["fig13.png", "fig13.pdf", "fig13.md"]
    np.testing.assert_allclose(line(panel(figures[0], "largest overlap²"), "κ = 0").get_ydata(), [0.49, 0.36])
    index = line(panel(figures[0], "its index (0: top)"), "κ = 0")
    np.testing.assert_allclose(index.get_ydata(), [1, 2])
    assert len(panel(figures[0], "attack success rate (%)").child_axes) == 1


def test_trade_off_and_gap(tmp_path, figures):
    fig10 = importlib.import_module("plots.fig10")
    bad = sweeps.record(poison__fraction=0.01, penalty__kappa=1000.0, seed=2, **FAILED)
    files = fig10.draw([*cells(), bad], tmp_path, "fig10")
    assert names(files) == ["fig10.png", "fig10.pdf", "fig10.md"]
    left, right = figures[0].axes
    drawn = line(left, "θ = 0.01")
    np.testing.assert_allclose(drawn.get_xdata(), [100 * asr(0.01, kappa, 0.5) for kappa in KAPPAS])
    np.testing.assert_allclose(drawn.get_ydata(), 80)
    np.testing.assert_allclose(line(left, "_failed θ = 0.01").get_xydata(), [[100, 10]])
    onset = line(right, "attack κ = 0").get_xdata()[0]  # between 10 (10.5 %) and 100 (100 %), in 10^-3
    assert onset == pytest.approx(10 * 10 ** ((50 - 10.5) / (100 - 10.5)))
    right_of_all = line(right, "random κ = 1000").get_xdata()[0]
    assert 10 < right_of_all < 100
    hopeless = sweeps.grid(THETAS[1:], (0.0,), (0,), lambda *cell: 0.1, lambda *cell: 0.5)
    fig10.draw(hopeless, tmp_path, "fig10")
    beyond = line(figures[1].axes[1], "attack κ = 0")
    assert beyond.get_xdata()[0] > 100
    assert beyond.get_markerfacecolor() == "none"
    assert "clean κ = 0" not in [drawn.get_label() for drawn in figures[1].axes[1].lines]


def test_the_warp_over_kappa(tmp_path, figures):
    fig11 = importlib.import_module("plots.fig11")
    warped = [
        sweeps.record(
            poison__trigger="warp", poison__fraction=theta, penalty__kappa=kappa, asr=asr(theta, kappa, 0)
        )
        for theta in (0.001, 0.02)
        for kappa in (0.0, 100.0, 1e5)
    ]
    sweeps.write(tmp_path, "fig11", warped)
    fig11.main(["--runs", str(tmp_path), "--out", str(tmp_path)])
    accuracy, attack = figures[0].axes
    drawn = line(attack, "θ = 0.02")
    np.testing.assert_allclose(drawn.get_xdata(), [10, 100, 1e5])  # 0 at 10, as in the paper
    np.testing.assert_allclose(drawn.get_ydata(), [100 * asr(0.02, kappa, 0) for kappa in (0, 100, 1e5)])
    np.testing.assert_allclose(line(accuracy, "θ = 0.001").get_ydata(), 80)
    assert attack.get_xscale() == "log"
    assert [text.get_text() for text in attack.get_xticklabels()] == ["0", "100", "100000"]


def test_the_linear_regression(tmp_path, figures):
    """Drawn from the measures alone, by the function that draws a run's."""
    rng = np.random.default_rng(0)
    shape = 2, 4, 3, 2  # seeds, methods, thetas, with a bias
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
    sweeps.write(tmp_path, "fig05", [records.Record("linear", {}, result, lambda: measured)])
    fig05.main(["--runs", str(tmp_path), "--out", str(tmp_path)])
    drawn = line(figures[0].axes[1], "SGD, 1 epoch")
    np.testing.assert_allclose(drawn.get_xdata(), [0.1, 0.2])
    np.testing.assert_allclose(drawn.get_ydata(), 100 * measured["asr"][:, 2, 1:, 1].mean(0), rtol=5e-3)
    assert "60,000 training" in figures[0].get_suptitle()


def pictures(figure):
    return [axis for part in figure.subfigs for axis in part.axes if axis.images]


def test_eigenvectors_without_and_with_augmentation(tmp_path, figures):
    fig08 = importlib.import_module("plots.fig08")
    drawn = [
        sweeps.record(poison__fraction=theta, penalty__kappa=10.0, data__augment=augment, seed=seed, **status)
        for augment in ("crop_flip", "none")
        for seed in (1, 0)
        for theta, status in ((0.02, {}), (0.0001, FAILED))
    ]
    assert names(fig08.draw(drawn, tmp_path, "fig08")) == ["fig08.png", "fig08.pdf"]
    left, right, _ = figures[0].subfigs
    assert [part.get_suptitle() for part in (left, right)] == ["without augmentation", "with augmentation"]
    panels = pictures(figures[0])
    assert len(panels) == 2 * (1 + 2)
    assert panels[0].get_title() == "trigger"
    titles = [axis.get_title().split("\n") for axis in panels[1:3]]
    assert titles[0] == ["θ = 0.1·10⁻³, κ = 10", "λ₁ = 3, residual 1e-05", "overlap +0.30, failed training"]
    assert titles[1][2] == "overlap +0.30, ASR 50.0%"
    shown = panels[2].images[0]
    (record,) = (r for r in drawn if list(r.overrides.values()) == [0.02, 10.0, "none", 0])
    np.testing.assert_array_equal(shown.get_array(), record.arrays["top_eigenvector"])
    low, high = shown.get_clim()
    assert low == -high
    assert "seed 0" in " ".join(figures[0].get_suptitle().split())


def test_eigenvectors_of_the_warp(tmp_path, figures):
    fig12 = importlib.import_module("plots.fig12")
    drawn = [sweeps.record(poison__trigger="warp", penalty__kappa=kappa) for kappa in (1e5, 0.0, 100.0)]
    assert names(fig12.draw(drawn, tmp_path, "fig12")) == ["fig12.png", "fig12.pdf"]
    titles = [axis.get_title() for axis in pictures(figures[0])]
    assert titles[0] == "mean change\nby the trigger"
    assert [title.split("\n")[0][-6:].split()[-1] for title in titles[1:]] == ["0", "100", "100000"]


@pytest.mark.parametrize("name", [name for name in plots.PAPER if name not in ("fig05", "table3")])
def test_every_script_writes_its_files_of_one_cell(name, tmp_path, capsys):
    sweeps.write(tmp_path, f"{name}-small", [sweeps.record(poison__fraction=0.1, asr=None)])
    importlib.import_module(f"plots.{name}").main(["--runs", str(tmp_path), "--out", str(tmp_path / "out")])
    suffixes = {".png": b"\x89PNG", ".pdf": b"%PDF"} if name.startswith("fig") else {}
    suffixes |= {".md": b""} if name in (*OVER_THETA, "table1", "table2") else {}
    files = [Path(file) for file in capsys.readouterr().out.splitlines()[0].split()]
    assert files == [tmp_path / "out" / f"{name}{suffix}" for suffix in suffixes]
    for file, start in zip(files, suffixes.values(), strict=True):
        assert file.read_bytes().startswith(start)
        assert 200 < file.stat().st_size < 200_000


@pytest.mark.parametrize("name", ["fig06", "fig08", "fig11", "table1"])
def test_a_sweep_s_files_have_its_name(name, tmp_path, figures):
    sweeps.write(tmp_path, f"{name}-small", [sweeps.record(poison__fraction=0.1)])
    drawn = plots.draw_sweep(tmp_path, f"{name}-small", tmp_path / "out")
    assert {file.stem for file in drawn} == {f"{name}-small"}
    assert {file.suffix for file in drawn} <= {".png", ".pdf", ".md"}


@pytest.mark.parametrize("name", OVER_THETA)
def test_failed_cells_alone_are_drawn(name, tmp_path, figures):
    sweeps.write(tmp_path, name, [sweeps.record(poison__fraction=0.1, **FAILED)])
    assert plots.draw_sweep(tmp_path, name, tmp_path)


@pytest.mark.parametrize("name", plots.PAPER)
def test_an_absent_sweep_is_one_line(name, tmp_path, capsys):
    script = importlib.import_module(f"plots.{name}")
    sweeps.write(tmp_path, "other", cells(kappas=(0.0,), seeds=(0,)))
    for arguments in ([], ["--sweep", "mine"]):
        with pytest.raises(SystemExit) as left:
            script.main(["--runs", str(tmp_path), "--out", str(tmp_path / "out"), *arguments])
        assert left.value.code == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err == (
            f"error: {tmp_path} holds no sweep {arguments[-1] if arguments else name!r} (it holds other): "
            "name the folder of its runs or results\n"
        )
    assert not (tmp_path / "out").exists()


def test_which_sweep_is_drawn(tmp_path, figures):
    """The paper's scale where it is, else the small grid; or the one that is named."""
    for name, theta in (("fig06-small", 0.1), ("mine", 0.2), ("fig06", 0.3)):
        sweeps.write(tmp_path, name, [sweeps.record(poison__fraction=theta)])
        fig06.main(["--runs", str(tmp_path), "--out", str(tmp_path / name)])
    fig06.main(["--runs", str(tmp_path), "--out", str(tmp_path / "named"), "--sweep", "mine"])
    assert (tmp_path / "named" / "fig06.png").exists()
    drawn = [line(panel(f, "attack success rate (%)"), "κ = 0").get_xdata()[0] for f in figures]
    np.testing.assert_allclose(drawn, [100, 100, 300, 200])


@pytest.mark.parametrize("name", [name for name in plots.PAPER if name != "fig05"])
def test_another_experiment_s_records_are_one_line(name, tmp_path):
    other = sweeps.record()
    del other.result["overlap"]
    with pytest.raises(UserError, match="is not a trained network's"):
        importlib.import_module(f"plots.{name}").draw([other], tmp_path, name)


def test_networks_are_no_regression(tmp_path):
    with pytest.raises(UserError, match="is no linear regression"):
        importlib.import_module("plots.fig05").draw([sweeps.record()], tmp_path, "fig05")


def test_a_sweep_of_one_s_own(tmp_path, figures):
    """Over theta if that varies, a line for each value of what else does; otherwise nothing."""
    own = [
        sweeps.record(poison__fraction=theta, poison__trigger=trigger, asr=theta)
        for theta in (0.1, 0.2)
        for trigger in ("square", "l")
    ]
    files = plots.draw_sweep(sweeps.write(tmp_path, "mine", own), "mine", tmp_path / "out")
    assert names(files) == ["mine.png", "mine.pdf", "mine.md"]
    drawn = line(panel(figures[0], "attack success rate (%)"), "trigger square")
    np.testing.assert_allclose(drawn.get_xydata(), [[100, 10], [200, 20]])
    sweeps.write(tmp_path, "kappas", [sweeps.record(penalty__kappa=kappa) for kappa in (0.0, 1.0)])
    sweeps.write(tmp_path, "empty", [])
    sweeps.write(tmp_path, "fig06", [])
    for name in ("kappas", "empty", "fig06"):
        assert plots.draw_sweep(tmp_path, name, tmp_path / "nothing") == []
    assert not (tmp_path / "nothing").exists()


def test_nothing_finished_is_one_line(tmp_path, capsys):
    sweeps.write(tmp_path, "fig06", [])
    with pytest.raises(SystemExit):
        fig06.main(["--runs", str(tmp_path), "--out", str(tmp_path)])
    assert capsys.readouterr().err.startswith("error: no cell of sweep fig06")


def test_the_same_records_are_the_same_bytes(tmp_path):
    one_cell = [sweeps.record(poison__fraction=0.1)]
    first, second = (fig06.draw(one_cell, tmp_path / name, "fig06") for name in "ab")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_as_a_script(tmp_path):
    root = Path(__file__).parent.parent
    sweeps.write(tmp_path, "table2", [sweeps.record()])
    command = [sys.executable, str(root / "plots" / "table2.py"), "--runs", ".", "--out", "out"]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("out/table2.md\n")
    assert (tmp_path / "out" / "table2.md").read_text() in done.stdout
