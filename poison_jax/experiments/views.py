"""Identities of a config: its run, its stages and their view; needs neither a network nor JAX."""

from typing import NamedTuple

import ml_collections

from poison_jax import config as config_lib
from poison_jax.errors import UserError
from poison_jax.runs import store


class Keys(NamedTuple):
    """The config keys that a stage reads and that do not determine the network."""

    names: tuple[str, ...]  # or groups
    wanted_by: str = ""  # the key that leaves the stage out where it is 0


STAGES = {  # in the order in which they are made
    "attack": Keys(("data.n_test",)),
    "regime": Keys(("data.n_test",)),
    "spectrum": Keys(("spectrum",)),
    "fisher": Keys(("spectrum", "analysis.fisher"), wanted_by="analysis.fisher"),
    "features": Keys(("data.n_test", "analysis.features"), wanted_by="analysis.features"),
    "near_clone": Keys(
        ("data.n_test", "analysis.near_clone", "spectrum.num_examples"), wanted_by="analysis.near_clone"
    ),
}


def identities(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Stage -> digest of the keys that it depends on, of the stages that a config of a network asks for."""
    return {
        name: store.digest(config_lib.changed(config, stage.names))
        for name, stage in STAGES.items()
        if not stage.wanted_by or config_lib.get(config, stage.wanted_by)
    }


def view(config: ml_collections.ConfigDict) -> str:
    """The digest of all stages that a single run's config asks for; "" of an experiment without stages."""
    return store.digest(identities(config)) if config.experiment == "train" else ""


def open_run(config: ml_collections.ConfigDict, workdir: str) -> store.Run:
    """The directory of a config's run, made if it is not there.

    Raises:
        UserError: it holds the run of a different config.
    """
    identity = config_lib.identity(config)
    run = store.open_run(workdir, config.name, config.to_dict(), identity)
    if config_lib.identity(config_lib.from_json(run.config(), str(run.path))) != identity:
        raise UserError(f"{run.path} holds the run of a different config: choose another --workdir or name")
    return run
