"""Figures and tables from what is stored: `python -m plots FIGURE --runs DIR --out DIR`."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from plots import canvas, claims, documents, figures
from poison_jax import errors
from poison_jax.errors import UserError, fail
from poison_jax.runs import records
from poison_jax.runs.store import Run

# What results that are damaged, or were not written by this project, make the code that draws them raise.
_DAMAGE = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


def main(argv: list[str]) -> None:
    """Parses the command line, draws, prints the files' paths and what tables say."""
    arguments = _parser().parse_args(argv)
    name = arguments.figure
    if name in figures.RUNS:
        _of_runs(figures.RUNS[name], arguments)
        return
    with one_line():
        if name == "documents":
            print(*documents.update(arguments.root, arguments.runs, arguments.store))
        elif name == "claims":
            _save([(name, claims.page(arguments.runs))], arguments.out)
        else:
            sweep = arguments.sweep or figures.first_held(arguments.runs, name)
            found = records.load(arguments.runs, sweep)
            made = figures.named(figures.of_records(found, name, sweep), name)
            _save(made, arguments.out, *canvas.SWEEP, results=[record.result for record in found])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m plots", description=__doc__)
    parsers = parser.add_subparsers(dest="figure", metavar="FIGURE", required=True)

    def add(name, title):
        title = title.replace("%", "%%")
        return parsers.add_parser(name, help=title, description=title)

    for name, entry in figures.RUNS.items():
        each = add(name, entry.title)
        each.add_argument("named", nargs="*", type=Path, metavar="RUN", help="a run's directory, or a store")
        each.add_argument("--runs", nargs="+", type=Path, default=[], metavar="RUN", help="the same")
        out = f"folder for the files, by default {'the run itself' if entry.draw else 'this one'}"
        out += "; or the file of several runs' figure" * bool(entry.several)
        each.add_argument("--out", type=Path, metavar="DIR", help=out)
    titles = {name: entry.title for name, entry in figures.SWEEPS.items()}
    for name, title in {**titles, "claims": "The paper's claims: effect, 95 % interval, verdict"}.items():
        each = add(name, title)
        where = "store (--workdir of a sweep), or folder of <name>.jsonl"
        each.add_argument("--runs", type=Path, required=True, metavar="DIR", help=where)
        each.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
        if name != "claims":
            first = ", ".join(name + size for size in figures.SIZES)
            required = name in ("sweep", "lag")
            said = "which sweep" + (f"; if left out, the first that DIR holds of {first}" * (not required))
            each.add_argument("--sweep", metavar="NAME", required=required, help=said)
    each = add("documents", "The tables and pictures of the README and docs, from stored records")
    each.add_argument("--runs", type=Path, default=Path("results"), metavar="DIR", help="folder of records")
    each.add_argument("--store", type=Path, metavar="DIR", help="store, for the pictures of single runs")
    each.add_argument("--root", type=Path, default=Path(), metavar="DIR", help="of the project")
    return parser


def _of_runs(entry: figures.OfRun, arguments: argparse.Namespace) -> None:
    """Each run's figures, into its directory or a folder; several runs in one figure, if there is one."""
    out = arguments.out
    with one_line():
        runs = [run for path in [*arguments.named, *arguments.runs] for run in _runs_in(path, entry.needs)]
        if not runs:
            raise UserError("no run is named: name runs' directories, or a store that holds such runs")
    compared = entry.several and (len(runs) > 1 or not entry.draw)
    file = out if out is not None and out.suffix in canvas.SWEEP else None
    if file and not compared:
        fail(f"{file} is a file, and there may be several figures: name a folder for them")
    for run in runs if entry.draw and not file else ():
        with one_line(str(run.path)), canvas.settings():
            _check(run, entry.finished)
            folder = run.path if out is None else out / run.path.name if len(runs) > 1 else out
            _save(entry.draw(run).items(), folder, *canvas.RUN, results=[run.result() or run.config()])
    if compared:
        with one_line(", ".join(str(run.path) for run in runs)), canvas.settings():
            for run in runs:
                _check(run, finished=True)
            name = arguments.figure + "_runs" * bool(entry.draw)
            path, suffixes = (file, [file.suffix]) if file else ((out or Path()) / name, canvas.RUN)
            made = [(path.stem, entry.several(runs))]
            _save(made, path.parent, *suffixes, results=[run.result() for run in runs])


def _runs_in(path: Path, needs: str) -> list[Run]:
    """The run, or a store's finished runs that hold what the figure needs."""
    if (path / "config.json").exists() or not path.is_dir():
        return [Run(path)]
    held = [folder.parent for folder in sorted(path.glob("*/result.json"))]
    return [Run(folder) for folder in held if not needs or (folder / f"{needs}.npz").exists()] or [Run(path)]


def _check(run: Run, finished: bool) -> None:
    if not (run.done if finished else run.path.is_dir()):
        raise UserError(f"{run.path} holds no {'finished ' * finished}run: name a run's directory")


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


def _save(parts, *where, **results) -> None:
    """Writes what `canvas.save` takes; prints the files, then the captions and what the tables say."""
    parts = list(parts)
    paths = canvas.save(parts, *where, **results)
    print(*paths)
    for path, (_, part) in zip(paths, parts, strict=True):
        print(f"\n{part}" if isinstance(part, str) else f"\n{path.name}: {canvas.caption(part)}")


if __name__ == "__main__":
    main(sys.argv[1:])
