"""The config, the files in configs/, and what is refused before anything is computed or written."""

import math
import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from poison_jax import config as config_lib
from poison_jax import experiments, models, poison, train
from poison_jax.config.keys import imported
from poison_jax.config.table import FIRST_DEFAULTS, KEYS
from poison_jax.errors import UserError
from poison_jax.experiments import views
from poison_jax.experiments.setup import Setup
from poison_jax.runs import files, store

ROOT = Path(__file__).parents[1]
FILES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "common")
CIFAR = [name for name in FILES if name.startswith("cifar")]

TABLE = {  # of design.md: commands written today keep working
    "": "experiment name seed",
    "data": "name dir n_train n_test augment crop",
    "model": "name depth block width dtype",
    "poison": "trigger mode fraction target margin size value when",
    "penalty": "kappa reduction batch_norm",
    "train": "epochs batch_size learning_rate momentum weight_decay decay_factor decay_times",
    "spectrum": "k num_iters num_examples data batch_size",
}
DIGESTS = {  # of the defaults that the keys of a group were added with
    "analysis": "3f43035dc037",
    "data": "add2ffc1ec34",
    "krr": "925488610dd2",
    "linear": "4cf79643214a",
    "model": "9619ed86ba5f",
    "penalty": "b6207ee33070",
    "poison": "39cc1af3b281",
    "spectrum": "ca334d4993db",
    "train": "941641ee45d8",
}
FIXED = [f"{group}.{name}".lstrip(".") for group, names in TABLE.items() for name in names.split()]


def edited(changes, base=None):
    """A config with some keys changed, as a flag or a file in configs/ changes them."""
    config = base or config_lib.default()
    config.update_from_flattened_dict(changes)
    return config


def digits(**changes):
    """A small digits run, `group__key=value` changed."""
    small = {
        "data.name": "digits",
        "model.depth": 8,
        "model.block": "basic",
        "poison.margin": 0,
        "train.batch_size": 64,
    }
    return edited(small | {key.replace("__", "."): value for key, value in changes.items()})


def identity(config):
    """The digest of what a run of the config is, the same once it is stored and read again."""
    found = config_lib.identity(config)
    assert found == config_lib.identity(config_lib.from_json(config.to_dict(), "run"))
    return store.digest(found)


def message(error, *needed):
    """Asserts that an error's message is one readable line with the `needed` words in it."""
    text = str(error.value)
    assert "\n" not in text
    assert "\\n" not in text
    for words in needed:
        assert words in text
    return text


# --- the default ------------------------------------------------------------------------------------


def test_default_is_legal():
    config_lib.check(config_lib.default())


@pytest.mark.parametrize("group", ["", "penalty", "compare"])
def test_default_is_locked(group):
    config = config_lib.default()
    with pytest.raises((AttributeError, KeyError)):
        (config[group] if group else config).nosuch = 1


def test_the_keys_of_the_design_exist():
    assert not set(FIXED) - set(KEYS), "a command that worked no longer does"


# --- the declaration --------------------------------------------------------------------------------


def test_every_key_is_declared_in_full():
    for name, key in KEYS.items():
        assert key.meaning, "a key without a meaning helps nobody"
        assert key.meaning == key.meaning.strip(" .;"), name
        key.check(name, key.default)
        assert not key.choices or key.default in key.choices
        assert key.low is None or key.each or key.default is None or key.low <= key.default
        assert not (key.stages and "train" in key.determines), "a stage reads a network, and determines none"


def test_description_has_every_key_with_its_default_choices_and_bounds():
    text = config_lib.describe()
    assert max(map(len, text.splitlines())) <= 100
    words = " ".join(text.split())
    for name, key in KEYS.items():
        assert f"--config.{name}=" in text
        assert key.meaning in words
        assert all(choice in words for choice in key.choices)
    assert "--config.penalty.kappa=0.0 strength of the gradient penalty" in words
    assert "--config.data.n_train=all training images, the first in stored order; at least 1" in words
    assert "--config.poison.mode=stochastic" in words
    assert "one of stochastic, deterministic" in words
    assert "in normalised pixels; finite and at least 0" in words


