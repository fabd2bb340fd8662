"""Which config keys train another network, which look at it otherwise, and which do neither."""

import pytest
from toys import tiny

from poison_jax import config as config_lib
from poison_jax.config.table import KEYS, STAGES
from poison_jax.experiments import views

ALL = {"analysis__features": 8, "analysis__near_clone": 8, "analysis__fisher": 8, "analysis__audit": 8}
OTHER = {  # a value besides that of `tiny`, of keys whose type does not give one
    "compare.arms": (1.0,),
    "sweep.of": "krr_theory",
    "sweep.grids": ((("seed", (1,)),),),
    "data.n_train": 64,
    "data.n_test": 32,
    "poison.trigger": "square",
    "poison.fraction": 0.5,
    "model.name": "mine:make",
    "model.block": "bottleneck",
}
READ_BY = {  # the stages that a key makes again
    "spectrum.k": {"spectrum", "fisher"},
    "spectrum.num_iters": {"spectrum", "fisher"},
    "spectrum.data": {"spectrum", "fisher"},
    "spectrum.per_class": {"spectrum", "fisher"},
    "spectrum.num_examples": {"spectrum", "fisher", "near_clone"},
    "data.n_test": {"attack", "regime", "features", "near_clone", "audit"},
    "analysis.features": {"features"},
    "analysis.fisher": {"fisher"},
    "analysis.near_clone": {"near_clone"},
    "analysis.audit": {"audit"},
}
NEITHER = {"name", "data.dir", "analysis.collapse", "spectrum.batch_size"}


def other_value(key):
    """A legal value that `tiny` does not have."""
    declared, value = KEYS[key], config_lib.get(tiny(**ALL), key)
    if key in OTHER:
        return OTHER[key]
    if declared.choices:
        return next(choice for choice in declared.choices if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return type(value)(value + 1 if declared.high is None or value + 1 <= declared.high else value / 2)
    return value[:1] if isinstance(value, tuple) else "other"


@pytest.mark.parametrize("key", [key for key in KEYS if key != "experiment"])
def test_a_key_trains_another_network_or_looks_otherwise_or_does_neither(key):
    before, after = tiny(**ALL), tiny(**ALL)
    after.update_from_flattened_dict({key: other_value(key)})
    assert config_lib.get(after, key) != config_lib.get(before, key)
    trains = config_lib.identity(after) != config_lib.identity(before)
    ours, theirs = views.identities(before), views.identities(after)
    assert {stage for stage in STAGES if ours[stage] != theirs[stage]} == READ_BY.get(key, set())
    assert (views.view(after) != views.view(before)) == (key in READ_BY)
    elsewhere = key.partition(".")[0] in ("compare", "sweep", "krr", "linear")
    assert trains == (key not in READ_BY and key not in NEITHER and not elsewhere)


def test_a_stage_that_is_not_wanted_has_no_identity():
    assert set(views.identities(tiny(analysis__features=0))) == {"attack", "regime", "spectrum"}
    assert tuple(views.identities(tiny(**ALL))) == STAGES


def test_other_experiments_have_no_views():
    for experiment in ("krr_theory", "mnist_linear"):
        assert views.view(tiny(experiment=experiment)) == ""
