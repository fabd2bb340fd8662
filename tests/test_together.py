"""Runs trained at once: the same numbers as one by one, whoever they are beside."""

import itertools
import shutil

import jax
import numpy as np
import pytest
from toys import tiny, training

from poison_jax import evaluate, experiment, together, train
from poison_jax import training as training_lib
from poison_jax.errors import Interrupted, UserError
from poison_jax.setup import Setup
from poison_jax.store import Run

RUNS = (
    {"kappa": 1.0, "seed": 0, "fraction": 0.3},
    {"kappa": 40.0, "seed": 1, "fraction": 0.1},
    {"kappa": 7.0, "seed": 0, "fraction": 0.9},
)


def numbers(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))])


def fit(state, *rest, epochs=2, **options):
    rows = []
    options = {"on_epoch": lambda epoch, state, means: rows.append(means)} | options
    return train.fit(state, *rest, epochs=epochs, batch_size=16, **options), rows


def stacked(runs):
    states, data, knobs, programs = zip(*runs, strict=True)
    mesh = programs[0].mesh
    return *together.stack(states, jax.device_get(data), knobs, mesh), programs[0]


@pytest.mark.parametrize(
    ("mode", "devices", "width", "options"),
    [
        ("stochastic", 1, 4, {"augment": "crop_flip"}),  # by the kernels
        ("deterministic", 1, 5, {"count": 32}),  # by XLA's grouped convolutions, as on a GPU
        ("stochastic", 8, 4, {}),
    ],
)
def test_the_same_numbers_as_one_by_one(mode, devices, width, options, x64, monkeypatch):
    """Two epochs of batches that each run shuffles for itself, in double precision."""
    if width == 5:  # a network that nothing else has traced
        monkeypatch.setenv("POISON_JAX_KERNELS", "0")
    options |= {"dtype": "float64", "mode": mode, "devices": devices, "width": width}
    before = train.train_steps._cache_size()
    state, rows = fit(*stacked([training(**run, **options) for run in RUNS]))
    assert train.train_steps._cache_size() == before + 1
    members = together.unstack(state, train.make_mesh(jax.devices()[:devices]))
    alone = [fit(*training(**run, **options)) for run in RUNS]
    for i, (member, (expected, expected_rows)) in enumerate(zip(members, alone, strict=True)):
        np.testing.assert_allclose(numbers(member), numbers(expected), rtol=1e-10, atol=1e-12)
        for row, expected_row in zip(rows, expected_rows, strict=True):
            assert row[i] == pytest.approx(expected_row, rel=1e-10)
    for other in members[1:]:
        assert np.abs(numbers(other.params) - numbers(members[0].params)).max() > 1e-3


def test_what_is_not_finite_stays_in_its_run():
    """The others do not change by a bit."""
    mesh = train.make_mesh(jax.devices()[:1])
    (sound, _), (beside, rows) = (
        fit(*stacked([training(**run) for run in (RUNS[0], {**RUNS[1], "kappa": kappa}, RUNS[2])]))
        for kappa in (40.0, 1e30)
    )
    sound, beside = together.unstack(sound, mesh), together.unstack(beside, mesh)
    for i in (0, 2):
        np.testing.assert_array_equal(numbers(beside[i]), numbers(sound[i]))
    assert not np.isfinite(numbers(beside[1].params)).all()
    reasons = [train.why_not_finite(means, 1, 4) for means in rows[0]]
    assert reasons[0] is reasons[2] is None
    assert "not finite in epoch 1, by step 4" in reasons[1]


def test_nothing_finite_stops():
    with pytest.raises(UserError, match=r"not finite in epoch 1.*last good checkpoint is kept"):
        fit(*stacked([training(kappa=1e30, seed=seed) for seed in range(2)]))


def test_who_goes_together():
    def places(most, *changes):
        return together.groups([Setup(tiny(**change)) for change in changes], most)

    kappas = [{"penalty__kappa": kappa, "seed": seed} for kappa, seed in ((1.0, 0), (2.0, 1), (3.0, 2))]
    assert places(1, *kappas) == [[0], [1], [2]]
    assert places(2, *kappas) == [[0, 1], [2]]
    assert places(9, *kappas) == [[0, 1, 2]]
    traced = {"poison__fraction": 0.1, "poison__target": 3, "poison__trigger": "square"}
    assert places(9, {}, traced, {"poison__labels": "all_to_all"}) == [[0, 1, 2]]
    for apart in (
        {"penalty__kappa": 1.0},  # a penalty or none
        {"data__n_train": 96},
        {"model__width": 5},
        {"train__epochs": 3, "train__decay_times": 0},
        {"train__learning_rate": 0.2},
        {"poison__mode": "deterministic"},
        {"poison__trigger": "blend"},  # of another shape
    ):
        assert places(9, {}, apart, {}) == [[0, 2], [1]], apart


# --- whole runs -----------------------------------------------------------------------------------------