def test_choices_and_bounds_are_those_of_the_code():
    assert KEYS["poison.labels"].choices == poison.LABEL_MAPS
    assert KEYS["model.width"].high == models.LARGEST


# --- counts that may be all -------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["data.n_train", "data.n_test"])
@pytest.mark.parametrize("word", ["all", None])
def test_all_images_can_be_asked_for_where_a_file_asks_for_fewer(key, word):
    fewer = edited({key: 100})
    every = edited({key: word}, fewer)
    config_lib.check(every)
    config_lib.pin(every, [key])
    assert config_lib.get(every, key) is None
    assert identity(every) == identity(config_lib.default())


@pytest.mark.parametrize("word", ["all", "None", "'all'", "300"])
def test_a_count_on_the_command_line(word, monkeypatch):
    values, line = flags.FlagValues(), ["main.py", f"--config.data.n_test={word}"]
    monkeypatch.setattr(sys, "argv", line)
    config_flags.DEFINE_config_dict("config", edited({"data.n_test": 100}), flag_values=values)
    values(line)
    config_lib.check(values.config)
    config_lib.pin(values.config, ["data.n_test"])
    assert values.config.data.n_test == (300 if word == "300" else None)


def test_all_images_in_an_arm_and_a_cell():
    config = edited({"experiment": "compare", "compare.key": "data.n_train", "compare.arms": (100, "all")})
    config_lib.check(config)
    assert [arm.data.n_train for arm in config_lib.arms(config)] == [100, None]
    cell = config_lib.default()
    assert config_lib.assign(cell, "data.n_train,seed", ("all", 3), "sweep.grids") == {
        "data.n_train": None,
        "seed": 3,
    }


# --- what a run is ----------------------------------------------------------------------------------


def test_first_defaults():
    """If a default has changed: runs would be renamed, so put its old value into `FIRST_DEFAULTS`.

    If a key was added, its group has another digest from now on.
    """
    first = {name: FIRST_DEFAULTS.get(name, key.default) for name, key in KEYS.items()}
    named = {name: value for name, value in first.items() if KEYS[name].determines or KEYS[name].stages}
    groups = {name.partition(".")[0] for name in named}
    found = {
        group: store.digest({k: v for k, v in named.items() if k.partition(".")[0] == group})
        for group in sorted(groups - {"experiment", "seed"})
    }
    assert (first["experiment"], first["seed"]) == ("train", 0)
    assert found == DIGESTS


def test_a_default_that_changed_renames_no_run(monkeypatch):
    stays, moves = edited({"train.epochs": 90}), edited({"train.epochs": 80})
    before = config_lib.identity(stays), config_lib.identity(moves)
    monkeypatch.setitem(KEYS, "train.epochs", KEYS["train.epochs"]._replace(default=80))
    monkeypatch.setitem(FIRST_DEFAULTS, "train.epochs", 90)
    assert (config_lib.identity(stays), config_lib.identity(moves)) == before == ({}, {"train.epochs": 80})


def test_identity_has_what_differs_and_determines_the_network():
    changes = {
        "penalty.kappa": 30,
        "model.convolutions": "xla",
        "train.init_from": "runs/other",
        "data.n_train": 100,
    }
    left_out = {
        "name": "x",
        "data.dir": "/elsewhere",
        "spectrum.k": 3,
        "analysis.fisher": 10,
        "sweep.workers": 4,
        "krr.ridge": 1.0,
        "linear.seeds": (5,),
        "compare.arms": (1.0,),
    }
    found = config_lib.identity(edited(changes | left_out))
    assert found == changes
    assert type(found["penalty.kappa"]) is float


