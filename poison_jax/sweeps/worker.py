"""A worker, `python -m poison_jax.sweeps.worker WORKDIR SWEEP`: does cells of a sweep until none is left.

Any number of them, on any machines that share the disk, may work on one sweep: each claims a cell before
it begins (`lease`). Why one cannot be done, if it cannot, is kept (`board`), and it is passed over.
"""

import argparse
import os
import sys
import traceback
from pathlib import Path

import ml_collections

from poison_jax import config as config_lib
from poison_jax import console, experiments
from poison_jax.errors import Busy, Interrupted, UserError
from poison_jax.runs.signals import stop_with
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
            experiments.run(_config(board, cell), str(board.workdir))
    except Busy:
        return False
    except (Interrupted, OSError):
        raise
    except Exception as error:
        if not isinstance(error, UserError):
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


def main(argv: list[str]) -> None:
    """The command line of a worker."""
    parser = argparse.ArgumentParser(
        prog="python -m poison_jax.sweeps.worker", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("workdir", type=Path, help="the store")
    parser.add_argument("sweep", help="name of the sweep")
    parser.add_argument("--attempts", type=int, default=3, help="deaths of its process that fail a cell")
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    parser.add_argument("--share", default="1/1", metavar="I/N", help="use the I-th of N parts of the cores")
    arguments = parser.parse_args(argv)
    part, parts = map(int, arguments.share.split("/"))
    if parts > 1 and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[part - 1 :: parts] or cores)
    if arguments.parent:
        stop_with(arguments.parent)
    from poison_jax import cli

    with cli.ready():
        work(Board(arguments.workdir, arguments.sweep, arguments.attempts))


if __name__ == "__main__":
    main(sys.argv[1:])
