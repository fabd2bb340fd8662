"""A sweep: its cells done by worker processes, by a Ray cluster or by whoever else works on the store.

This process trains nothing: it starts the workers, shows how far the sweep is, and starts others where
some have died. Killed at any moment, the sweep loses at most the running epochs; the same command goes on.
"""

import contextlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ml_collections

from poison_jax import config as config_lib
from poison_jax import console
from poison_jax.errors import Interrupted, RunsFailed, UserError
from poison_jax.runs import records
from poison_jax.runs.files import Json
from poison_jax.runs.signals import StopSignals, stop_with
from poison_jax.sweeps import grid, stored
from poison_jax.sweeps.board import Board
from poison_jax.sweeps.processes import Processes
from poison_jax.sweeps.table import Progress, summary

POLL = 0.5  # seconds between two looks at whether to stop; the store is looked at every fourth time


def run(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    tensorboard: bool,
    retry: bool,
    results: str,
    draw: Callable[[Path, str, Path], Iterable[Path]],
) -> None:
    """Does what is missing of a sweep, shows it meanwhile, prints its table at the end.

    Args, Raises: as of `sweeps.run`.
    """
    if tensorboard:
        raise UserError("--tensorboard is for single runs: leave it out, or name one cell by its keys")
    # Everything that can be wrong is found out before the store knows of the sweep.
    cells, name = grid.cells(config), config.sweep.name
    engine_of = _engine(config)
    from_elsewhere = stored.matching(cells, Path(results)) if results else {}
    check_inputs([cell for cell in cells if cell.key not in from_elsewhere])

    # The sweep in the store: what its cells are, and which of them are done.
    records.write_sweep(Path(workdir), grid.described(config, cells))
    board = Board(Path(workdir), name)
    board.folder.mkdir(exist_ok=True)
    board.recover()
    for cell, record in from_elsewhere.items():
        board.store(cell, record)
    if retry:
        for cell in _failed(board):
            board.retry(cell)
    labels = {cell.key: str(cell) for cell in cells}
    console.say(f"sweep {name}: {len(cells)} cells, {config.sweep.engine}, logs in {board.folder}")
    if results:
        console.say(f"done elsewhere, by their lines in {results}: {len(from_elsewhere)} cells")

    # Look after whoever does the cells until none is left, or this process is asked to stop.
    engine = engine_of(board)
    try:
        with StopSignals() as stop, Progress(board, labels) as progress:
            try:
                states = progress.show()
                while any(state in ("waiting", "running") for state in states.values()) or engine.busy():
                    engine.look_after(states)
                    for _ in range(4):
                        time.sleep(POLL)
                        if stop.asked:
                            raise Interrupted("stopped; the same command goes on with what is not done")
                    states = progress.show()
            finally:
                engine.stop()
    finally:
        try:
            for figure in draw(board.workdir, name, board.folder):
                console.say(f"figure: {figure}")
        except Exception as error:  # of no weight beside what the sweep ends with
            console.warn(f"sweep {name} is not drawn: {error}")

    summary(board, labels)
    if failed := _failed(board):
        for cell in failed:
            console.warn(f"{labels[cell]} ({cell}): {board.why(cell)}")
        raise RunsFailed(
            f"{len(failed)} of {len(cells)} cells failed, the others are done: --retry does them again"
        )


def _engine(config: ml_collections.ConfigDict) -> Callable[[Board], Any]:
    """What makes the engine of a board (whatever does its cells: see `Processes`), checked."""
    if config.sweep.engine == "ray":
        from poison_jax.sweeps import ray_cluster

        ray_cluster.check()
        return lambda board: ray_cluster.RayTasks(board, cpus=config.sweep.cpus, gpus=config.sweep.gpus)
    return lambda board: Processes(board, config.sweep.workers)


def _failed(board: Board) -> list[str]:
    return [cell for cell, state in board.states().items() if state == "failed"]


def check_inputs(cells: list[grid.Cell]) -> None:
    """Raises what only the data can show to be wrong, once for cells that differ in what does not touch them.

    In a process of its own: this one must not take an accelerator's memory, nor start threads before it
    starts processes.
    """
    configs = [kind[0].config.to_dict() for kind in grid.kinds(cells) if kind[0].config.experiment == "train"]
    if not configs:
        return
    spawn = multiprocessing.get_context("spawn")
    answer, told = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_set_up, args=(told, os.getpid(), configs))
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
