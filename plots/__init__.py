"""Figures and tables, drawn from what is stored alone: `python -m plots --help` lists them.

`figures` is the table of all; importing this package imports no matplotlib and changes none of its settings.
"""

import contextlib
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from poison_jax.errors import UserError
from poison_jax.runs import records as _records
from poison_jax.runs.records import Record
from poison_jax.runs.store import Run


def draw(run: Run) -> list[Path]:
    """Draws a finished run's figures into its directory.

    Returns:
        The files: `.png`, and `.md` of tables.

    Raises:
        UserError: it is not finished, damaged, or holds nothing to draw.
    """
    figures = table()
    return figures.save_all(figures.of_run(run).items(), run.path, ".png", results=[run.result()])


def draw_sweep(path: Path, name: str, out: Path) -> list[Path]:
    """Draws the finished cells of a sweep.

    Args:
        path: a store, or a folder that holds `<name>.jsonl`.
        name: of the sweep.
        out: folder for the files.

    Returns:
        See `draw_records`; empty if no cell is finished.

    Raises:
        UserError: the sweep is absent or damaged, or there is no figure for it.
    """
    found = _records.load(path, name)
    return draw_records(found, name, out) if found else []


def draw_records(records: list[Record], name: str, out: Path) -> list[Path]:
    """Draws finished cells, all of a sweep or some: as a figure or table of the paper if it has its name.

    A sweep of one's own is drawn over whatever key it varies.

    Args:
        records: the cells.
        name: of the sweep.
        out: folder for the files.

    Returns:
        `<name>.png` and `<name>.pdf`, `<name>.md`, as there are.

    Raises:
        UserError: there is no cell, or no figure for such a sweep.
    """
    figures = table()
    parts = figures.of_records(records, figures.name_of(records, name), name)
    results = [record.result for record in records]
    return figures.save_all(figures.named(parts, name), Path(out), ".png", ".pdf", results=results)


def show(run: Run, *names: str) -> None:
    """Shows a finished run's figures and tables in a notebook; writes nothing.

    Args:
        run: a finished one.
        names: of the files, as `figure` or `table3`; all if there are none.

    Raises:
        UserError: the run cannot be drawn, has no such figure, or this is no notebook.
    """
    try:
        from IPython import display
    except ImportError:
        raise UserError("figures are shown in a notebook only: `plots.draw` writes them as files") from None
    figures = table()
    made = figures.of_run(run)
    if unknown := set(names) - made.keys():
        raise UserError(f"{run.path} has no {', '.join(sorted(unknown))}: it has {', '.join(made)}")
    for name in names or made:
        part = made[name]
        shown = display.Markdown(part) if isinstance(part, str) else display.Image(figures.canvas.png(part))
        display.display(shown)


def table() -> ModuleType:
    """`plots.figures`, with matplotlib, which would not start where $MPLBACKEND names no backend."""
    if "matplotlib" not in sys.modules and (backend := os.environ.pop("MPLBACKEND", None)):
        matplotlib = importlib.import_module("matplotlib")
        os.environ["MPLBACKEND"] = backend
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend  # as matplotlib itself does when it starts
    return importlib.import_module("plots.figures")
