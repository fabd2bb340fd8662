"""Experiments: a config -> stages -> results; `run` does whichever a config names."""

import importlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import ml_collections

from poison_jax import config as config_lib
from poison_jax import console
from poison_jax.errors import RunsFailed, UserError
from poison_jax.runs import store

# Imported when asked for: no experiment pays for another's imports.
_MODULES = {
    "train": "network",
    "compare": "network",
    "krr_theory": "statements",
    "mnist_linear": "regression",
}


def run(
    config: ml_collections.ConfigDict,
    workdir: str = "runs",
    *,
    tensorboard: bool = False,
    draw: Callable[[store.Run], Iterable[Path]] = lambda _: (),
) -> list[store.Run]:
    """Runs a config's experiment, prints its summary, draws and returns the finished runs.

    What is already done is not done again; what was interrupted goes on where it stopped.

    Args:
        config: see `poison_jax.config`.
        workdir: where run directories are kept.
        tensorboard: write the metrics of a training for TensorBoard too.
        draw: called with every finished run; returns the figures' files.

    Raises:
        UserError: bad input, before any compute where it can be known then.
        RunsFailed: some arms of a comparison could not be done; the others are, and are drawn.
        Interrupted: asked to stop; what was done is kept.
    """
    from poison_jax.runs import distributed  # who only asks for `views` needs no JAX

    distributed.check_equal("their config", json.dumps(config.to_dict(), sort_keys=True))
    config_lib.check(config)
    if config.experiment not in _MODULES:
        raise UserError(f"experiment = {config.experiment} is several runs: start it with sweeps.run")
    name = _MODULES[config.experiment]
    if distributed.is_multiprocess() and name != "network":
        raise UserError(f"experiment={config.experiment} is the work of one process: start it as one")
    module = importlib.import_module(f"poison_jax.experiments.{name}")
    failure = None
    try:
        finished = module.run(config, workdir, tensorboard=tensorboard)
    except RunsFailed as error:
        finished, failure = error.finished, error
    for done in finished:
        for figure in draw(done):
            console.say(f"figure: {figure}")
    if failure is not None:
        raise failure
    return finished