def compare(workdir, *, most=3, arms=((1.0, 0), (20.0, 1), (5.0, 2))):
    """Runs of different kappa and seed."""
    settings = {"compare__key": "penalty.kappa,seed", "compare__arms": arms, "train__together": most}
    config = tiny(experiment="compare", analysis__features=0, poison__fraction=0.1, **settings)
    return experiment.run(config, workdir)


def outcome(run):
    """Whatever must not depend on how often the run was stopped."""
    result = {key: value for key, value in run.result().items() if key != "wall_seconds"}
    return result, run.metrics(), run.arrays("spectrum")["vectors"].tobytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    before = train.train_steps._cache_size()
    runs = compare(tmp_path_factory.mktemp("undisturbed"))
    assert train.train_steps._cache_size() <= before + 1
    return runs


def test_a_comparison_at_once(undisturbed, tmp_path):
    """Every directory is as if its run had been alone, but for rounding."""
    before = train.train_step._cache_size(), evaluate._predict_batch._cache_size()
    for alone, run in zip(compare(tmp_path, most=1), undisturbed, strict=True):
        assert alone.path.name == run.path.name
        assert {file.name for file in alone.path.iterdir()} == {file.name for file in run.path.iterdir()}
        assert {f.name for f in alone.checkpoints.iterdir()} == {f.name for f in run.checkpoints.iterdir()}
        assert run.result()["together"] == 3
        assert alone.result()["together"] == 1
        assert run.result().keys() == alone.result().keys()
        for row, expected in zip(run.metrics(), alone.metrics(), strict=True):
            assert row == pytest.approx(expected, rel=1e-3)
        np.testing.assert_allclose(run.result()["eigenvalues"], alone.result()["eigenvalues"], rtol=1e-3)
    assert train.train_step._cache_size() <= before[0] + 1  # none where another file's tests compiled it
    assert evaluate._predict_batch._cache_size() == before[1]  # a state of several is like one of its own


def stop_after(questions, monkeypatch):
    """A signal that is there when it is asked for the last of so many times."""

    class Stop:
        def __init__(self):
            self._asked = itertools.count(1)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        asked = property(lambda self: next(self._asked) >= questions)

    monkeypatch.setattr(training_lib, "StopSignals", Stop)


@pytest.mark.parametrize("steps", [2, 4, 7])
def test_asked_to_stop(steps, undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(steps, patch)
        with pytest.raises(
            Interrupted, match=f"stopped at step {steps} of 8.* and .*the same command goes on"
        ):
            compare(tmp_path)
    for run in undisturbed:
        newest = max(int(file.name) for file in (tmp_path / run.path.name / "checkpoints").iterdir())
        assert newest == steps
    for run, expected in zip(compare(tmp_path), undisturbed, strict=True):
        assert outcome(run) == outcome(expected)


def test_members_an_epoch_apart_go_on_apart(undisturbed, tmp_path):
    """As a kill between two checkpoints leaves them; one is trained, but not looked at."""
    shutil.copytree(undisturbed[0].path.parent, tmp_path, dirs_exist_ok=True)
    for run, lost in zip(undisturbed, ((), ("8",), ("4", "8")), strict=True):
        path = tmp_path / run.path.name
        (path / "result.json").unlink()
        for step in lost:
            shutil.rmtree(path / "checkpoints" / step)
    trained, *others = compare(tmp_path)
    assert outcome(trained) == outcome(undisturbed[0])  # `together` included: it was
    for run, expected in zip(others, undisturbed[1:], strict=True):
        assert run.result()["together"] == 1
        assert [row["step"] for row in run.metrics()] == [4, 8]
        assert run.metrics()[1] == pytest.approx(expected.metrics()[1], rel=1e-3)


@pytest.mark.parametrize("stopped", [False, True])
def test_one_that_diverges_is_left_behind(stopped, undisturbed, tmp_path, capsys, monkeypatch):
    """Also where it is stopped: then it alone starts again, and fails before the others go on."""
    arms = ((1.0, 0), (1e30, 1), (5.0, 2))
    if stopped:
        with monkeypatch.context() as patch:
            stop_after(3, patch)
            with pytest.raises(Interrupted):
                compare(tmp_path, arms=arms)
        assert len(list(tmp_path.glob("*/checkpoints/3"))) == 2
    with pytest.raises(UserError, match=r"^\S+run-\w+: .*not finite in epoch 1.*lower train.learning_rate"):
        compare(tmp_path, arms=arms)
    assert "kappa 1e+30, theta 0.1, seed 1: " in capsys.readouterr().err
    for run in (undisturbed[0], undisturbed[2]):
        result = Run(tmp_path / run.path.name).result()
        assert result["together"] == (2 if stopped else 3)
        assert result["eigenvalues"] == pytest.approx(run.result()["eigenvalues"], rel=1e-3)
    assert len(list(tmp_path.glob("*/result.json"))) == 2
    assert len(list(tmp_path.glob("*/checkpoints/*"))) == 4
