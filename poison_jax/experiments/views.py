"""Identities of a config: its run, its stages and their view; needs neither a network nor JAX."""

import ml_collections

from poison_jax import config as config_lib
from poison_jax.config.table import STAGES
from poison_jax.errors import UserError
from poison_jax.runs import store


def identities(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Stage -> digest of the keys that it depends on, of the stages that a config of a network asks for."""
    return {
        stage: store.digest(config_lib.stage_identity(config, stage))
        for stage in STAGES
        if config.analysis.get(stage, True)
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