@pytest.mark.parametrize(
    ("experiment", "key", "value", "counts"),
    [
        ("krr_theory", "krr.ridge", 1.0, True),
        ("krr_theory", "poison.size", 3, True),
        ("krr_theory", "seed", 1, True),
        ("mnist_linear", "linear.ridges", (1.0, 2.0), True),
        ("mnist_linear", "train.epochs", 5, True),
        ("krr_theory", "train.epochs", 5, False),
        ("krr_theory", "spectrum.k", 3, False),
        ("mnist_linear", "seed", 1, False),
        ("mnist_linear", "poison.fraction", 0.5, False),
        ("mnist_linear", "penalty.kappa", 1.0, False),
    ],
)
def test_identity_is_of_the_experiment(experiment, key, value, counts):
    found = config_lib.identity(edited({"experiment": experiment, key: value}))
    assert found == {"experiment": experiment} | ({key: value} if counts else {})


@pytest.mark.parametrize("experiment", ["compare", "sweep"])
def test_several_runs_have_no_identity(experiment):
    with pytest.raises(ValueError, match="several runs"):
        config_lib.identity(edited({"experiment": experiment}))


@pytest.mark.parametrize("ridges", [(400, 1600, 12800), [400.0, 1600.0, 12800.0]])
def test_identity_does_not_depend_on_how_a_number_is_written(ridges):
    config = config_lib.default().unlock()
    config.experiment, config.linear = "mnist_linear", config.linear.to_dict() | {"ridges": ridges}
    assert config_lib.identity(config) == {"experiment": "mnist_linear"}


def test_a_key_that_is_gone_does_not_spoil_a_stored_config():
    stored = config_lib.default().to_dict()
    stored["train"]["together"] = 4
    assert config_lib.from_json(stored, "run").to_dict() == config_lib.default().to_dict()


# --- functions of the user's own --------------------------------------------------------------------


NO_FUNCTION = ("mine", "mine:", ":make", "a:b:c", "a b:c", "a-b:c", "a:b()", "a/b:c")


@pytest.mark.parametrize("key", ["poison.trigger", "model.name"])
@pytest.mark.parametrize("name", ["mine:make", "my.package:make_it", "_a1:_b2"])
def test_own_functions_are_legal_choices(key, name):
    config_lib.check(edited({key: name}))


@pytest.mark.parametrize(
    ("key", "name"),
    [("poison.mode", "mine:make"), *(("poison.trigger", n) for n in NO_FUNCTION), ("model.name", "a b:c")],
)
def test_what_names_no_function_is_refused(key, name):
    with pytest.raises(UserError) as error:
        config_lib.check(edited({key: name}))
    message(error, key, "use one of")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that writes a user's module under a new name, and returns the name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, source):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


def test_own_function_is_imported(module):
    name = module("own_function", "def make(x):\n    return x + 1\n")
    assert imported(f"{name}:make")(1) == 2


@pytest.mark.parametrize(
    ("source", "function", "words"),
    [
        (None, "make", ["cannot be imported", "PYTHONPATH"]),
        ("1 / 0", "make", ["cannot be imported", "ZeroDivisionError"]),
        ("def broken(:", "make", ["cannot be imported", "SyntaxError"]),
        ("raise ValueError('two\\nlines')", "make", ["two lines"]),
        ("def make_it(): pass", "make", ["no function 'make'", "'make_it'"]),
        ("make = 3", "make", ["no function 'make'"]),
    ],
)
def test_own_function_that_cannot_be_had_says_so_in_a_line(module, source, function, words):
    name = "own_absent" if source is None else module("own_module", source)
    with pytest.raises(UserError) as error:
        imported(f"{name}:{function}")
    message(error, f"{name}:{function}", *words)


# --- check ------------------------------------------------------------------------------------------

