"""`experiment=krr_theory` in process, on a few digits: its files, its stages, and what it refuses."""

import json

import numpy as np
import pytest

from poison_jax import config as config_lib
from poison_jax import experiments
from poison_jax.errors import UserError
from poison_jax.experiments import statements
from poison_jax.theory import images, report
from poison_jax.theory.entry import Entry

KEYS = ["statement", "setup", "predicted", "measured", "error", "verdict", "note", "kind"]
ENTRIES = [
    Entry("Theorem A.5 (residual): it increases", "two points", 0.02, 0.01, 0.5, "fails", "It falls."),
    Entry("Lemma 1: it is so", "a set-up", 1.0, 1.0, 0.0, "exact", "Always."),
]
STAGES = ("statements", "curve_a", "curve_b", "laws_digits", "approach_digits", "defence_digits")


def tiny(**changes):
    """`group__key=value` changes it."""
    config = config_lib.default()
    settings = {
        "experiment": "krr_theory",
        "name": "krr",
        "poison.trigger": "square",
        "poison.margin": 1,
        "poison.size": 2,
        "krr.data": ("digits",),
        "krr.num_points": 60,
        "krr.num_triggered": 8,
        "krr.lengthscales": (1.0,),
        "krr.ridges": (0.1,),
        "krr.clones": (1, 3),
    }
    config.update_from_flattened_dict(settings)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


@pytest.fixture
def calls(monkeypatch):
    """Two statements and two curves, which take no time; returns the names of those that were evaluated."""
    made = []

    def counted(name, result):
        def call():
            made.append(name)
            return result

        return call

    curves = {name: counted(name, {"x": np.arange(3.0)}) for name in STAGES[1:3]}
    monkeypatch.setattr(statements, "STATEMENTS", [counted(entry.statement, [entry]) for entry in ENTRIES])
    monkeypatch.setattr(statements, "THEOREMS", ())
    monkeypatch.setattr(statements, "CURVES", curves)
    return made


def broken(*_, **__):
    raise RuntimeError("killed")


def contents(path):
    files = (file for file in path.rglob("*") if file.is_file())
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.mark.slow
def test_a_run_that_was_killed_twice(tmp_path, calls, monkeypatch, capsys):
    """Between stages; what was done is not done again. Then the files of the finished run."""
    names = [entry.statement for entry in ENTRIES]
    with monkeypatch.context() as patch:
        patch.setitem(statements.CURVES, "curve_b", broken)
        with pytest.raises(RuntimeError, match="killed"):
            experiments.run(tiny(), tmp_path)
    (path,) = tmp_path.iterdir()
    assert calls == [*names, "curve_a"]
    assert {file.name for file in path.glob("*.npz")} == {"statements.npz", "curve_a.npz"}
    assert not (path / "result.json").exists()

    with monkeypatch.context() as patch:
        patch.setattr(images, "defend", broken)
        with pytest.raises(RuntimeError, match="killed"):
            experiments.run(tiny(), tmp_path)
    assert calls == [*names, "curve_a", "curve_b"]
    assert {file.stem for file in path.glob("*.npz")} == set(STAGES[:5])

    with monkeypatch.context() as patch:
        patch.setattr(images, "sweep", broken)
        patch.setattr(images, "approach", broken)
        patch.setattr(images, "KAPPAS", images.KAPPAS[:2])
        (done,) = experiments.run(tiny(), tmp_path)
    assert done.path == path
    assert len(calls) == 4
    capsys.readouterr()

    # What it left
    assert {file.name for file in path.iterdir()} == {
        *("config.json", "inputs.json", "claims", "theory.json", "corrections.md"),
        *("digests.json", "result.json"),
        *(f"{stage}.npz" for stage in STAGES),
    }
    rows = json.loads((path / "theory.json").read_text())
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert [Entry(**row) for row in rows] == ENTRIES
    assert (path / "corrections.md").read_text() == report.markdown(ENTRIES)
    laws, result = done.arrays("laws_digits"), done.result()
    assert laws["efficacy"].shape == laws["exact_spike"].shape == (1, 1, 2, 8)
    np.testing.assert_allclose(laws["exact_efficacy"], laws["efficacy"], rtol=1e-8)
    assert done.arrays("approach_digits")["full"].shape == (3, len(images.STEPS))
    # As many different poisons as clones; all of the clean points, being fewer than a thousand.
    np.testing.assert_array_equal(done.arrays("defence_digits")["label"], [1.0, 0.1, 3, 60])
    assert (result["status"], result["statements"]) == ("ok", 2)
    assert [result[verdict] for verdict in ("exact", "approximate", "misprint", "fails")] == [1, 0, 0, 1]
    assert result["images"] == {"digits": images.summary(laws)}
    assert result["config"] == done.config()
    assert result["wall_seconds"] > 0
    assert {"versions", "device"} <= result.keys()

    # Again
    before = contents(path)
    (again,) = experiments.run(tiny(data__dir="/elsewhere", penalty__kappa=3.0), tmp_path)
    assert again.path == path
    assert contents(path) == before
    assert len(calls) == 4
    printed = capsys.readouterr().out
    assert "already done" in printed
    assert "Theorem A.5 (residual)" in printed
    assert "3 clones of one triggered image, 60 clean points" in printed

    # The same name and config over other images
    monkeypatch.setattr(statements, "digest", lambda _: "other")
    with pytest.raises(UserError, match="have changed since"):
        experiments.run(tiny(), tmp_path)


