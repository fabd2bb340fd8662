"""Whether cells can be done with the data that there are, found out before any is begun."""

import contextlib
import multiprocessing
import os
import traceback
from multiprocessing.connection import Connection

from poison_jax import config as config_lib
from poison_jax.errors import UserError
from poison_jax.runs.files import Json
from poison_jax.runs.signals import stop_with
from poison_jax.sweeps import grid


def check(cells: list[grid.Cell]) -> None:
    """Raises what only the data can show to be wrong, once for cells that differ in what does not touch them.

    In a process of its own: this one must not take an accelerator's memory, nor start threads before it
    starts processes.
    """
    configs = [kind[0].config for kind in grid.kinds(cells)]
    if unlike := [config.to_dict() for config in configs if config.experiment == "train"]:
        spawn = multiprocessing.get_context("spawn")
        answer, told = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_set_up, args=(told, os.getpid(), unlike))
        process.start()
        told.close()
        try:
            error = answer.recv()
        except EOFError:
            raise UserError(
                "the process that looks at the data was killed, maybe for its memory: start again"
            ) from None
        finally:
            process.join()
        if error:
            raise error


def _set_up(answer: Connection, parent: int, configs: list[Json]) -> None:
    """Tells the parent what is wrong with the configs, or None."""
    stop_with(parent)
    found: BaseException | None = None
    try:
        import jax

        from poison_jax.experiments.setup import Setup

        jax.config.update("jax_platforms", "cpu")
        for config in configs:
            Setup(config_lib.from_json(config, "sweep"))
    except BaseException as error:
        error.add_note(traceback.format_exc())
        found = error
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        answer.send(found)
