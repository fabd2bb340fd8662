"""A config made concrete: sets that are too small are refused, poison that reaches nobody is said."""

import re

import jax
import numpy as np
import pytest
from PIL import Image
from toys import tiny

from poison_jax import experiments, poison, train
from poison_jax.errors import UserError
from poison_jax.experiments.setup import Setup
from poison_jax.experiments.visits import poison_visits, remarks


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A function that writes as many 8x8 images as labels, and returns the file's name."""
    monkeypatch.chdir(tmp_path)

    def write(labels, **arrays):
        labels = np.asarray(labels)
        pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8), dtype=np.uint8)
        np.savez("mine.npz", images=pixels, labels=labels, **arrays)
        return "./mine.npz"

    return write


def setup(**changes):
    """On one batch an epoch of 32 of 128 digits, or as changed; eight devices."""
    return Setup(tiny(**changes))


# --- too small --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "changes", "words"),
    [
        ([0, 1, 2, 3], {}, "class '0' has one image, and there is no test split"),
        ([0, 1, 0, 1], {}, "train.batch_size = 32 exceeds the 2 training images"),
        ([0, 1] * 30, {"train__batch_size": 8, "data__n_train": 49}, "asked for 49 examples of 48"),
        ([0, 1] * 30, {"train__batch_size": 8, "data__n_test": 13}, "asked for 13 examples of 12"),
        ([0] * 40, {"poison__target": 1, "train__batch_size": 8}, "poison.target = 1: .* classes 0 to 0"),
        ([1, 2] * 20, {"train__batch_size": 8}, "labels run from 1 to 2, and none is 0"),
        ([0, 1, 0, 1], {"experiment": "krr_theory"}, "has 2 training images, 40 are needed"),
        ([0, 1, 0, 1], {"experiment": "mnist_linear"}, "exceeds the 2 training images"),
    ],
    ids=["four-classes", "batch", "n_train", "n_test", "target", "labels", "krr", "linear"],
)
def test_a_set_that_is_too_small_costs_nothing(images, labels, changes, words, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "init_state", lambda *_, **__: pytest.fail("computed"))
    name = images(labels)
    counts = {"data__n_train": None, "data__n_test": None}
    other = {"krr__data": (name,), "krr__num_points": 40} | (
        {
            "poison__mode": "deterministic",
            "train__momentum": 0.0,
            "train__weight_decay": 0.0,
            "train__decay_times": 0,
        }
        if changes.get("experiment") == "mnist_linear"
        else {}
    )
    config = tiny(**({"data__name": name} | counts | other | changes))
    with pytest.raises(UserError, match=rf"\A[^\n]*{words}[^\n]*\Z"):
        experiments.run(config, str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


# --- poison that reaches nobody ---------------------------------------------------------------------


@pytest.mark.parametrize("labels", poison.LABEL_MAPS)
def test_visits_are_what_the_step_draws_on_average(labels):
    """Against the draw itself: the mean of many draws of all training images."""
    made = setup(poison__labels=labels, train__epochs=1)
    assert made.steps_per_epoch * 32 == 128
    visited = np.tile(made.train_set.labels, 2000)
    draws = np.random.default_rng(0).random(len(visited))
    chosen, _ = poison.select_with_noise(draws, visited, 0.3, 0.0, jax.device_get(made.knobs.labels))
    drawn = np.bincount(visited[chosen], minlength=10) / 2000
    np.testing.assert_allclose(poison_visits(made), drawn, atol=0.2)
    np.testing.assert_allclose(poison_visits(setup(poison__labels=labels)), 2 * poison_visits(made))


def test_visits_of_a_deterministic_attack_are_counted():
    made = setup(poison__mode="deterministic", train__epochs=3)
    poisoned = made.train_data().poisoned
    counts = np.bincount(made.train_set.labels[poisoned], minlength=10)
    np.testing.assert_allclose(poison_visits(made), 3 * counts)
    assert counts.sum() > 0


def test_an_incomplete_batch_is_not_visited():
    whole, cut = setup(data__n_train=128), setup(data__n_train=159)
    per_image = [poison_visits(made).sum() / (made.train_set.labels != 0).sum() for made in (whole, cut)]
    np.testing.assert_allclose(per_image[1], per_image[0] * 128 / 159)


NOBODY = r"poison\.fraction = 1e-06 poisons nobody: .* are expected in all 2 epochs of 4 batches of 32"
NO_IMAGE = r".* there is no training image of a class that poison\.labels = all_to_one poisons"
HARDLY = r".*: less than one poisoned image is expected of class '2' in the whole training"
LACKING = r"none of the 80 training images is of class '2', '3': raise data\.n_train.*"
UNTESTED = r"none of the 25 test images is of class '3': raise data\.n_test.*"
INDEX = {"poison__mode": "deterministic"}
FEW = {"train__epochs": 1, "poison__fraction": 0.016}


@pytest.mark.parametrize(
    ("labels", "changes", "said"),
    [
        (None, {}, None),
        (None, {"poison__fraction": 0.0}, None),
        (None, INDEX, None),
        (None, {"poison__fraction": 1e-6}, NOBODY),
        (None, {"poison__fraction": 1e-6} | INDEX, NOBODY),
        ([0] * 100, {}, NO_IMAGE),
        ([0] * 100, INDEX, NO_IMAGE),
        ([0, 1] * 80 + [2, 2], {"poison__fraction": 0.2}, HARDLY),
        # Of 130 training images batches of 64 visit 128, of 72 but 72.
        ([0, 1] * 81, {"train__batch_size": 64} | FEW, None),
        ([0, 1] * 81, {"train__batch_size": 72} | FEW, ".* poisons nobody: .* 1 batches of 72"),
        (np.repeat([0, 1, 2, 3], 50), {"data__n_train": 80}, LACKING),
        (np.repeat([0, 1, 2, 3], 50), {"data__n_test": 25}, UNTESTED),
        (np.repeat([0, 1, 2, 3], 50), {}, None),
    ],
)
def test_what_is_odd_about_data_and_poison_is_said(images, labels, changes, said):
    if labels is not None:
        held_out = {"test_images": np.zeros((9, 8, 8), np.uint8), "test_labels": np.zeros(9, int)}
        name = images(labels, **({} if np.any(labels) else held_out))
        changes = {"data__name": name, "data__n_train": None, "data__n_test": None} | changes
    lines = remarks(setup(**changes))
    assert len(lines) == (said is not None)
    assert all(re.fullmatch(said, line) for line in lines)


def test_the_remarks_are_said_before_the_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "init_state", {}.popitem)
    config = tiny(experiment="compare", compare__arms=(0.0, 1.0), poison__fraction=1e-6)
    with pytest.raises((TypeError, KeyError)):
        experiments.run(config, str(tmp_path))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "poisons nobody" in line]
    assert line.startswith("warning: poison.fraction = 1e-06 poisons nobody")


