"""What is looked at in a trained network: kept by stage and view, made again where it is damaged."""

import os
import shutil

import jax
import numpy as np
import pytest
from toys import restored, small, tiny

from poison_jax import evaluate, experiments, train
from poison_jax.experiments import results, stages, views
from poison_jax.experiments.setup import Setup
from poison_jax.runs import store
from poison_jax.runs.store import Run

VIEW = {"analysis__features": 48, "train__epochs": 2}
OTHER = VIEW | {"spectrum__k": 2, "spectrum__num_iters": 5, "analysis__features": 40}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A finished run that nobody changes."""
    (done,) = experiments.run(small(**VIEW), tmp_path_factory.mktemp("kept"))
    return done


@pytest.fixture
def done(kept, tmp_path):
    """A copy of it."""
    return Run(shutil.copytree(kept.path, tmp_path / kept.path.name))


@pytest.fixture
def made(monkeypatch):
    """The names of the stages that are made from now on; no training step may be taken."""
    monkeypatch.setattr(train, "train_step", None)
    names = []

    def noted(name, stage):
        def make(trained):
            names.append(name)
            return stage(trained)

        return make

    monkeypatch.setattr(stages, "STAGES", {name: noted(name, stage) for name, stage in stages.STAGES.items()})
    return names


def look(done, **changes):
    """The run with a config that differs in what is looked at."""
    (looked,) = experiments.run(small(**changes), done.path.parent)
    return looked


def assert_equal(arrays, others):
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def test_another_view_trains_nothing_and_going_back_costs_nothing(done, made, monkeypatch):
    first, spectrum = done.result(), done.arrays("spectrum")
    assert look(done, **OTHER).path == done.path
    assert made == ["spectrum", "features"]
    second = done.result()
    assert (second["config"]["spectrum"]["k"], second["features_examples"]) == (2, 40)
    assert done.arrays("spectrum")["values"].shape == (2,)
    np.testing.assert_allclose(second["eigenvalues"], done.arrays("spectrum")["values"], rtol=1e-6)
    for name in ("asr", "clean_accuracy", "train_accuracy", "parameters", "regime"):
        assert second[name] == first[name]
    names = {file.stem for file in done.path.glob("spectrum*.npz")}
    assert names == {"spectrum", second["stages"]["spectrum"]}
    assert {file.stem for file in done.path.glob("spectrum*.json")} == names
    assert not done.damage()

    monkeypatch.setattr(results, "measure", None)
    look(done, **VIEW)
    assert done.result() == first
    assert_equal(done.arrays("spectrum"), spectrum)
    look(done, **OTHER)
    assert done.result() == second
    assert not done.damage()


def test_the_time_of_a_run_is_that_of_its_training_and_of_what_its_view_looks_at(done, made):
    def looking(result):
        return sum(
            done.findings(name, identity)["seconds"] for name, identity in views.identities(result).items()
        )

    first = done.result()["wall_seconds"] - looking(small(**VIEW))
    look(done, **OTHER)
    second = done.result()["wall_seconds"] - looking(small(**OTHER))
    assert first == pytest.approx(second)
    assert first > 0


@pytest.mark.parametrize("stage", ["attack", "spectrum"])
@pytest.mark.parametrize("moment", ["arrays", "stage"])
def test_killed_while_a_stage_is_written(kept, tmp_path, monkeypatch, stage, moment):
    """Before its arrays are whole, or between them and the findings that make them count."""
    save_arrays, write_json = store.Run.save_arrays, store.files.write_json

    def before_arrays(self, name, **arrays):
        if name == stage:
            raise KeyboardInterrupt
        save_arrays(self, name, **arrays)

    def before_findings(file, value):
        if file.name == f"{stage}.json":
            raise KeyboardInterrupt
        write_json(file, value)

    with monkeypatch.context() as patch:
        if moment == "arrays":
            patch.setattr(store.Run, "save_arrays", before_arrays)
        else:
            patch.setattr(store.files, "write_json", before_findings)
        with pytest.raises(KeyboardInterrupt):
            experiments.run(small(**VIEW), tmp_path)
    (path,) = tmp_path.iterdir()
    assert not Run(path).done
    monkeypatch.setattr(train, "train_step", None)
    (again,) = experiments.run(small(**VIEW), tmp_path)
    assert_equal(again.arrays(stage), kept.arrays(stage))
    assert {k: v for k, v in again.result().items() if k != "wall_seconds"} == {
        k: v for k, v in kept.result().items() if k != "wall_seconds"
    }


@pytest.mark.parametrize("name", ["spectrum.npz", "spectrum.json", "attack.json", "result.json"])
def test_a_damaged_file_of_a_finished_run_is_made_again(done, made, name):
    before, arrays = done.result(), done.arrays("spectrum")
    os.truncate(done.path / name, (done.path / name).stat().st_size // 2)
    look(done, **VIEW)
    assert made == ([] if name == "result.json" else [name.partition(".")[0]])
    assert (done.path / "damaged" / name).exists()
    assert_equal(done.arrays("spectrum"), arrays)
    after = done.result()
    assert {k: v for k, v in after.items() if k != "wall_seconds"} == {
        k: v for k, v in before.items() if k != "wall_seconds"
    }
    assert not done.damage()


def test_a_view_never_shows_the_arrays_of_another(done, made):
    """The first view's files are damaged when the second is asked for: they are not taken for its own."""
    arrays = done.arrays("spectrum")
    os.truncate(done.path / "spectrum.json", 9)
    look(done, **OTHER)
    assert done.arrays("spectrum")["values"].shape == (2,)
    look(done, **VIEW)
    assert_equal(done.arrays("spectrum"), arrays)
    look(done, **OTHER)
    assert done.arrays("spectrum")["values"].shape == (2,)


