"""Figures and tables from what is stored: `python -m plots FIGURE --runs DIR --out DIR`."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import plots
from poison_jax import errors
from poison_jax.errors import UserError
from poison_jax.runs import records
from poison_jax.runs.store import Run

# What results that are damaged, or were not written by this project, make the code that draws them raise.
_DAMAGE = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


def main(argv: list[str]) -> None:
    """Parses the command line, draws, prints the files' paths and what tables say."""
    figures = plots.table()
    arguments = _parser(figures).parse_args(argv)
    name = arguments.figure
    if name in figures.RUNS:
        _of_runs(figures, figures.RUNS[name], arguments)
        return
    with one_line():
        if name == "documents":
            from plots import documents

            print(*documents.update(arguments.root, arguments.runs, arguments.store))
        else:
            found, made = _claims(arguments) if name == "claims" else _of_sweep(figures, arguments)
            results = [record.result for record in found]
            named = figures.named(made, name)
            _say(figures.save_all(named, arguments.out, ".png", ".pdf", results=results))


def _parser(figures: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m plots", description=__doc__)
    parsers = parser.add_subparsers(dest="figure", metavar="FIGURE", required=True)
    for name, entry in figures.RUNS.items():
        each = parsers.add_parser(name, help=entry.title, description=entry.title)
        each.add_argument("named", nargs="*", type=Path, metavar="RUN", help="a run's directory, or a store")
        each.add_argument("--runs", nargs="+", type=Path, default=[], metavar="RUN", help="the same")
        out = f"folder for the files, by default {'the run itself' if entry.draw else 'this one'}; or a file"
        each.add_argument("--out", type=Path, metavar="DIR", help=out)
        if name == "eigenvectors":
            each.add_argument("--index", type=int, default=1, help="of several runs: which one, from 1")
            each.add_argument("--channels", action="store_true", help="of a run: a row for each colour")
    titles = {name: entry.title for name, entry in figures.SWEEPS.items()}
    for name, title in {**titles, "claims": "The paper's claims: effect, 95 % interval, verdict"}.items():
        each = parsers.add_parser(name, help=title, description=title)
        where = "store (--workdir of a sweep), or folder of <name>.jsonl"
        each.add_argument("--runs", type=Path, required=True, metavar="DIR", help=where)
        each.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
        if name != "claims":
            default = "the first that DIR holds of " + ", ".join(name + size for size in figures.SIZES)
            required = name in ("sweep", "lag")
            said = "which sweep" if required else f"which sweep; if left out, {default}"
            each.add_argument("--sweep", metavar="NAME", required=required, help=said)
    said = "The tables and pictures of the README and docs, from stored records"
    each = parsers.add_parser("documents", help=said, description=said)
    each.add_argument("--runs", type=Path, default=Path("results"), metavar="DIR", help="folder of records")
    each.add_argument("--store", type=Path, metavar="DIR", help="store, for the pictures of single runs")
    each.add_argument("--root", type=Path, default=Path(), metavar="DIR", help="of the project")
    return parser


def _of_sweep(figures, arguments):
    held = records.names(arguments.runs)
    sweep = arguments.sweep or arguments.figure + figures.held_size(held, [arguments.figure])
    found = records.load(arguments.runs, sweep)
    return found, figures.of_records(found, arguments.figure, sweep)


def _claims(arguments):
    from plots import claims

    held = records.names(arguments.runs)
    text = claims.page(lambda name: records.load(arguments.runs, name) if name in held else [])
    if not text:
        raise UserError(f"{arguments.runs} holds no finished cell of the paper's sweeps: run them first")
    return [], [text]


def _of_runs(figures, entry, arguments):
    """Each run's figures, into its directory or a folder; several runs in one figure, if there is one."""
    out = arguments.out
    with one_line():
        runs = [run for path in [*arguments.named, *arguments.runs] for run in _runs_in(path, entry.needs)]
        if not runs:
            raise UserError("no run is named: name runs' directories, or a store that holds such runs")
    file = out if out is not None and out.suffix in (".png", ".pdf") else None
    together = entry.several and (len(runs) > 1 or not entry.draw)
    for run in runs if entry.draw and not (together and file) else ():
        with one_line(str(run.path)), figures.canvas.settings():
            _check(run, entry.finished)
            made = entry.draw(run, **_options(arguments, "channels"))
            if file and len(made) > 1:
                raise UserError(f"{run.path} has {', '.join(made)}: name a folder for them, not {file}")
            folder = run.path if out is None else out / run.path.name if len(runs) > 1 else out
            named, suffix = made.items(), ".png"
            if file:
                folder, named, suffix = file.parent, [(file.stem, *made.values())], file.suffix
            _say(figures.save_all(named, folder, suffix, results=[run.result() or run.config()]))
    if together:
        with one_line(", ".join(str(run.path) for run in runs)), figures.canvas.settings():
            for run in runs:
                _check(run, finished=True)
            made = entry.several(runs, **_options(arguments, "index"))
            path = file or (out or Path()) / (arguments.figure + "_runs" * bool(entry.draw) + ".png")
            results = [run.result() for run in runs]
            _say(figures.save_all([(path.stem, made)], path.parent, path.suffix, results=results))


def _options(arguments, name):
    return {name: getattr(arguments, name)} if name in arguments else {}


def _runs_in(path, needs):
    """The run, or a store's finished runs that hold what the figure needs."""
    if (path / "config.json").exists() or not path.is_dir():
        return [Run(path)]
    held = [folder.parent for folder in sorted(path.glob("*/result.json"))]
    return [Run(folder) for folder in held if not needs or (folder / f"{needs}.npz").exists()] or [Run(path)]


def _check(run, finished):
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


def _say(paths):
    """The files, then what the tables among them say."""
    print(*paths)
    for path in paths:
        if path.suffix == ".md":
            print(f"\n{path.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main(sys.argv[1:])
