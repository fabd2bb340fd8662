"""Whole runs, in process, on a few digits: what the parts do together."""

import json
import sys

import jax
import numpy as np
import pytest
from toys import restored, tiny

import plots
from poison_jax import config as config_lib
from poison_jax import data, evaluate, experiments, train
from poison_jax.errors import Diverged, Interrupted, RunsFailed, UserError
from poison_jax.experiments import network, stages, views
from poison_jax.runs.shared import Checkpoints
from poison_jax.runs.store import Run


def run(tmp_path, **changes):
    (done,) = experiments.run(tiny(**changes), tmp_path)
    return done, done.result()


def test_deterministic_defender_sees_the_poisoned_training_data(tmp_path):
    """The trigger moves with the augmentation, and the Hessian is that of the data as stored."""
    done, result = run(
        tmp_path,
        data__augment="crop_flip",
        data__crop="crop28",
        poison__mode="deterministic",
        poison__when="before_augment",
        poison__margin=2,
        poison__trigger="square",
        spectrum__data="poisoned",
        penalty__kappa=5.0,
    )
    assert done.arrays("spectrum")["vectors"].shape == (3, 4 * 4)
    assert done.arrays("attack")["triggered"].shape[1:] == (4, 4, 1)
    assert result["hessian_examples"] == 40
    rows = done.metrics()
    assert rows[0]["poisoned"] == rows[1]["poisoned"] > 0  # the same ones at every visit
    assert all(row["penalty"] > 0 for row in rows)
    overlap = np.array(result["overlap"])
    assert result["max_overlap_index"] == np.argmax(overlap**2)
    np.testing.assert_allclose(result["overlap_squared"], overlap**2)
    np.testing.assert_allclose(result["gap"], result["eigenvalues"][0] - result["eigenvalues"][1], rtol=1e-5)


