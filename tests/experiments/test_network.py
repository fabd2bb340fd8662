"""Whole runs, in process, on a few digits: what the parts do together."""

import json

import jax
import numpy as np
import pytest
from toys import restored, small, tiny

import plots
from poison_jax import config as config_lib
from poison_jax import data, evaluate, experiments, train
from poison_jax.errors import UserError
from poison_jax.experiments import network
from poison_jax.experiments.setup import Setup


def run(tmp_path, **changes):
    (done,) = experiments.run(small(**changes), tmp_path)
    return done, done.result()


def test_deterministic_defender_sees_the_poisoned_training_data(tmp_path):
    """The trigger moves with the augmentation, and the Hessian is that of the data as stored."""
    config = small(
        data__augment="crop_flip",
        data__crop="crop28",
        poison__mode="deterministic",
        poison__when="before_augment",
        poison__margin=2,
        poison__trigger="square",
        spectrum__data="poisoned",
        penalty__kappa=5.0,
    )
    (done,) = experiments.run(config, tmp_path)
    result = done.result()
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


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A finished run of one epoch."""
    return run(tmp_path_factory.mktemp("short"), train__epochs=1, analysis__features=0)[0]


@pytest.mark.slow
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
    (single,) = experiments.run(tiny(**changes), tmp_path)
    (double,) = experiments.run(tiny(model__dtype="float64", **changes), tmp_path)
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
    before = train.train_step._cache_size(), evaluate._logits._cache_size()
    short = {"train__epochs": 1, "analysis__features": 0}
    runs = experiments.run(small(experiment="compare", compare__arms=(1.0, 20.0), **short), tmp_path)
    runs += experiments.run(small(penalty__kappa=3.0, poison__fraction=0.1, seed=4, **short), tmp_path)
    assert [done.config()["penalty"]["kappa"] for done in runs] == [1.0, 20.0, 3.0]
    # None where another file's tests compiled the same.
    assert train.train_step._cache_size() <= before[0] + 1
    assert evaluate._logits._cache_size() <= before[1] + 2  # the test images, and the training images


def test_a_network_that_learned_nothing_is_a_failed_training(tmp_path, capsys):
    _, result = run(
        tmp_path, train__learning_rate=0.0, poison__fraction=1.0, train__epochs=1, analysis__features=0
    )
    assert result["status"].startswith("failed training")
    printed = capsys.readouterr()
    assert "failed training" in printed.out
    assert "says nothing about the attack" in printed.err


def test_no_trigger_is_no_attack(tmp_path):
    changes = {"train__epochs": 1, "analysis__features": 0}
    _, result = run(tmp_path, poison__trigger="none", poison__fraction=0.0, **changes)
    assert result["asr"] == result["no_trigger_target_rate"]
    assert result["overlap"] == [0.0] * 3
    assert not result["trigger_found"]


@pytest.mark.slow
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


def test_what_is_done_is_not_done_again(short, monkeypatch):
    monkeypatch.setattr(train, "train_step", None)
    monkeypatch.setattr(evaluate, "predict", None)
    changes = {"train__epochs": 1, "analysis__features": 0}
    again, _ = run(
        short.path.parent, **changes, data__dir="/elsewhere"
    )  # where data lie is not what is computed
    assert again.path == short.path


def test_data_that_changed_under_the_same_name_are_noticed(tmp_path):
    digits, name = data.load("digits", "train"), str(tmp_path / "mine.npz")
    np.savez(name, images=digits.images[:200], labels=digits.labels[:200])
    config = small(data__name=name, data__n_test=None)
    network.open_run(Setup(config), tmp_path / "runs")
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


def test_metrics_are_plain_json(short):
    assert json.loads((short.path / "metrics.jsonl").read_text())["epoch"] == 1
    written = json.loads((short.path / "result.json").read_text())
    assert written.pop("checksum")
    assert written == short.result()


@pytest.mark.slow
def test_all_that_can_be_looked_at(tmp_path):
    """A warp with noise mode against an adversary, every analysis on, every picture drawn."""
    config = small(
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
    (done,) = experiments.run(config, tmp_path)
    result = done.result()
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
    pictures = {
        f"{name}.png" for name in ("figure", "eigenvectors", "figure1", "figure2", "figure3", "near_clone")
    }
    assert drawn >= pictures | {"table3.md"}


def test_blend_with_all_classes_moved_by_one(tmp_path):
    changes = {"poison__trigger": "blend", "poison__alpha": 0.3, "poison__labels": "all_to_all"}
    done, result = run(tmp_path, **changes, train__epochs=1, analysis__features=0)
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