CHOICES = [name for name, key in KEYS.items() if key.choices]
NOT_FINITE = (math.nan, math.inf, -math.inf)
BAD = {
    "name": ("", "a/b", "a b", ".hidden", "x" * 201, "猫" * 67),
    "seed": (-1, 2**32),
    "data.n_train": (0, -1, 1.5, True, "many"),
    "data.n_test": (0,),
    "model.width": (0, 10_001),
    "poison.fraction": (-0.01, 1.01, *NOT_FINITE),
    "poison.value": (-0.1, 1.1, *NOT_FINITE),
    "poison.target": (-1,),
    "poison.margin": (-1,),
    "poison.size": (0,),
    "poison.source": (-1,),
    "poison.alpha": (0.0, -0.1, 1.1, math.nan),
    "poison.hide": (-1.0, *NOT_FINITE),
    "poison.warp.k": (0, 1001),
    "poison.warp.strength": (-0.1, *NOT_FINITE),
    "poison.warp.grid_rescale": (0.0, math.inf),
    "poison.warp.cross_ratio": (-1.0, 1.0, math.nan),  # with the default trigger
    "penalty.kappa": (-1.0, -1e-9, 1e39, None, *NOT_FINITE),  # more than 32 bits hold
    "penalty.epsilon": (-0.1, *NOT_FINITE),
    "penalty.steps": (0, 10**30),
    "analysis.features": (-1,),
    "analysis.near_clone": (-1,),
    "analysis.collapse": (-1,),
    "analysis.fisher": (-1,),
    "train.epochs": (0, 10**30),
    "train.batch_size": (0,),
    "train.learning_rate": (-0.1, *NOT_FINITE),
    "train.momentum": (-0.1, 1.1, math.nan),
    "train.weight_decay": (-1e-4, *NOT_FINITE),
    "train.decay_factor": (-0.1, *NOT_FINITE),
    "train.decay_times": (-1,),
    "spectrum.k": (0, 11),  # of 10 iterations
    "spectrum.num_iters": (0, 4, None),  # for 5 eigenpairs
    "spectrum.num_examples": (0,),
    "spectrum.batch_size": (0,),
}


@pytest.mark.parametrize(
    ("key", "value"), [*((key, "nosuch") for key in CHOICES), *((k, v) for k, vs in BAD.items() for v in vs)]
)
def test_bad_value_is_refused_by_name(key, value):
    with pytest.raises(UserError) as error:
        config_lib.check(edited({key: value}))
    message(error, key, str(value), *KEYS[key].choices)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"poison.trigger": "none"}, "poison.fraction"),
        ({"poison.trigger": "mask"}, "poison.mask"),
        ({"poison.mask": "mask.npy"}, "poison.mask"),
        ({"poison.picture": "cat.png"}, "poison.picture"),
        ({"model.architecture": "lenet5"}, "set both or neither"),
        ({"model.name": "foreign"}, "set both or neither"),
        ({"model.name": "foreign", "model.architecture": "lenet5", "train.remat": True}, "train.remat"),
        ({"poison.labels": "source_specific", "poison.source": 0}, "poison.source"),
        ({"poison.hide": 1.0, "poison.labels": "all_to_all"}, "poison.hide"),
        ({"poison.trigger": "warp", "poison.fraction": 0.4, "poison.warp.cross_ratio": 2.0}, "cross_ratio"),
        (
            {"poison.trigger": "warp", "poison.warp.cross_ratio": 2.0, "spectrum.data": "poisoned"},
            "spectrum.data",
        ),
        ({"penalty.kappa": 1.0, "penalty.epsilon": 0.5}, "penalty.epsilon"),
        ({"experiment": "compare", "compare.key": "penalty.kappa,penalty.epsilon"}, "compare.key"),
        ({"experiment": "compare", "compare.arms": ()}, "compare.arms"),
        ({"experiment": "compare", "compare.arms": (0.0, -1.0)}, "penalty.kappa"),
        ({"experiment": "compare", "compare.arms": (0.0, None)}, "penalty.kappa"),
        ({"experiment": "compare", "compare.key": "spectrum.k", "compare.arms": (5, 11)}, "spectrum.k"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes, key):
    with pytest.raises(UserError) as error:
        config_lib.check(edited(changes))
    message(error, key)


