"""The loop of a training: stopped, gone on with, diverged, and what is said and written on the way."""

import sys

import jax
import numpy as np
import pytest
from toys import restored, small

from poison_jax import config as config_lib
from poison_jax import experiments, train
from poison_jax.errors import Busy, Diverged, Interrupted, RunsFailed, UserError
from poison_jax.experiments import network, stages, views
from poison_jax.experiments.setup import Setup
from poison_jax.runs.checkpoint import Checkpoints
from poison_jax.runs.store import Run


def run(tmp_path, **changes):
    (done,) = experiments.run(small(**changes), tmp_path)
    return done, done.result()


def counted(monkeypatch):
    """A list that grows with every training step from now on."""
    steps, step = [], train.train_step

    def counting(*arguments, **options):
        steps.append(1)
        return step(*arguments, **options)

    counting.lower = step.lower
    monkeypatch.setattr(train, "train_step", counting)
    return steps


def test_an_arm_that_diverges_keeps_no_other_from_being_done(tmp_path, capsys):
    config = small(experiment="compare", compare__arms=(1e30, 0.0), train__epochs=1, analysis__features=0)
    drawn = []

    def draw(done):
        drawn.append(done.path)
        return [done.path / "x.png"]

    for _ in range(2):  # also when the command is given again
        with pytest.raises(RunsFailed, match=r"1 of 2 runs failed.*not finite in epoch 1") as failed:
            experiments.run(config, tmp_path, draw=draw)
        (done,) = failed.value.finished
        assert done.result()["config"]["penalty"]["kappa"] == 0
        printed = capsys.readouterr()
        assert "clean accuracy" in printed.out
        assert f"figure: {done.path / 'x.png'}" in printed.out
        assert "warning" in printed.err
    assert drawn == [done.path] * 2
    (broken,) = (path for path in tmp_path.iterdir() if path != done.path)
    assert not Run(broken).done


def test_a_single_run_that_diverges(tmp_path):
    with pytest.raises(Diverged, match=r"not finite in epoch 1.*last good checkpoint is kept"):
        experiments.run(small(penalty__kappa=1e30), tmp_path)
    (path,) = tmp_path.iterdir()
    assert not Run(path).metrics()
    assert not list((path / "checkpoints").iterdir())


def test_arms_that_differ_in_what_is_looked_at_are_one_run_with_a_column_each(tmp_path, monkeypatch, capsys):
    steps = counted(monkeypatch)
    config = small(experiment="compare", compare__key="spectrum.num_examples", compare__arms=(16, 40))
    first, second = experiments.run(config, tmp_path)
    assert first.path == second.path
    assert len(steps) == 8
    values = [Run(first.path).result(views.view(arm))["eigenvalues"][0] for arm in config_lib.arms(config)]
    assert values[0] != values[1]
    table = capsys.readouterr().out
    assert all(f"{value:.4g}" in table for value in values)


