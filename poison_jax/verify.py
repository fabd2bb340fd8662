"""`python -m poison_jax.verify DIR ...`: whether the files of a store, or of runs, are as they were written.

Every file of a finished run is compared with the digests that the run was sealed with, every checkpoint
with its own; of what is not finished and of the sweeps' files the checksums are looked at. With
`--set_aside` what is damaged goes to a folder `damaged` in its run, and the result of such a run as well: the
command that made the run then makes it again from its last whole checkpoint.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from poison_jax import console
from poison_jax.errors import Damaged, UserError, one_line
from poison_jax.runs import files, records
from poison_jax.runs.store import Run, is_run


def damage(run: Run) -> Iterator[tuple[Path, str]]:
    """The files of a run that are not as they were written, and why."""
    if run.done:
        yield from ((run.path / name, reason) for name, reason in run.damage().items())
    else:
        yield from _damaged(run.path / "config.json", run.config)
        yield from _damaged(run.path / "metrics.jsonl", run.metrics)
    for checkpoint in sorted(run.checkpoints.glob("[0-9]*")):
        if checkpoint.name.isdigit():  # others are being written, or were when a process was killed
            try:
                for name, reason in files.broken(checkpoint, checkpoint.rglob("*")).items():
                    yield checkpoint / name, reason
            except Damaged as error:
                yield checkpoint / files.SEAL, error.reason


def _of_sweeps(store: Path) -> Iterator[tuple[Path, str]]:
    for file in store.glob("[!.]*.jsonl"):
        yield from _damaged(file, lambda file=file: records.lines(file))
    for file in store.glob(f"{records.SWEEPS}/[!.]*.json"):
        yield from _damaged(file, lambda file=file: records.read_sweep(store, file.stem))
    for file in store.glob(f"{records.SWEEPS}/*/stored/[!.]*.json"):
        yield from _damaged(file, lambda file=file: records.of_line(files.read_text(file), str(file)))


def _damaged(file: Path, read: Callable[[], Any]) -> Iterator[tuple[Path, str]]:
    try:
        read()
    except Damaged as error:
        yield file, error.reason


def main(argv: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m poison_jax.verify",
        description=(__doc__ or "").partition("\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a store, or a run's directory")
    parser.add_argument("--set_aside", action="store_true", help="make way for what is to be made again")
    arguments = parser.parse_args(argv)
    with one_line():
        of_sweeps, of_runs = [], []
        for folder in arguments.folders:
            if not folder.is_dir():
                raise UserError(f"{folder} is no folder: name a store, or a run's directory")
            alone = is_run(folder)
            of_sweeps += [] if alone else _of_sweeps(folder)
            runs = [Run(path) for path in ([folder] if alone else sorted(folder.iterdir())) if is_run(path)]
            with console.progress(f"{folder}", len(runs)) as advance:
                for run in runs:
                    of_runs += [(run, *place) for place in damage(run)]
                    advance()
            console.say(f"{folder}: {len(runs)} runs, {sum(run.done for run in runs)} finished")
        found = of_sweeps + [place for _, *place in of_runs]
        for file, reason in found:
            console.say(f"{file} {reason}")
        if arguments.set_aside:
            for run in {run.path: run for run, *_ in of_runs}.values():
                run.finished()
        if found:
            console.tell(f"error: {len(found)} files are damaged")
            sys.exit(1)
        console.say("all files are as they were written")


if __name__ == "__main__":
    main(sys.argv[1:])
