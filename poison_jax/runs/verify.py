"""`python -m poison_jax.verify DIR ...`: whether the files of a store, or of runs, are as they were written.

Every file of a finished run is compared with the digests that the run was sealed with, every checkpoint
with its own; of what is not finished and of the sweeps' files the checksums are looked at. With
`--set_aside` what is damaged goes to a folder `damaged` in its run, and the result of such a run as well: the
command that made the run then makes it again from its last whole checkpoint.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from poison_jax import console
from poison_jax.errors import Damaged, UserError, one_line
from poison_jax.runs import files, records
from poison_jax.runs.store import Run


def damage(run: Run) -> Iterator[tuple[Path, str]]:
    """The files of a run that are not as they were written, and why."""
    if run.done:
        yield from ((run.path / name, reason) for name, reason in run.damage().items())
    else:
        for look in (run.config, run.metrics):
            try:
                look()
            except Damaged as error:
                yield run.path / ("config.json" if look == run.config else "metrics.jsonl"), error.reason
    for checkpoint in sorted(run.checkpoints.glob("[0-9]*")):
        if checkpoint.name.isdigit():  # others are being written, or were when a process was killed
            try:
                for name, reason in files.broken(checkpoint, checkpoint.rglob("*")).items():
                    yield checkpoint / name, reason
            except Damaged as error:
                yield checkpoint / files.SEAL, error.reason


def runs(path: Path) -> list[Run]:
    """The run that a folder is, or those of the store that it is."""
    return [
        Run(folder) for folder in ([path] if _is_run(path) else sorted(path.iterdir())) if _is_run(folder)
    ]


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("config.json", "result.json", "metrics.jsonl"))


def _sweeps(path: Path) -> Iterator[tuple[Path, str]]:
    if _is_run(path):
        return
    for file in [*path.glob("[!.]*.jsonl"), *path.glob(f"{records.SWEEPS}/[!.]*.json")]:
        try:
            records.lines(file) if file.suffix == ".jsonl" else records.read_sweep(path, file.stem)
        except Damaged as error:
            yield file, error.reason
    for file in path.glob(f"{records.SWEEPS}/*/stored/[!.]*.json"):
        try:
            records.of_line(files.read_text(file), str(file))
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
        found = []
        for folder in arguments.folders:
            if not folder.is_dir():
                raise UserError(f"{folder} is no folder: name a store, or a run's directory")
            found += [(None, *place) for place in _sweeps(folder)]
            everything = runs(folder)
            with console.progress(f"{folder}", len(everything)) as advance:
                for run in everything:
                    found += [(run, *place) for place in damage(run)]
                    advance()
            console.say(f"{folder}: {len(everything)} runs, {sum(run.done for run in everything)} finished")
        for _, file, reason in found:
            console.say(f"{file} {reason}")
        if arguments.set_aside:
            for run in {str(run.path): run for run, *_ in found if run is not None}.values():
                run.finished()
        if found:
            console.tell(f"error: {len(found)} files are damaged")
            sys.exit(1)
        console.say("all files are as they were written")


if __name__ == "__main__":
    main(sys.argv[1:])