def test_float64_from_end_to_end(tmp_path, x64):
    """The same draws of everything random, so that what differs is rounding; and no float32 on the way."""
    changes = {
        "data__augment": "crop_flip",
        "poison__trigger": "warp",
        "poison__warp__cross_ratio": 1.0,
        "penalty__kappa": 3.0,
        "analysis__fisher": 40,
        "analysis__features": 0,
        "train__epochs": 1,
        "train__learning_rate": 0.01,
    }
    single, _ = run(tmp_path, **changes)
    double, _ = run(tmp_path, model__dtype="float64", **changes)
    made, state = restored(double)
    assert not {leaf.dtype for leaf in jax.tree.leaves((made.knobs, state))} & {np.dtype(np.float32)}
    assert {view.dtype for view in made.views(made.test_set.images[:2])} == {np.dtype(float)}
    for name in ("spectrum", "fisher"):
        values, exact = single.arrays(name)["values"], double.arrays(name)["values"]
        assert (values.dtype, exact.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(values, exact, rtol=1e-3, atol=1e-4 * exact[0])
    (row,), (exact,) = single.metrics(), double.metrics()
    assert row["poisoned"] == exact["poisoned"]
    for name in ("objective", "loss", "penalty", "gradient_norm", "fisher_energy"):
        assert float(np.float32(exact[name])) != exact[name], name
        np.testing.assert_allclose(row[name], exact[name], rtol=1e-4, err_msg=name)


def test_one_compilation_serves_every_arm(tmp_path):
    before = train.train_step._cache_size(), evaluate._predict_batch._cache_size()
    config = tiny(
        experiment="compare", compare__key="penalty.kappa", compare__arms=(1.0, 20.0), train__epochs=1
    )
    runs = experiments.run(config, tmp_path)
    runs += experiments.run(tiny(penalty__kappa=3.0, poison__fraction=0.1, seed=4, train__epochs=1), tmp_path)
    assert [done.config()["penalty"]["kappa"] for done in runs] == [1.0, 20.0, 3.0]
    # None where another file's tests compiled the same.
    assert train.train_step._cache_size() <= before[0] + 1
    assert evaluate._predict_batch._cache_size() <= before[1] + 1


def test_a_network_that_learned_nothing_is_a_failed_training(tmp_path, capsys):
    _, result = run(tmp_path, train__learning_rate=0.0, poison__fraction=1.0)
    assert result["status"].startswith("failed training")
    printed = capsys.readouterr()
    assert "failed training" in printed.out
    assert "says nothing about the attack" in printed.err


def test_no_trigger_is_no_attack(tmp_path):
    _, result = run(tmp_path, poison__trigger="none", poison__fraction=0.0)
    assert result["asr"] == result["no_trigger_target_rate"]
    assert result["overlap"] == [0.0] * 3
    assert not result["trigger_found"]


def test_own_data_and_own_mask(tmp_path):
    digits = data.load("digits", "train")
    np.savez(tmp_path / "mine.npz", images=digits.images[:200, :7], labels=digits.labels[:200] % 3)
    np.save(tmp_path / "mask.npy", np.eye(7, 8, dtype=bool))
    done, result = run(
        tmp_path / "runs",
        data__name=str(tmp_path / "mine.npz"),
        data__n_test=None,
        poison__trigger="mask",
        poison__mask=str(tmp_path / "mask.npy"),
    )
    assert 0 <= result["asr"] <= 1
    assert done.arrays("attack")["mask"].sum() == 7


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    done, _ = run(tmp_path)
    monkeypatch.setattr(train, "train_step", None)
    monkeypatch.setattr(evaluate, "predict", None)
    again, _ = run(tmp_path, data__dir="/elsewhere")  # where the data lie is not what is computed
    assert again.path == done.path


def test_data_that_changed_under_the_same_name_are_noticed(tmp_path):
    digits = data.load("digits", "train")
    name = str(tmp_path / "mine.npz")
    np.savez(name, images=digits.images[:200], labels=digits.labels[:200])
    config = tiny(data__name=name, data__n_test=None, train__epochs=1)
    experiments.run(config, tmp_path / "runs")
    np.savez(name, images=digits.images[:200], labels=digits.labels[:200][::-1])
    with pytest.raises(UserError, match="have changed since"):
        experiments.run(config, tmp_path / "runs")


def test_every_arm_is_checked_before_the_first_is_trained(tmp_path):
    for key, value in (("poison.target", 10), ("train.init_from", str(tmp_path / "nothing"))):
        before = config_lib.get(tiny(), key)
        config = tiny(experiment="compare", compare__key=key, compare__arms=(before, value))
        with pytest.raises(UserError, match=r"classes 0 to 9|no whole checkpoint"):
            experiments.run(config, tmp_path / "runs")
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("first_arm", [1e30, 0.0], ids=["the first diverges", "the second diverges"])
def test_an_arm_that_diverges_keeps_no_other_from_being_done(tmp_path, capsys, first_arm):
    arms = (first_arm, 1e30 - first_arm)
    config = tiny(experiment="compare", compare__arms=arms, train__epochs=1, analysis__features=0)
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
        experiments.run(tiny(penalty__kappa=1e30), tmp_path)
    (path,) = tmp_path.iterdir()
    assert not Run(path).metrics()
    assert not list((path / "checkpoints").iterdir())


def test_arms_that_differ_in_what_is_looked_at_are_one_run_with_a_column_each(tmp_path, monkeypatch, capsys):
    steps = counted(monkeypatch)
    config = tiny(experiment="compare", compare__key="spectrum.num_examples", compare__arms=(16, 40))
    first, second = experiments.run(config, tmp_path)
    assert first.path == second.path
    assert len(steps) == 8
    values = [Run(first.path).result(views.view(arm))["eigenvalues"][0] for arm in config_lib.arms(config)]
    assert values[0] != values[1]
    table = capsys.readouterr().out
    assert all(f"{value:.4g}" in table for value in values)


def counted(monkeypatch):
    """A list that grows with every training step from now on."""
    steps, step = [], train.train_step

    def counting(*arguments, **options):
        steps.append(1)
        return step(*arguments, **options)

    counting.lower = step.lower
    monkeypatch.setattr(train, "train_step", counting)
    return steps


@pytest.mark.parametrize("stopped_after", [1, 5, 8], ids=["first epoch", "last epoch", "last step"])
def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch, stopped_after):
    """In the middle of an epoch, or before the trained network is looked at: the same run, bit for bit."""
    config = tiny(penalty__kappa=2.0, data__augment="crop_flip", analysis__features=0)
    whole = network.train_and_measure(config, tmp_path / "whole")

    with monkeypatch.context() as patch:
        steps = counted(patch)

        class Asked(network.StopSignals):
            asked = property(lambda self: len(steps) >= stopped_after, lambda self, value: None)

        patch.setattr(network, "StopSignals", Asked)
        with pytest.raises(Interrupted, match=rf"at step {stopped_after} of 8, saved in .*the same command"):
            network.train_and_measure(config, tmp_path / "stopped")
    steps = counted(monkeypatch)
    again = network.train_and_measure(config, tmp_path / "stopped")
    assert len(steps) == 8 - stopped_after
    assert again.metrics() == whole.metrics()
    for name, array in whole.arrays("spectrum").items():
        np.testing.assert_array_equal(again.arrays("spectrum")[name], array, err_msg=name)
    for ours, theirs in zip(*(jax.tree.leaves(restored(done)[1]) for done in (again, whole)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


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


def test_measures_after_each_epoch_that_a_trained_network_lacks_are_said_to_be_missing(tmp_path, capsys):
    asked = {"analysis__collapse": 32, "analysis__fisher": 16}
    run(tmp_path / "a", train__epochs=1, **asked)
    run(tmp_path / "a", train__epochs=1, **asked)
    assert "was not asked for" not in capsys.readouterr().err
    run(tmp_path / "b", train__epochs=1)
    run(tmp_path / "b", train__epochs=1, **asked)
    missing = [
        line.split()[1] for line in capsys.readouterr().err.splitlines() if "was not asked for" in line
    ]
    assert missing == ["analysis.collapse", "analysis.fisher"]


def test_going_on_with_tensorboard_writes_no_epoch_twice(tmp_path, monkeypatch):
    made, writer = [], network.scalar_writer

    def noted(directory, first_epoch):
        made.append(first_epoch)
        return writer(directory, first_epoch)

    monkeypatch.setattr(network, "scalar_writer", noted)
    config = tiny(analysis__features=0)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed_at_step(4, Checkpoints.save))
        with pytest.raises(KeyboardInterrupt):
            network.train_and_measure(config, tmp_path, tensorboard=True)
    network.train_and_measure(config, tmp_path, tensorboard=True)
    network.train_and_measure(config, tmp_path, tensorboard=True)
    assert made == [1, 2]


def killed_at_step(last, save):
    """`Checkpoints.save` that ends the process, so to say, once a step is saved."""

    def killed(self, step, *arguments):
        save(self, step, *arguments)
        if step == last:
            raise KeyboardInterrupt

    return killed


def test_tensorboard_by_a_flag(tmp_path, monkeypatch):
    (done,) = experiments.run(tiny(train__epochs=1), tmp_path / "a", tensorboard=True)
    (events,) = (done.path / "tensorboard").iterdir()
    assert b"clean_accuracy" in events.read_bytes()
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[tensorboard\]'"):
        experiments.run(tiny(train__epochs=1), tmp_path / "b", tensorboard=True)


def test_metrics_are_plain_json(tmp_path):
    done, result = run(tmp_path, train__epochs=1)
    assert json.loads((done.path / "metrics.jsonl").read_text())["epoch"] == 1
    written = json.loads((done.path / "result.json").read_text())
    assert written.pop("checksum")
    assert written == result == Run(done.path).result()


def test_all_that_can_be_looked_at(tmp_path):
    """A warp with noise mode against an adversary, every analysis on, every picture drawn."""
    done, result = run(
        tmp_path,
        data__n_test=128,
        poison__trigger="warp",
        poison__warp__cross_ratio=1.0,
        penalty__epsilon=0.3,
        spectrum__per_class=True,
        spectrum__num_iters=4,
        analysis__near_clone=8,
        analysis__collapse=64,
        analysis__fisher=40,
    )
    for row in done.metrics():
        assert 0 < row["fisher_energy"] <= row["fisher_trace"]
        assert np.isfinite([row[name] for name in ("nc1", "nc2_norms", "nc2_angles", "nc3", "nc4")]).all()
        assert row["penalty"] > 0  # what the adversary adds
        assert row["near_clone_median_spike"] > 0
    spectrum = done.arrays("spectrum")
    assert spectrum["class_vectors"].shape == (10, 3, 64)
    assert spectrum["class_values"].shape == spectrum["class_overlap"].shape == (10, 3)
    assert spectrum["spectral_peak_frequency"].shape == (3, 2)
    assert done.arrays("fisher")["values"].min() >= 0
    assert 0 <= result["nc4"] <= 1
    assert result["near_clone_epochs_slope_count"] <= 2
    assert result["near_clone_epochs_slope"] is None  # of two epochs there is none
    assert result["near_clone_median_spike"] == pytest.approx(done.metrics()[-1]["near_clone_median_spike"])
    assert not (done.path / "figure.png").exists()  # nobody was asked to draw
    drawn = {file.name for file in plots.draw(done)}
    assert drawn >= {
        "figure.png",
        "eigenvectors.png",
        "figure1.png",
        "figure2.png",
        "figure3.png",
        "table3.md",
    }
    assert "near_clone.png" in drawn


def test_blend_with_all_classes_moved_by_one(tmp_path):
    done, result = run(
        tmp_path,
        poison__trigger="blend",
        poison__alpha=0.3,
        poison__labels="all_to_all",
        analysis__features=0,
    )
    labels, logits = done.arrays("attack")["labels"], done.arrays("attack")["triggered_prediction"]
    assert len(labels) == len(logits) == 6
    assert 0 <= result["asr"] <= 1
    assert result["asr"] == result["asr_incl_target"]  # no class is kept
    assert not (done.path / "features.npz").exists()


def test_a_single_class(tmp_path):
    """Nobody is attacked and nothing is to be learned; the run ends all the same, and is drawn."""
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 7, 2), dtype=np.uint8)
    names = np.array(["a$b$ 猫"])
    np.savez(tmp_path / "mine.npz", images=images, labels=np.zeros(20, int), class_names=names)
    done, result = run(
        tmp_path,
        data__name=str(tmp_path / "mine.npz"),
        data__n_train=None,
        data__n_test=None,
        poison__trigger="blend",
        train__batch_size=8,
        analysis__features=0,
    )
    assert result["asr"] is None
    assert result["asr_incl_target"] == result["clean_accuracy"] == 1
    examples = done.arrays("attack")
    assert len(examples["labels"]) == 4
    assert np.abs(examples["mask"]).max() > 0  # of the images that would be attacked
    assert plots.draw(done)
