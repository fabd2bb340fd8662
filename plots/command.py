"""How the scripts begin and end: what to draw from the command line, files out, one line if it cannot be."""

import argparse
import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from poison_jax import errors
from poison_jax.errors import UserError
from poison_jax.runs import files as files_lib
from poison_jax.runs import records as records_lib
from poison_jax.runs.records import Record
from poison_jax.runs.store import Run

SMALL = "-small"  # ends the name of a sweep over a small grid
DrawSweep = Callable[[list[Record], Path, str], list[Path]]


def of_sweep(figure: str, draw: DrawSweep, description: str, argv: list[str] | None = None) -> None:
    """`--runs DIR --out DIR [--sweep NAME]`: draws a sweep, prints the files' paths, then what tables say.

    Args:
        figure: the paper's name for it, `fig06`: of the sweep, and of the files.
        draw: records, folder for the files, their name without suffix -> the files.
        description: of the script; its first line is shown.
        argv: the command line, None for that of the process.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    where = "store (--workdir of a sweep), or folder of <name>.jsonl"
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help=where)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    default = f"{figure} if DIR holds it, else {figure}{SMALL}"
    parser.add_argument("--sweep", metavar="NAME", help=f"which sweep; if left out, {default}")
    arguments = parser.parse_args(argv)
    with one_line():
        name = arguments.sweep or _held(arguments.runs, figure)
        records = records_lib.load(arguments.runs, name)
        if not records:
            raise UserError(f"no cell of sweep {name} in {arguments.runs} is finished yet: run it first")
        files = draw(records, arguments.out, figure)
    print(*files)
    for file in files:
        if file.suffix == ".md":
            print(f"\n{file.read_text(encoding='utf-8')}")


def of_runs(
    draw: Callable[[list[Run], Path], list[Path]],
    out: str,
    description: str,
    argv: list[str] | None = None,
) -> None:
    """`RUN ... [--out FILE]`: draws several finished runs into one file, `out` by default."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Run, metavar="RUN", help="a finished run's directory")
    parser.add_argument("--out", type=Path, default=Path(out), metavar="FILE")
    arguments = parser.parse_args(argv)
    with one_line():
        for run in arguments.runs:
            if run.result() is None:
                raise UserError(f"{run.path} holds no finished run: name finished runs' directories")
        print(*draw(arguments.runs, arguments.out))


def of_each_run(
    draw: Callable[[Run], list[Path]],
    description: str,
    together: Callable[[list[Run]], list[Path]] | None = None,
    *,
    finished: bool = True,
    argv: list[str] | None = None,
) -> None:
    """`RUN ...`: draws every run into its directory, and several into one picture if there is such a thing.

    Args:
        draw: of a run.
        description: of the script; its first line is shown.
        together: of several.
        finished: draw nothing of a run that is not.
        argv: the command line, None for that of the process.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Run, metavar="RUN", help="a run's directory")
    runs = parser.parse_args(argv).runs
    for run in runs:
        with one_line(str(run.path)):
            if not (run.done if finished else run.path.is_dir()):
                raise UserError(f"{run.path} holds no {'finished ' * finished}run: name a run's directory")
            print(*draw(run))
    if together and len(runs) > 1:
        with one_line():
            print(*together(runs))


@contextlib.contextmanager
def one_line(source: str = "what is stored") -> Iterator[None]:
    """Within it what a user can mend ends the process with one line and status 2.

    Args:
        source: what is drawn; named where it is damaged.
    """
    with errors.one_line():
        try:
            yield
        except UserError:
            raise
        except _DAMAGE as error:
            said = f"{source} cannot be drawn ({type(error).__name__}: {error})"
            raise UserError(f"{said}: it is damaged, or of another version; make it again") from None


# What results that are damaged, or were not written by this project, make the code that draws them raise.
_DAMAGE = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


def save(figure: plt.Figure, out: Path, stem: str) -> list[Path]:
    """Writes `<stem>.png` and `<stem>.pdf`; the same figure is the same bytes."""
    out.mkdir(parents=True, exist_ok=True)
    return write(figure, out / f"{stem}.png", out / f"{stem}.pdf", dpi=110)


def write(figure: plt.Figure, *files: Path, dpi: int) -> list[Path]:
    """Writes a figure into each of the files, whole or not at all, and closes it."""
    for file in files:
        metadata = {"CreationDate": None} if file.suffix == ".pdf" else None
        with files_lib.replacing(file) as stream, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # of a name: there is a box in its place
            figure.savefig(stream, format=file.suffix[1:] or None, dpi=dpi, metadata=metadata)
    plt.close(figure)
    return list(files)


def save_text(text: str, out: Path, stem: str) -> list[Path]:
    """Writes `<stem>.md`."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{stem}.md"
    files_lib.write(file, text.encode())
    return [file]


def networks(records: list[Record]) -> list[Record]:
    """The records, if they are of trained networks.

    Raises:
        UserError: they are of another experiment.
    """
    for record in records:
        if "overlap" not in record.result:
            raise UserError(f"{record.run} is not a trained network's: name a sweep of trained networks")
    return records


def _held(path: Path, figure: str) -> str:
    names = records_lib.names(path)
    return figure + SMALL if figure not in names and figure + SMALL in names else figure