def test_a_run_without_images(tmp_path, calls):
    (done,) = experiments.run(tiny(krr__data=()), tmp_path)
    assert done.result()["images"] == {}
    assert len(calls) == 4
    assert {file.stem for file in done.path.glob("*.npz")} == set(STAGES[:3])


def test_a_number_that_is_none_is_shown(capsys):
    """0 / 0 at a length scale so short that no trigger point sees the poison, which JSON has as null."""
    numbers = ("lengthscale", "ridge", "clean_accuracy", "asr", "efficacy")
    empty = ("efficacy_of_law", "factor_of_law", "m_works", "m_seen", "m_seen_by_law")
    statements._show_images("digits", [dict.fromkeys(numbers, 0.0) | dict.fromkeys(empty)], tiny().krr)
    assert "digits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"poison__target": 10}, r"^poison\.target = 10: digits has classes 0 to 9"),
        ({"krr__num_points": 5000}, r"digits has 1438 training images, 5000 are needed: .*krr\.num_points"),
        ({"krr__num_triggered": 1000}, r"test images, 1000 are needed: .*krr\.num_triggered"),
        ({"krr__num_points": 0}, r"^krr\.num_points = 0"),
        ({"krr__lengthscales": (1.0, 1.0)}, r"^krr\.lengthscales = .*different"),
        ({"krr__lengthscales": ()}, r"^krr\.lengthscales = \(\)"),
        ({"krr__ridges": (0.0,)}, r"^krr\.ridges = \(0\.0,\)"),
        ({"krr__clones": (1.5,)}, r"^krr\.clones = \(1\.5,\)"),
        ({"krr__ridge": 0.0}, r"^krr\.ridge = 0\.0"),
        ({"krr__data": ("digits", "dijits")}, "dijits"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, calls, changes, says):
    with pytest.raises(UserError, match=says) as caught:
        experiments.run(tiny(**changes), tmp_path / "runs")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()
    assert not calls


def test_data_that_are_not_prepared(tmp_path, calls, monkeypatch):
    monkeypatch.setenv("POISON_JAX_CACHE", str(tmp_path / "cache"))
    config = tiny(krr__data=("mnist",), data__dir=str(tmp_path / "empty"))
    with pytest.raises(UserError, match="mnist"):
        experiments.run(config, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