@pytest.mark.parametrize("stopped_after", [1, 5, 8], ids=["first epoch", "last epoch", "last step"])
def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch, stopped_after):
    """In the middle of an epoch, or before the trained network is looked at: the same run, bit for bit."""
    config = small(penalty__kappa=2.0, data__augment="crop_flip", analysis__features=0)
    (whole,) = experiments.run(config, tmp_path / "whole")

    with monkeypatch.context() as patch:
        steps = counted(patch)

        class Asked(network.StopSignals):
            asked = property(lambda self: len(steps) >= stopped_after, lambda self, value: None)

        patch.setattr(network, "StopSignals", Asked)
        with pytest.raises(Interrupted, match=rf"at step {stopped_after} of 8, saved in .*the same command"):
            experiments.run(config, tmp_path / "stopped")
    steps = counted(monkeypatch)
    (again,) = experiments.run(config, tmp_path / "stopped")
    assert len(steps) == 8 - stopped_after
    assert again.metrics() == whole.metrics()
    for name, array in whole.arrays("spectrum").items():
        np.testing.assert_array_equal(again.arrays("spectrum")[name], array, err_msg=name)
    for ours, theirs in zip(*(jax.tree.leaves(restored(done)[1]) for done in (again, whole)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_steps_are_looked_at_late_and_none_is_lost(tmp_path, monkeypatch):
    """However often, and across a stop between two looks: the same metrics of sixteen steps."""
    config = small(train__batch_size=8, train__epochs=1, analysis__features=0)
    (whole,) = experiments.run(config, tmp_path / "whole")
    monkeypatch.setattr(network, "LOOK_EVERY", 3)
    with monkeypatch.context() as patch:
        steps = counted(patch)

        class Asked(network.StopSignals):
            asked = property(lambda self: len(steps) >= 7, lambda self, value: None)

        patch.setattr(network, "StopSignals", Asked)
        with pytest.raises(Interrupted, match="at step 7 of 16"):
            experiments.run(config, tmp_path / "stopped")
    (again,) = experiments.run(config, tmp_path / "stopped")
    assert again.metrics() == whole.metrics()


def test_the_step_that_diverged_is_named(tmp_path, monkeypatch):
    """And the checkpoint of its epoch is not written, though later steps have been done meanwhile."""
    step = train.train_step

    def sixth(*arguments, **options):
        state, metrics = step(*arguments, **options)
        return state, metrics._replace(loss=metrics.loss / (state.step != 6))

    sixth.lower = step.lower
    monkeypatch.setattr(train, "train_step", sixth)
    with pytest.raises(Diverged, match=r"loss not finite in epoch 1, step 6: training stopped"):
        experiments.run(small(train__batch_size=8, analysis__features=0), tmp_path)
    (path,) = tmp_path.iterdir()
    assert not list((path / "checkpoints").iterdir())


def test_what_is_measured_of_an_epoch(tmp_path):
    """Means over its steps, the sum of the poisoned images, the report on the test images."""
    done, _ = run(tmp_path, poison__fraction=1.0, train__learning_rate=0.0, analysis__features=0)
    made, state = restored(done)
    _, report = stages.evaluate_attack(made, state)
    for epoch, row in enumerate(done.metrics(), 1):
        assert (row["epoch"], row["step"]) == (epoch, 4 * epoch)
        assert row["poisoned"] == (made.train_set.labels != 0).sum()
        assert row["asr"] == report["asr"]
        assert row["penalty"] == 0
        assert 0 <= row["train_accuracy"] <= 1


@pytest.mark.slow
def test_measures_after_each_epoch_that_a_trained_network_lacks_are_said_to_be_missing(tmp_path, capsys):
    short = {"train__epochs": 1, "analysis__features": 0}
    asked = short | {"analysis__collapse": 32, "analysis__fisher": 16}
    run(tmp_path / "a", **asked)
    run(tmp_path / "a", **asked)
    assert "was not asked for" not in capsys.readouterr().err
    run(tmp_path / "b", **short)
    run(tmp_path / "b", **asked)
    missing = [
        line.split()[1] for line in capsys.readouterr().err.splitlines() if "was not asked for" in line
    ]
    assert missing == ["analysis.collapse", "analysis.fisher"]


def said_of_counts(capsys):
    """What was said of other numbers of images, without the advice."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "after each epoch is" in line]
    return [line.partition(";")[0].removeprefix("warning: ") for line in lines]


COUNTED = {"analysis__collapse": 20, "data__n_test": 30, "train__epochs": 2}


def test_other_numbers_of_images_than_after_each_epoch_are_said(tmp_path, capsys):
    """The rows stay as they were measured, and say on what."""
    done, _ = run(tmp_path, **COUNTED)
    rows = done.metrics()
    counts = {"data.n_test": 30, "analysis.collapse": 20, "analysis.fisher": 0, "analysis.near_clone": 0}
    assert [row["measured_on"] for row in rows] == [counts | {"spectrum.num_examples": 40}] * 2
    assert said_of_counts(capsys) == []
    changes = {"analysis__collapse": 32, "data__n_test": 64, "spectrum__num_examples": 16}
    for _ in range(2):  # where stages are made, and where all is done
        run(tmp_path, **COUNTED | changes)
        assert said_of_counts(capsys) == [
            "data.n_test = 64: what was measured after each epoch is of 30",
            "analysis.collapse = 32: what was measured after each epoch is of 20",
        ]
    assert done.metrics() == rows


def test_rows_of_older_versions_do_not_say_on_what(capsys):
    network._say_what_was_not_measured(Setup(small(**COUNTED)), [{"epoch": 1, "nc1": 0.5}])
    assert said_of_counts(capsys) == []


def test_the_number_of_images_of_what_was_never_measured_is_not_said(capsys):
    on = stages.measured_on(Setup(small(spectrum__num_examples=16)))
    asked = Setup(small(analysis__near_clone=8))
    network._say_what_was_not_measured(asked, [{"epoch": 1, "measured_on": on}])
    assert said_of_counts(capsys) == []
    measured = on | {"analysis.near_clone": 8}
    network._say_what_was_not_measured(asked, [{"near_clone_median_spike": 1.0, "measured_on": measured}])
    (said,) = said_of_counts(capsys)
    assert said.startswith("spectrum.num_examples = ")


@pytest.mark.parametrize("counts", [(), (8, 8, 8), (8, 8, 16)], ids=str)
def test_no_slope_over_epochs_that_measured_on_different_numbers(monkeypatch, counts):
    made = Setup(small(analysis__near_clone=8))
    monkeypatch.setattr(stages, "_at_triggered_images", lambda *_: {})
    rows = [{"near_clone_median_efficacy": x, "near_clone_median_spike": x**2} for x in (1.0, 2.0, 4.0)]
    on = stages.measured_on(made)
    for row, count in zip(rows, counts, strict=False):
        row["measured_on"] = on | {"analysis.near_clone": count, "analysis.collapse": int(row == rows[0])}
    _, found = stages.theory(stages.Trained(made, made.first_state(), rows, {}))
    slope = found["near_clone_epochs_slope"]
    assert np.isnan(slope) if 16 in counts else slope == pytest.approx(2)


@pytest.mark.parametrize("steps", [3, 4], ids=["in an epoch", "after one"])
def test_whoever_was_taken_over_from_saves_nothing(tmp_path, monkeypatch, steps):
    """A process that slept, and was then asked to stop, does not write into another's run."""
    step, saved = train.train_step, []

    def taken_over(*arguments, **options):
        state, metrics = step(*arguments, **options)
        if int(state.step) == steps:
            (claims,) = tmp_path.glob("*/claims")
            (claims / "2").write_text("")
        return state, metrics

    class Asked(network.StopSignals):
        asked = property(lambda self: bool(list(tmp_path.glob("*/claims/2"))), lambda self, value: None)

    taken_over.lower = step.lower
    monkeypatch.setattr(train, "train_step", taken_over)
    monkeypatch.setattr(network, "StopSignals", Asked)
    monkeypatch.setattr(Checkpoints, "save", lambda self, number, *_: saved.append(number))
    with pytest.raises(Busy, match="another process has taken over"):
        experiments.run(small(analysis__features=0), tmp_path)
    assert saved == []


def test_going_on_with_tensorboard_writes_no_epoch_twice(tmp_path, monkeypatch):
    made, writer = [], network.scalar_writer

    def noted(directory, first_epoch):
        made.append(first_epoch)
        return writer(directory, first_epoch)

    monkeypatch.setattr(network, "scalar_writer", noted)
    config = small(analysis__features=0)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed_at_step(4, Checkpoints.save))
        with pytest.raises(KeyboardInterrupt):
            experiments.run(config, tmp_path, tensorboard=True)
    experiments.run(config, tmp_path, tensorboard=True)
    experiments.run(config, tmp_path, tensorboard=True)
    assert made == [1, 2]


def killed_at_step(last, save):
    """`Checkpoints.save` that ends the process, so to say, once a step is saved."""

    def killed(self, step, *arguments):
        save(self, step, *arguments)
        if step == last:
            raise KeyboardInterrupt

    return killed


def test_tensorboard_by_a_flag(tmp_path, monkeypatch):
    (done,) = experiments.run(small(train__epochs=1), tmp_path / "a", tensorboard=True)
    (events,) = (done.path / "tensorboard").iterdir()
    assert b"clean_accuracy" in events.read_bytes()
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[tensorboard\]'"):
        experiments.run(small(train__epochs=1), tmp_path / "b", tensorboard=True)