@pytest.mark.parametrize(
    "changes",
    [
        {"poison__fraction": 0.0},
        {"poison__fraction": 1.0},
        {"poison__trigger": "none", "poison__fraction": 0.0},
        {"poison__target": 9},
        {"poison__margin": 6},  # touches the opposite edges of 8x8
        {"poison__trigger": "blend", "poison__alpha": 0.2},
        {"poison__trigger": "warp", "poison__warp__cross_ratio": 2.0},
        {"poison__trigger": "warp", "poison__warp__strength": 0.0, "poison__warp__k": 1},
        {"poison__labels": "all_to_all"},
        {"poison__labels": "source_specific", "poison__source": 9},
        {"poison__labels": "clean_label", "poison__hide": 1.0},
        {"penalty__epsilon": 0.5, "penalty__steps": 3},
        {"penalty__kappa": 0.0},
        {"train__epochs": 1},
        {"train__epochs": 1, "train__decay_times": 5},
        {"train__decay_times": 0},
        {"train__learning_rate": 0.0},
        {"train__batch_size": 1432},  # one step an epoch
        {"data__n_train": 64, "data__n_test": 1},
        {"spectrum__k": 1, "spectrum__num_iters": 1},
        {"spectrum__k": 64, "spectrum__num_iters": 64},  # the input dimension
        {"spectrum__num_examples": 10**9},  # at most
        {"seed": 2**32 - 1},
    ],
    ids=str,
)
def test_odd_but_legal_values_pass(changes):
    config = digits(**changes)
    config_lib.check(config)
    setup = Setup(config)
    assert setup.knobs.fraction == np.float32(config.poison.fraction)


# --- compare ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("penalty.kappa", (0.0, 30.0)),
        ("penalty.kappa", (0, 30)),  # as on the command line
        ("poison.mode", ("stochastic", "deterministic")),
        ("seed", (0, 1, 2)),
        ("data.n_train", (100, 200)),
    ],
)
def test_arms_are_the_runs_asked_for_directly(key, values):
    config = edited({"experiment": "compare", "compare.key": key, "compare.arms": values})
    before = config.to_dict()
    arms = config_lib.arms(config)
    assert [config_lib.get(arm, key) for arm in arms] == list(values)
    assert {arm.experiment for arm in arms} == {"train"}
    assert len({identity(arm) for arm in arms}) == len(values)
    assert config.to_dict() == before
    for arm, value in zip(arms, values, strict=True):
        for direct in (
            edited({key: value}),
            edited({"experiment": "train", key: value}, config),  # the file's compare.* still in it
            edited({key: value, "data.dir": "/elsewhere"}),
        ):
            assert identity(config_lib.arms(direct)[0]) == identity(arm)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("penalty.kapa", 1.0),
        ("pennalty.kappa", 1.0),
        ("penalty", 1.0),
        ("nosuch", 1.0),
        ("", 1.0),
        ("seed", 1.5),
        ("data.name", 1),
        ("experiment", "compare"),  # an arm is a single run
        ("compare.key", "seed"),
    ],
)
def test_bad_compare_key_is_refused(key, value):
    config = edited({"experiment": "compare", "compare.key": key, "compare.arms": (value,)})
    with pytest.raises(UserError) as error:
        config_lib.check(config)
    text = message(error, "compare.key", repr(key))
    assert "'penalty.kappa'" in text or key != "penalty.kapa"


def test_arms_may_differ_in_several_keys():
    config = edited(
        {
            "experiment": "compare",
            "compare.key": "penalty.kappa, penalty.epsilon",
            "compare.arms": ((0.0, 0.0), (30.0, 0.0), (0.0, 0.5)),
        }
    )
    config_lib.check(config)
    arms = config_lib.arms(config)
    assert [(arm.penalty.kappa, arm.penalty.epsilon) for arm in arms] == list(config.compare.arms)
    assert identity(arms[1]) == identity(config_lib.arms(edited({"penalty.kappa": 30.0}))[0])


# --- the files in configs/ --------------------------------------------------------------------------


@pytest.fixture
def get_config(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)  # as main.py's directory is
    return lambda name: runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]