# --- data that change -------------------------------------------------------------------------------


def test_files_that_were_written_again_are_read_again(images, tmp_path):
    """In one process, under the same name: a file, and a folder."""
    settings = {"data__n_train": None, "data__n_test": None, "train__batch_size": 16}
    first = setup(**settings, data__name=images([0, 1] * 20)).train_set
    again = setup(**settings, data__name=images([0, 1, 2] * 20)).train_set
    assert (first.num_classes, again.num_classes) == (2, 3)
    for count in (20, 30):
        for name in "ab":
            (tmp_path / "mine" / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / "mine" / name / f"{i:02}.png")
        assert len(setup(**settings, data__name="./mine").train_set.labels) == 2 * count * 4 // 5


def test_a_relative_path_is_of_the_folder_that_one_is_in(images, tmp_path, monkeypatch):
    settings = {"data__n_train": None, "data__n_test": None, "train__batch_size": 16}
    before = setup(**settings, data__name=images([0, 1] * 20)).train_set
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    after = setup(**settings, data__name=images([0, 1, 2] * 20)).train_set
    assert (before.num_classes, after.num_classes) == (2, 3)


def test_less_memory_is_of_the_network_and_of_the_penalty():
    for remat in (False, True):
        made = setup(train__remat=remat)
        assert (made.model.module.remat, made.program.remat) == (remat, remat)


# --- others' architectures, a normalisation of one's own --------------------------------------------


def test_an_architecture_by_name_and_by_description():
    described = setup(model__name="foreign", model__architecture="conv a 4 3; flatten; linear b classes")
    logits, features = jax.eval_shape(
        described.model.apply,
        jax.eval_shape(described.first_state).variables,
        np.zeros((2, 8, 8, 1), np.float32),
    )
    assert (logits.shape, features) == ((2, 10), None)
    named = setup(model__name="foreign", model__architecture="preactresnet18", model__convolutions="xla")
    assert (named.model.module.convolutions, named.convolutions) == ("xla", "xla")
    with pytest.raises(UserError, match="did you mean lenet5"):
        setup(model__name="foreign", model__architecture="lenet")


def test_a_stated_normalisation():
    knobs = setup(data__normalise=".25/.5").knobs
    assert (np.asarray(knobs.mean), np.asarray(knobs.std)) == (0.25, 0.5)
    for bad in ("0.5", "a/b", "1,2/1", "0/0", "0/inf", "nan/1"):
        with pytest.raises(UserError, match="write MEAN/STD"):
            setup(data__normalise=bad)
