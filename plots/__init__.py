"""Figures and tables, drawn from what is stored alone: `python -m plots --help` lists them.

`plots.figures` is the table of all; importing this package imports no matplotlib.
"""

from pathlib import Path

from poison_jax.errors import UserError
from poison_jax.runs import records
from poison_jax.runs.store import Run


def draw(run: Run) -> list[Path]:
    """Draws a finished run's figures into its directory.

    Returns:
        The files: `.png`, with an `.svg` beside each, and `.md` of tables.

    Raises:
        UserError: it is not finished, damaged, or holds nothing to draw.
    """
    from plots import canvas, figures

    return canvas.save(figures.of_run(run).items(), run.path, *canvas.RUN, results=[run.result()])


def draw_sweep(path: Path, name: str, out: Path) -> list[Path]:
    """Draws the finished cells of a sweep, as a figure or table of the paper if it has its name.

    A sweep of one's own is drawn over whatever key it varies.

    Args:
        path: a store, or a folder that holds `<name>.jsonl`.
        name: of the sweep.
        out: folder for the files.

    Returns:
        `<name>.png`, with an `.svg` and a `.pdf` beside it, `<name>.md`, as there are; none if no cell is
        finished.

    Raises:
        UserError: the sweep is absent or damaged, or there is no figure for it.
    """
    from plots import canvas, figures

    if not (found := records.load(path, name)):
        return []
    parts = figures.of_records(found, figures.name_of(found, name), name)
    results = [record.result for record in found]
    return canvas.save(figures.named(parts, name), Path(out), *canvas.SWEEP, results=results)


def show(run: Run | list[Run], *names: str) -> None:
    """Shows a finished run's figures, with their captions, and tables in a notebook; writes nothing.

    Args:
        run: a finished one; of a list the one picture that has them side by side.
        names: of the files, as `figure` or `table3`; all if there are none.

    Raises:
        UserError: the run cannot be drawn, has no such figure, or this is no notebook.
    """
    try:
        from IPython import display
    except ImportError:
        raise UserError("figures are shown in a notebook only: `plots.draw` writes them as files") from None
    from plots import canvas, figures, tables

    if isinstance(run, list):
        with canvas.settings():
            made = {"figure": figures.RUNS["run"].several(run)}
    else:
        made = figures.of_run(run)
    if unknown := set(names) - made.keys():
        raise UserError(f"there is no {', '.join(sorted(unknown))}: there is {', '.join(made)}")
    for name in names or made:
        text = part = made[name]
        if not isinstance(part, str):
            display.display(display.Image(canvas.render(part)))
            text = tables.markdown(canvas.caption(part), cell=False)
        display.display(display.Markdown(text))