@pytest.mark.parametrize("name", FILES)
def test_config_file_is_legal_in_every_size(name, get_config):
    get = get_config(name)
    sizes = re.findall(rf"{name}\.py:(\w+)", (ROOT / "configs" / f"{name}.py").read_text())  # its commands
    for arguments in [(), *((size,) for size in sizes)]:
        config = get(*arguments)
        config_lib.check(config)
        paper, keys = config_lib.flatten(get()), config_lib.flatten(config_lib.default()).keys()
        assert config_lib.flatten(config).keys() == keys
        # Another size differs in values of the same types, and not in what it is an experiment on.
        changed = {key: value for key, value in config_lib.flatten(config).items() if value != paper[key]}
        assert all(paper[key] is None or type(paper[key]) is type(value) for key, value in changed.items())
        assert not changed.keys() & {"experiment", "name", "data.name", "poison.mode", "penalty.reduction"}


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_is_at_the_papers_scale(name, get_config):
    config = get_config(name)()
    expected = {
        "data.name": name.split("_")[0],
        "data.n_train": None,
        "data.n_test": None,
        "model.depth": 110,
        "poison.trigger": "warp" if "warp" in name else "l",
        "poison.mode": "deterministic" if "deterministic" in name else "stochastic",
        "poison.margin": 3,
        "poison.size": 2,
        "train.epochs": 90,
        "train.batch_size": 128,
        "train.learning_rate": 0.1,
        "train.momentum": 0.9,
        "train.decay_factor": 0.1,
        "train.decay_times": 2,
        "spectrum.data": "poisoned" if "deterministic" in name else "clean",
    }
    assert {key: config_lib.get(config, key) for key in expected} == expected


SIZES = {  # what a size means for a network on CIFAR, in every file
    "small": {"data.n_train": 4_000, "data.n_test": 2_000, "model.depth": 20, "train.epochs": 45},
    "short": {"data.n_train": 5_000, "data.n_test": 1_000, "model.depth": 8, "train.epochs": 8},
    "medium": {"data.n_train": 10_000, "data.n_test": 2_000, "model.depth": 20, "train.epochs": 10},
}
SWEEPS = sorted(path.stem for path in (ROOT / "configs" / "sweeps").glob("[ft]*[0-9].py"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*CIFAR, *(f"sweeps/{name}" for name in SWEEPS if name != "fig05")])
def test_a_size_means_the_same_everywhere(name, size, get_config):
    config = get_config(name)(size)
    config_lib.check(config)
    assert {key: config_lib.get(config, key) for key in SIZES[size]} == SIZES[size]


@pytest.mark.parametrize("name", CIFAR)
def test_unknown_size_is_refused(name, get_config):
    with pytest.raises(UserError) as error:
        get_config(name)("tiny")
    message(error, "tiny", "small")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c.penalty.__delattr__("kappa"), ["no key 'penalty.kappa'", "default()"]),
        (lambda c: c.__delattr__("penalty"), ["no key 'penalty.", "default()"]),
        (lambda c: c.__setattr__("penalty", None), ["no key 'penalty."]),
        (lambda c: c.model.__setattr__("depth", None), ["model.depth = None", "int"]),
        (lambda c: c.krr.__setattr__("data", (1,)), ["krr.data = (1,)"]),
    ],
)
def test_a_config_of_another_form(edit, words):
    config = config_lib.default().unlock()
    edit(config)
    with pytest.raises(UserError) as error:
        config_lib.check(config)
    message(error, *words)


@pytest.mark.parametrize("stored", [{"a.b": 1}, {"model": 5}, {"model": {"depth": "x"}}, {"colour": 1}])
def test_a_stored_config_of_another_form(stored):
    with pytest.raises(UserError, match=r"\Arun: "):
        config_lib.from_json(stored, "run")


def test_the_experiment_itself_is_no_axis():
    config = config_lib.default()
    config.experiment, config.compare.key = "compare", "experiment"
    config_lib.pin(config, ["experiment"])
    with pytest.raises(UserError, match="is not a key that runs can differ in"):
        config_lib.check(config)


# --- refused once the data are known, before any compute --------------------------------------------


@pytest.fixture
def no_compute(monkeypatch):
    monkeypatch.setattr(train, "init_state", lambda *_, **__: pytest.fail("computed"))


