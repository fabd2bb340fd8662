"""A worker: does cells of a sweep until none is left.

Any number of them, on any machines that share the disk, may work on one sweep: each claims a cell before
it begins (`lease`). Why one cannot be done, if it cannot, is kept (`board`), and it is passed over.
"""

import traceback

import ml_collections

from poison_jax import config as config_lib
from poison_jax import console, experiments
from poison_jax.errors import Busy, Interrupted, RunsFailed, UserError
from poison_jax.runs import records
from poison_jax.sweeps import grid
from poison_jax.sweeps.board import Board


def work(board: Board) -> None:
    """Does the waiting cells of a sweep, first come first served; returns when none is waiting.

    Raises:
        Interrupted: asked to stop; the cell's state is saved.
        OSError: the disk is full or read-only.
    """
    passed: set[str] = set()  # claimed by others the moment they were tried
    while (cell := board.next_waiting(passed)) is not None:
        if not attempt(board, cell):
            passed.add(cell)


def attempt(board: Board, cell: str) -> bool:
    """Does one cell; whether it was free. Why it cannot be done, if it cannot, is kept on the board.

    Raises:
        Interrupted: asked to stop; the cell's state is saved.
        OSError: the disk is full or read-only.
    """
    try:
        if board.state(cell) != "done":
            config = _config(board, cell)
            if (now := records.key(*grid.name(config))) != cell:  # it would not be done by this
                raise UserError(f"its run is {now} in this version: choose another sweep.name")
            experiments.run(config, str(board.workdir))
    except Busy:
        return False
    except (Interrupted, OSError):
        raise
    except Exception as error:
        if not isinstance(error, UserError | RunsFailed):
            traceback.print_exc()
        reason = " ".join(str(error).split()) or type(error).__name__
        console.warn(f"{cell} failed: {reason}")
        board.fail(cell, reason)
    return True


def _config(board: Board, cell: str) -> ml_collections.ConfigDict:
    where = f"sweep {board.sweep.name}"
    config = config_lib.from_json(board.sweep.config, where)
    for key, value in board.overrides(cell).items():
        config_lib.assign(config, key, value, where)
    return config
