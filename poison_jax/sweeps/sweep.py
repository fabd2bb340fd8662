"""A sweep: its cells done by worker processes, by a Ray cluster or by whoever else works on the store.

This process trains nothing: it starts the workers, shows how far the sweep is, and starts others where
some have died. Killed at any moment, the sweep loses at most the running epochs; the same command goes on.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import ml_collections

from poison_jax import console
from poison_jax.errors import Interrupted, RunsFailed, UserError
from poison_jax.runs import records
from poison_jax.runs.signals import StopSignals
from poison_jax.sweeps import grid, inputs, stored
from poison_jax.sweeps.board import Board
from poison_jax.sweeps.processes import Processes
from poison_jax.sweeps.table import Progress, summary

POLL = 0.5  # seconds between two looks at whether to stop; the store is looked at every fourth time


class Engine(Protocol):
    """Whatever does cells: some of those waiting, at its own pace."""

    def look_after(self, waiting: list[str]) -> None:
        """Called every now and then with the cells that wait: starts and restarts what does them.

        Raises:
            UserError: they cannot be done at all.
        """

    def busy(self) -> bool:
        """Whether anything of it is running."""

    def stop(self) -> None:
        """Ends what is running; its state is saved."""


def run(
    config: ml_collections.ConfigDict,
    workdir: str = "runs",
    *,
    tensorboard: bool = False,
    retry: bool = False,
    results: str = "",
    draw: Callable[[Path, str, Path], Iterable[Path]] = lambda *_: (),
) -> None:
    """Does what is missing of a sweep, shows it meanwhile, prints its table at the end.

    Args:
        config: of experiment=sweep.
        workdir: the store.
        tensorboard: not for sweeps.
        retry: do the cells that have failed again.
        results: folder of JSON lines; a cell that has one there is done.
        draw: called with the store, the sweep's name and a folder when it ends or is stopped.

    Raises:
        UserError: bad input, before any compute.
        RunsFailed: some cells could not be done; all others are.
        Interrupted: asked to stop; what was done is kept.
    """
    if tensorboard:
        raise UserError("--tensorboard is for single runs: leave it out, or name one cell by its keys")
    # Everything that can be wrong is found out before the store knows of the sweep.
    cells, name = grid.cells(config), config.sweep.name
    engine_of = _engine(config)
    from_elsewhere = stored.matching(cells, Path(results)) if results else {}
    inputs.check([cell for cell in cells if cell.key not in from_elsewhere])

    # The sweep in the store: what its cells are, and which of them are done.
    records.write_sweep(Path(workdir), grid.described(config, cells))
    board = Board(Path(workdir), name, config.sweep.attempts)
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
                    engine.look_after([cell for cell, state in states.items() if state == "waiting"])
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


def _engine(config: ml_collections.ConfigDict) -> Callable[[Board], Engine]:
    """What makes the engine of a board, checked."""
    if config.sweep.engine == "ray":
        from poison_jax.sweeps import ray_cluster

        ray_cluster.check()
        return lambda board: ray_cluster.RayTasks(board, cpus=config.sweep.cpus, gpus=config.sweep.gpus)
    return lambda board: Processes(board, config.sweep.workers)


def _failed(board: Board) -> list[str]:
    return [cell for cell, state in board.states(board.cells).items() if state == "failed"]