several_devices = pytest.mark.skipif(jax.device_count() == 1, reason="any batch suits one device")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__name": "nosuch"}, ["nosuch", "cifar10"]),
        ({"data__name": "./nosuch.npz"}, ["nosuch.npz"]),
        ({"data__n_train": 1439}, ["data.n_train", "1439", "1438"]),
        ({"data__n_test": 360}, ["n_test", "360", "359"]),
        ({"poison__target": 10}, ["poison.target", "0 to 9"]),
        ({"poison__margin": 7}, ["margin 7", "8x8"]),
        ({"poison__trigger": "square", "poison__size": 9}, ["size 9", "8x8"]),
        ({"poison__trigger": "mask", "poison__mask": "/nosuch.npy"}, ["poison.mask", "/nosuch.npy"]),
        ({"poison__trigger": "blend", "poison__picture": "/nosuch.png"}, ["poison.picture", "/nosuch.png"]),
        ({"poison__labels": "source_specific", "poison__source": 10}, ["poison.source", "0 to 9"]),
        ({"model__depth": 9}, ["model.depth", "6n + 2", "nearest is 8"]),
        ({"model__depth": 109}, ["model.depth", "nearest is 110"]),
        ({"model__depth": -5}, ["model.depth", "nearest is 8"]),
        ({"model__depth": 108, "model__block": "bottleneck"}, ["model.depth", "9n + 2", "nearest is 110"]),
        ({"model__depth": 8, "model__block": "bottleneck"}, ["model.depth", "nearest is 11"]),
        ({"model__block": "nosuch"}, ["model.block", "basic", "bottleneck"]),
        ({"model__dtype": "nosuch"}, ["model.dtype", "float32", "bfloat16"]),
        ({"model__dtype": "float64"}, ["model.dtype = float64", "JAX_ENABLE_X64=1"]),
        ({"model__width": 0}, ["model.width"]),
        ({"model__width": 10**30}, ["model.width", "at most 10000"]),
        ({"model__depth": 6 * 10**30 + 2}, ["model.depth", "nearest is 9998"]),
        ({"spectrum__num_iters": 65}, ["spectrum.num_iters", "64"]),
        ({"train__batch_size": 1440}, ["train.batch_size", "1438"]),
        ({"train__batch_size": 128, "data__n_train": 127}, ["train.batch_size", "127"]),
        pytest.param({"train__batch_size": 60}, ["train.batch_size = 60", "devices"], marks=several_devices),
        pytest.param({"spectrum__batch_size": 60}, ["spectrum.batch_size = 60"], marks=several_devices),
        ({"experiment": "compare", "compare__key": "poison.target", "compare__arms": (0, 10)}, ["0 to 9"]),
    ],
    ids=str,
)
def test_bad_input_costs_nothing(changes, words, tmp_path, no_compute):
    with pytest.raises(UserError) as error:
        experiments.run(digits(**changes), str(tmp_path / "runs"))
    message(error, *words)
    assert not (tmp_path / "runs").exists()


def test_where_its_data_lie_is_not_a_run_s_identity():
    key, value = "data.dir", "/elsewhere"
    assert identity(edited({key: value})) == identity(config_lib.default())
    with pytest.raises(UserError, match="not a key that runs can differ in"):
        config_lib.arms(edited({"experiment": "compare", "compare.key": key, "compare.arms": (value,)}))


def test_a_network_that_no_device_holds_is_refused_before_it_is_made(no_compute):
    with pytest.raises(UserError) as error:
        Setup(digits(model__width=9_000))
    message(error, "model.width = 9000", "GiB", "lower one of them")


@pytest.mark.parametrize("taken", [0, 1], ids=["first arm", "second arm"])
def test_another_configs_run_is_left_alone(taken, tmp_path, no_compute):
    config = digits(experiment="compare", compare__arms=(0.0, 30.0))
    arm = config_lib.arms(config)[taken]
    run = views.open_run(arm, tmp_path)
    file = run.path / "config.json"
    files.write_json(file, arm.to_dict() | {"seed": 1})
    before = file.read_bytes()
    with pytest.raises(UserError) as error:
        experiments.run(config, str(tmp_path))
    message(error, "different config", str(run.path), "--workdir")
    assert file.read_bytes() == before
    assert [path.name for path in run.path.iterdir()] == ["config.json"]