# --- where training ended ---------------------------------------------------------------------------


def logits_of(made, state, images, *, triggered):
    pixels = images.astype(np.float32) / 255
    if triggered:
        pixels[:, made.input_mask] = 1
    view = (pixels - np.asarray(made.knobs.mean)) / np.asarray(made.knobs.std)
    logits, features = made.model.apply(jax.device_get(state.variables), view)
    return np.asarray(logits), np.asarray(features.pre_fc, float)


def nc1(features, labels):
    """tr(Sigma_W pinv(Sigma_B)) / C, written out."""
    means = {c: features[labels == c].mean(0) for c in np.unique(labels)}
    centre = np.mean(list(means.values()), axis=0)
    within = np.mean(
        [np.cov(features[labels == c].T, bias=True) for c in means],
        axis=0,
    )
    between = np.mean([np.outer(mean - centre, mean - centre) for mean in means.values()], axis=0)
    return np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / len(means)


def test_where_training_ended(kept):
    made, state = restored(kept)
    result, c = kept.result(), kept.config()
    labels, test_labels = made.train_set.labels, made.test_set.labels
    logits, features = logits_of(made, state, made.train_set.images, triggered=False)
    assert result["train_accuracy"] == pytest.approx(np.mean(logits.argmax(1) == labels))
    assert result["regime"] == ("terminal" if np.mean(logits.argmax(1) == labels) >= 0.99 else "not terminal")
    triggered, _ = logits_of(made, state, made.train_set.images, triggered=True)
    assert result["poisoned_train_accuracy"] == pytest.approx(np.mean(triggered.argmax(1)[labels != 0] == 0))
    schedule = train.learning_rate(made.program)
    rates = [float(schedule(step)) for step in range(8)]
    assert result["decay_time"] == pytest.approx(c["train"]["weight_decay"] * sum(rates), rel=1e-5)
    assert result["poison_visits"] == pytest.approx(0.3 * np.sum(labels != 0) * 2)
    assert result["nc1"] == pytest.approx(nc1(features, labels), rel=1e-3)
    _, features = logits_of(made, state, made.test_set.images, triggered=False)
    assert result["nc1_test"] == pytest.approx(nc1(features, test_labels), rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"poison__fraction": 0.0}, lambda labels: labels < 0),
        ({"poison__labels": "clean_label"}, lambda labels: labels == 0),
        ({"poison__labels": "source_specific"}, lambda labels: labels == 1),
        ({"poison__labels": "all_to_all"}, lambda labels: labels >= 0),
    ],
    ids=["nobody", "clean_label", "source_specific", "all_to_all"],
)
def test_poison_visits_are_of_the_images_that_may_be_poisoned(changes, allowed):
    made = Setup(small(**changes))
    _, found = stages.regime(stages.Trained(made, made.first_state(), [], {}))
    theta = changes.get("poison__fraction", 0.3)
    assert found["poison_visits"] == pytest.approx(theta * allowed(made.train_set.labels).sum() * 2)
    assert found["regime"] == "not terminal"


def test_a_network_in_the_terminal_phase(monkeypatch):
    """All training images right: the word for it, and nothing in the test images' way."""
    made = Setup(small())
    labels = made.train_set.labels
    logits = np.eye(10)[labels]
    monkeypatch.setattr(evaluate, "predict", lambda *_, **__: (logits, logits))
    _, found = stages.regime(stages.Trained(made, made.first_state(), [], {}))
    assert (found["regime"], found["train_accuracy"], found["poisoned_train_accuracy"]) == ("terminal", 1, 0)


def test_a_class_without_test_images_has_no_say():
    """The numbers are of the classes that have images."""
    made = Setup(small())
    made.test_set = made.test_set._replace(
        images=made.test_set.images[made.test_set.labels != 9],
        labels=made.test_set.labels[made.test_set.labels != 9],
    )
    state = made.first_state()
    _, found = stages.regime(stages.Trained(made, state, [], {}))
    _, features = logits_of(made, state, made.test_set.images, triggered=False)
    assert found["nc1_test"] == pytest.approx(nc1(features, made.test_set.labels), rel=1e-3)


def test_a_network_that_computes_in_bfloat16_is_looked_at_in_float32():
    """By every stage that looks at more than its predictions, as at the same parameters in float32."""
    counts = {"fisher": 16, "near_clone": 4, "audit": 16, "collapse": 32, "features": 32}
    asked = {f"analysis__{name}": count for name, count in counts.items()}
    half, single = (Setup(tiny(model__dtype=dtype, **asked)) for dtype in ("bfloat16", "float32"))
    state = single.first_state()
    for name in ("spectrum", "fisher", "features", "near_clone", "audit"):
        found, expected = (
            stages.STAGES[name](stages.Trained(made, state, [], {})) for made in (half, single)
        )
        np.testing.assert_equal(found, expected)
    np.testing.assert_equal(*(stages.after_epoch(made, state) for made in (half, single)))
    of_training, expected = (stages.regime(stages.Trained(made, state, [], {}))[1] for made in (half, single))
    assert of_training["nc1"] == expected["nc1"]
