"""`python -m poison_jax.records --runs DIR --out results`: adds a sweep's finished cells to JSON lines."""

import argparse
import sys
from pathlib import Path

from poison_jax import console
from poison_jax.errors import UserError, one_line
from poison_jax.runs import records
from poison_jax.sweeps import stored


def main(argv: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m poison_jax.records",
        description="Add a sweep's finished cells to JSON lines, a line a cell.",
    )
    parser.add_argument("--runs", type=Path, required=True, help="store: the --workdir of the sweeps")
    parser.add_argument("--out", type=Path, required=True, help="folder for <sweep>.jsonl")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="write a cell again whose stored line says something else, or less",
    )
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="names; all that the store holds if none")
    arguments = parser.parse_args(argv)
    with one_line():
        names = arguments.sweeps or records.names(arguments.runs)
        if not names:
            raise UserError(f"{arguments.runs} holds no sweep: name the folder of its runs")
        for name in names:
            file, found = arguments.out / f"{name}.jsonl", records.load(arguments.runs, name)
            merged = stored.merge(found, file, replace=arguments.replace)
            console.say(f"{file}: {len(found)} cells, {merged.added} added, {merged.replaced} replaced")
            for kept in merged.kept:
                console.warn(
                    f"{file}: the stored line of {kept} is kept: --replace takes that of {arguments.runs}"
                )


if __name__ == "__main__":
    main(sys.argv[1:])
