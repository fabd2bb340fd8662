"""Networks and triggers of one's own, other runs' networks, and that a run is tied to all of them."""

import contextlib
import functools
import importlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from toys import restored, tiny

from poison_jax import data, experiments, poison
from poison_jax.errors import UserError
from poison_jax.experiments import results, setup
from poison_jax.experiments.setup import Setup
from poison_jax.runs import files
from poison_jax.runs.checkpoint import Checkpoints

MODULE = '''
import flax.linen as nn
import jax.numpy as jnp
from poison_jax.models import Features


class Plain(nn.Module):
    classes: int
    featured: bool = False
    last: str = "fc"
    shift: int = 0
    width: int = 4
    activation: str = "relu"

    @nn.compact
    def __call__(self, images, train):
        x = getattr(nn, self.activation)(nn.Conv(self.width, (3, 3))(images))
        x = nn.BatchNorm(use_running_average=not train)(x)
        pre_fc = x.mean((1, 2))
        logits = nn.Dense(self.classes + self.shift, name=self.last)(pre_fc)
        return (logits, Features(pre_fc, x)) if self.featured else logits


class Broken(nn.Module):
    how: str

    @nn.compact
    def __call__(self, images, train):
        x = images.mean((1, 2))
        if self.how == "dropped":
            x = nn.Dropout(0.5, deterministic=not train)(x)
        if self.how == "counted":
            self.variable("calls", "count", lambda: jnp.zeros(()))
        logits = nn.Dense(10)(x)
        return {"named": {"logits": logits}, "paired": (logits, images)}.get(self.how, logits)


plain = Plain
featured = lambda classes: Plain(classes, featured=True)
headless = lambda classes: Plain(classes, featured=True, last="head")
wider = lambda classes: Plain(classes, width=5)
too_many = lambda classes: Plain(classes, shift=1)
dropped = lambda classes: Broken("dropped")
counted = lambda classes: Broken("counted")
named = lambda classes: Broken("named")
paired = lambda classes: Broken("paired")
number = lambda classes: 3
fails = lambda classes: 1 / 0


def bright(images):
    """The mean of an image and white, on the left half."""
    half = images.shape[2] // 2
    return images.at[:, :, :half].set((images[:, :, :half] + 1) / 2)


smaller = lambda images: images[:, 1:]
integers = lambda images: jnp.ones(images.shape, int)
nothing = lambda images: None
broken = lambda images: images @ jnp.ones((77, 3))
several = lambda images: (images, images)
'''


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A module of the user's."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine_own.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "mine_own"


@pytest.fixture(scope="module")
def source(mine, tmp_path_factory):
    """A finished run of a small network of the user's, with a penalty; nobody changes it."""
    config = tiny(train__epochs=1, model__name=f"{mine}:plain", penalty__kappa=1.0, analysis__features=40)
    (done,) = experiments.run(config, tmp_path_factory.mktemp("source"))
    return done


def run(tmp_path, **changes):
    (done,) = experiments.run(tiny(train__epochs=1, **changes), tmp_path / "runs")
    return done, done.result()


# --- a network of one's own -------------------------------------------------------------------------


def test_a_network_that_returns_logits_only(source):
    """Trained, attacked and its Hessian looked at; features are left out, and that is said."""
    result = source.result()
    assert result["parameters"] == (9 * 4 + 4) + 2 * 4 + (4 * 10 + 10)
    assert len(result["eigenvalues"]) == 3
    assert result["nc1"] is result["nc1_test"] is None
    assert "the network returns logits alone" in result["features_left_out"]
    assert "nc3" not in result
    assert not source.arrays("features")
    _, state = restored(source)
    assert jax.tree.leaves(state.batch_stats)[0].any()  # the running statistics have moved


def test_a_network_that_returns_its_features(mine, tmp_path):
    done, result = run(tmp_path, model__name=f"{mine}:featured", analysis__features=40, analysis__collapse=40)
    assert result["nc1"] > 0
    assert result["nc3"] > 0
    assert done.metrics()[0]["nc1"] > 0


