"""Which config keys train another network, which look at it otherwise, and which do neither."""

import pytest
from toys import tiny

from poison_jax import config as config_lib
from poison_jax.config.table import KEYS
from poison_jax.experiments import views

OTHER = {  # a value besides the default, of keys whose type does not give one
    "experiment": "train",
    "name": "other",
    "compare.key": "seed",
    "compare.arms": (1.0,),
    "sweep.of": "krr_theory",
    "sweep.grids": ((("seed", (1,)),),),
    "data.name": "digits",
    "data.dir": "/elsewhere",
    "model.name": "mine:make",
    "poison.trigger": "square",
    "krr.data": ("digits",),
}
STAGE_KEYS = {
    key
    for stage in views.STAGES.values()
    for key in KEYS
    if any(key == name or key.startswith(f"{name}.") for name in stage.names)
} - {"spectrum.batch_size"}  # changes memory, not the result


def kind(key):
    """What a key does to a run of a network, by its declaration."""
    if "train" in KEYS[key].determines:
        return "determines"
    return "stage" if key in STAGE_KEYS else "neither"


def changed(key):
    """A config of a network in which a key has another value than in the default."""
    declared, config = KEYS[key], config_lib.default()
    if key in OTHER:
        value = OTHER[key]
    elif declared.choices:
        value = next(choice for choice in declared.choices if choice != declared.default)
    elif declared.all_is_none:
        value = 7
    elif isinstance(declared.default, bool):
        value = not declared.default
    elif isinstance(declared.default, int | float):
        value = declared.default + 1 if declared.high is None or declared.default < declared.high else 0.5
        value = type(declared.default)(min(value, declared.high or value))
    elif isinstance(declared.default, tuple):
        value = declared.default[:1]
    else:
        value = "other"
    config.update_from_flattened_dict({key: value})
    return config


@pytest.mark.parametrize("key", [key for key in KEYS if key != "experiment"])
def test_a_key_trains_another_network_or_looks_otherwise_or_does_neither(key):
    default, config = config_lib.default(), changed(key)
    assert config_lib.get(config, key) != config_lib.get(default, key)
    trains = config_lib.identity(config) != config_lib.identity(default)
    looks = views.view(config) != views.view(default)
    assert (trains, looks) == {
        "determines": (True, False),
        "stage": (False, True),
        "neither": (False, False),
    }[kind(key)]


def test_every_key_is_of_one_kind():
    """As it is declared: a stage's key is read by a stage, and by no training."""
    assert {key for key, declared in KEYS.items() if declared.stage} == STAGE_KEYS
    assert not [key for key in STAGE_KEYS if "train" in KEYS[key].determines]
    neither = {key for key in KEYS if kind(key) == "neither"}
    assert neither - {
        key for key in KEYS if key.partition(".")[0] in ("compare", "sweep", "krr", "linear")
    } == {"name", "data.dir", "analysis.collapse", "spectrum.batch_size"}


def test_a_stage_that_is_not_wanted_has_no_identity():
    default = views.identities(tiny(analysis__features=0))
    assert set(default) == {"attack", "regime", "spectrum"}
    asked = {"analysis__features": 9, "analysis__near_clone": 9, "analysis__fisher": 9}
    assert set(views.identities(tiny(**asked))) == set(views.STAGES)


@pytest.mark.parametrize(
    ("key", "stages"),
    [
        ("spectrum.k", {"spectrum", "fisher"}),
        ("spectrum.num_examples", {"spectrum", "fisher", "near_clone"}),
        ("data.n_test", {"attack", "regime", "features", "near_clone"}),
        ("analysis.features", {"features"}),
        ("analysis.fisher", {"fisher"}),
        ("analysis.near_clone", {"near_clone"}),
    ],
)
def test_a_key_makes_only_the_stages_again_that_read_it(key, stages):
    config = tiny(analysis__features=8, analysis__near_clone=8, analysis__fisher=8)
    before = views.identities(config)
    config.update_from_flattened_dict({key: 5})
    after = views.identities(config)
    assert {name for name in before if before[name] != after[name]} == stages


def test_other_experiments_have_no_views():
    for experiment in ("krr_theory", "mnist_linear"):
        assert views.view(tiny(experiment=experiment)) == ""
