"""`python -m poison_jax.worker WORKDIR SWEEP`: does cells of a sweep until none is left.

Any number of them, on any machines that share the disk, may work on one sweep.
"""

import argparse
import os
import sys
from pathlib import Path

from poison_jax import cli
from poison_jax.runs.signals import stop_with
from poison_jax.sweeps import processes
from poison_jax.sweeps.board import Board


def main(argv: list[str]) -> None:
    """Parses the command line and works."""
    parser = argparse.ArgumentParser(
        prog="python -m poison_jax.worker", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("workdir", type=Path, help="the store")
    parser.add_argument("sweep", help="name of the sweep")
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    parser.add_argument("--share", default="1/1", metavar="I/N", help="use the I-th of N parts of the cores")
    arguments = parser.parse_args(argv)
    part, parts = map(int, arguments.share.split("/"))
    if parts > 1 and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[part - 1 :: parts] or cores)
    if arguments.parent:
        stop_with(arguments.parent)
    with cli.ready():
        processes.work(Board(arguments.workdir, arguments.sweep))


if __name__ == "__main__":
    main(sys.argv[1:])