def test_a_run_is_tied_to_the_variables_of_a_network_of_one_s_own(mine, monkeypatch):
    config = tiny(model__name=f"{mine}:plain")
    before = Setup(config).inputs_digest()
    assert Setup(config).inputs_digest() == before
    module = importlib.import_module(mine)
    monkeypatch.setattr(module, "plain", module.headless)
    assert Setup(config).inputs_digest() != before


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_a_run_is_tied_to_what_a_network_of_one_s_own_computes(mine, source, monkeypatch, activation):
    """Also where its variables are the same: nothing is trained, and no old result is shown."""
    changes = {"penalty__kappa": 1.0, "analysis__features": 40, "train__epochs": 1}
    config, workdir = tiny(model__name=f"{mine}:plain", **changes), source.path.parent
    (again,) = experiments.run(config, workdir)
    assert again.path == source.path
    module = importlib.import_module(mine)
    other = functools.partial(module.Plain, activation=activation)
    monkeypatch.setattr(module, "plain", other)
    with pytest.raises(UserError, match=r"the network have changed since .* choose another --workdir"):
        experiments.run(config, workdir)
    with pytest.raises(UserError, match="the network have changed since"):
        results.look_again(source, config)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("number", "the function made int, not a flax.linen.Module"),
        ("fails", "the function fails: ZeroDivisionError"),
        ("too_many", r"must return logits \(2, 10\)"),
        ("named", r"must return logits \(2, 10\)"),
        ("paired", r"or them and models\.Features"),
        ("dropped", "the network fails on images .*dropout"),
        ("counted", "has variables calls"),
        ("plein", "did you mean 'plain'"),
    ],
)
def test_networks_that_are_refused(mine, tmp_path, name, says):
    with pytest.raises(UserError, match=says) as error:
        run(tmp_path, model__name=f"{mine}:{name}")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["plain", "headless"])
def test_collapse_of_a_network_without_known_features_is_refused_before_training(mine, tmp_path, name):
    with pytest.raises(UserError, match=r"^analysis\.collapse = 8: .* set it to 0"):
        run(tmp_path, model__name=f"{mine}:{name}", analysis__collapse=8)
    assert not (tmp_path / "runs").exists()


# --- a trigger of one's own -------------------------------------------------------------------------


def test_a_trigger_that_is_a_function(mine, tmp_path):
    names = {"model__name": f"{mine}:plain", "poison__trigger": f"{mine}:bright"}
    done, result = run(tmp_path, **names, poison__when="before_augment", analysis__features=0)
    examples = done.arrays("attack")
    expected = examples["clean"].astype(float)
    expected[:, :, :4] = (expected[:, :, :4] + 255) / 2
    np.testing.assert_allclose(examples["triggered"], expected, atol=1)
    mean_change = (examples["triggered"].astype(float) - examples["clean"]).mean(0) / 255
    np.testing.assert_allclose(examples["mask"], mean_change, atol=0.01)
    assert 0 <= result["asr"] <= 1
    assert result["overlap"] != [0.0] * 3


def test_a_trigger_that_changed_is_noticed(mine, tmp_path):
    before = Setup(tiny(poison__trigger=f"{mine}:bright"))
    same, other = Setup(tiny(poison__trigger=f"{mine}:bright")), Setup(tiny())
    assert before.inputs_digest() == same.inputs_digest() != other.inputs_digest()
    trigger = poison.own_trigger(lambda images: images * 0.5, (8, 8, 1))
    same.knobs = same.knobs._replace(trigger=trigger)
    assert before.inputs_digest() != same.inputs_digest()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smaller", r"returns float32 \(2, 7, 8, 1\) for images float32 \(2, 8, 8, 1\)"),
        ("integers", r"returns int32 \(2, 8, 8, 1\)"),
        ("nothing", "returns NoneType"),
        ("several", "returns tuple"),
        ("broken", r"fails on images \(2, 8, 8, 1\)"),
        ("brighter", "did you mean 'bright'"),
    ],
)
def test_triggers_that_are_refused(mine, tmp_path, name, says):
    with pytest.raises(UserError, match=says) as error:
        run(tmp_path, poison__trigger=f"{mine}:{name}")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("trigger", ["l", "blend", "warp"])
def test_a_trigger_is_the_same_in_float64(trigger, x64):
    changes = {"poison__trigger": trigger, "poison__alpha": 0.3, "poison__value": 0.3}
    single, double = (Setup(tiny(model__dtype=dtype, **changes)).knobs for dtype in ("float32", "float64"))
    for a, b in zip(*map(jax.tree.leaves, (single, double)), strict=True):
        if a.dtype == np.float32:
            assert b.dtype == np.float64
            np.testing.assert_allclose(a, b, atol=1e-6)
    assert double.fraction == 0.3
    assert trigger != "l" or double.trigger.picture == 0.3


# --- a direction to compare with --------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before_augment", "after_augment"])
@pytest.mark.parametrize("crop", ["pad4", "crop28"])
def test_a_mask_from_a_file_is_seen_as_the_network_sees_it(tmp_path, when, crop):
    changes = {"data__augment": "crop_flip", "data__crop": crop, "poison__when": when, "poison__margin": 2}
    made = Setup(tiny(poison__trigger="square", **changes))
    side = 8 if when == "before_augment" else made.input_shape[0]
    mask = poison.square(side, side, margin=2)
    np.save(tmp_path / "mine.npy", mask)
    found = made.direction_of(str(tmp_path / "mine.npy"))
    assert found.shape == made.input_shape[:2]
    np.testing.assert_array_equal(found, made.input_mask)


def test_the_direction_of_a_picture_is_the_mean_change(tmp_path):
    """White, in the lower right corner of the images."""
    Image.new("L", (3, 2), 255).save(tmp_path / "white.png")
    made = Setup(tiny())
    found = made.direction_of(str(tmp_path / "white.png"))
    pixels = made.train_set.images / 255.0
    expected = np.zeros((8, 8, 1))
    expected[6:, 5:] = (1 - pixels[:, 6:, 5:].mean(0)) / np.asarray(made.knobs.std)
    np.testing.assert_allclose(found, expected, atol=1e-5)


# --- another run's network, and what a run is tied to -----------------------------------------------


def test_training_starts_from_another_run_s_network(source, tmp_path):
    _, trained = restored(source)
    changes = {"model__name": source.config()["model"]["name"], "penalty__kappa": 1.0}
    config = tiny(train__init_from=str(source.path), poison__fraction=0.0, **changes)
    start, fresh = Setup(config).first_state(), Setup(tiny(**changes)).first_state()
    for part in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, getattr(start, part), getattr(trained, part))
    assert int(start.step) == 0
    jax.tree.map(np.testing.assert_array_equal, start.opt_state, fresh.opt_state)
    # Nothing is learned: what comes out is what went in.
    frozen, _ = run(tmp_path, train__init_from=str(source.path), train__learning_rate=0.0, **changes)
    assert frozen.path.name != source.path.name
    _, after = restored(frozen)
    jax.tree.map(np.testing.assert_array_equal, after.params, trained.params)


def test_a_run_is_tied_to_the_network_that_it_starts_from(source, tmp_path):
    folder = shutil.copytree(source.path, tmp_path / "copy")
    config = tiny(model__name=source.config()["model"]["name"], train__init_from=str(folder))
    before = Setup(config).inputs_digest()
    with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        state, note = checkpoints.restore(Setup(config).first_state())
        params = jax.tree.map(lambda leaf: leaf + 1, state.params)
        checkpoints.save(
            int(state.step) + 1,
            state._replace(params=params, step=state.step + 1),
            {"metrics": note["metrics"]},
        )
    assert Setup(config).inputs_digest() != before


def test_a_network_that_is_not_trained_to_the_end_is_refused(source, tmp_path):
    """As where the source was stopped before its end, or its last checkpoint is damaged."""
    folder = shutil.copytree(source.path, tmp_path / "copy")
    config = tiny(model__name=source.config()["model"]["name"], train__init_from=str(folder))
    files.write_json(folder / "config.json", source.config() | {"train": {"epochs": 2}})
    with pytest.raises(UserError, match=r"^train\.init_from: .* trained to the end, name the folder"):
        Setup(config)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        Setup(config)


@pytest.mark.parametrize("other", ["wider", "headless"])
def test_a_network_of_another_shape_is_refused(mine, source, tmp_path, other):
    with pytest.raises(UserError, match=r"^train\.init_from: .* no whole checkpoint .* of this shape"):
        run(tmp_path, train__init_from=str(source.path), model__name=f"{mine}:{other}")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match=r"^train\.init_from: .*name the folder of a run"):
        Setup(tiny(train__init_from=str(tmp_path / "nothing")))


def test_a_run_is_tied_to_all_test_images_but_not_to_how_many_are_looked_at(tmp_path, monkeypatch):
    digits = data.load("digits", "test")
    before = Setup(tiny()).inputs_digest()
    assert Setup(tiny(data__n_test=10)).inputs_digest() == before
    loaded = setup._load

    def changed(name, split, *more):
        found = loaded(name, split, *more)
        return found._replace(labels=digits.labels[::-1]) if split == "test" else found

    monkeypatch.setattr(setup, "_load", changed)
    assert Setup(tiny()).inputs_digest() != before
