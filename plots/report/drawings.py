"""The figures and tables of a store as markup, and why there are no others.

A store is read, never written.
"""

from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from plots import canvas, figures
from plots.report import page
from poison_jax.runs import files, records
from poison_jax.runs.records import Record
from poison_jax.runs.store import Run
from poison_jax.sweeps import outcomes
from poison_jax.sweeps.outcomes import Group

_MOST = 2**28  # bytes of a file of a run that is shown


def of_sweep(path: Path, group: Group, outcome: str) -> str:
    """The figures and tables of a sweep's finished cells.

    Args:
        path: the store, or the folder of JSON lines.
        group: the sweep.
        outcome: of the sweep in words, for the alternative text.
    """
    try:
        if not (found := _finished(path, group)):
            return ""
        parts = figures.of_records(found, figures.name_of(found, group.name), group.name)
        return "".join(
            _markup(part, f"Sweep {group.name}, {name}", outcome)
            for name, part in figures.named(parts, group.name)
        )
    except Exception as error:  # results that are damaged or incomplete may raise anything
        return page.why(f"cannot be drawn: {outcomes.says(error)}")


def of_run(run: Run, outcome: str) -> str:
    """The figures and tables of a run: those that lie in its directory, else drawn from what it holds.

    Args:
        run: a finished one.
        outcome: of the run in words, for the alternative text.
    """
    pictures = sorted(run.path.glob("[!.]*.png"), key=lambda file: (file.stem != "figure", file.name))
    if not pictures:
        try:
            made = figures.of_run(run).items()
            return "".join(_markup(part, name, outcome) for name, part in made)
        except Exception as error:
            return page.why(f"cannot be drawn: {outcomes.says(error)}")
    shown = []
    for file in [*pictures, *sorted(run.path.glob("[!.]*.md"))]:
        try:
            content = files.read(file, most=_MOST)
            part = content if file.suffix == ".png" else content.decode()
            shown.append(_markup(part, file.stem, outcome))
        except (OSError, ValueError) as error:
            shown.append(page.why(f"{file.name} {outcomes.says(error)}"))
    return "".join(shown)


def _finished(path: Path, group: Group) -> list[Record]:
    """The finished cells of a sweep; of a store's, without those and those arrays that cannot be read."""
    if not (path / records.SWEEPS / f"{group.name}.json").exists():
        return records.load(path, group.name)
    cells = records.read_sweep(path, group.name).cells
    found = (outcomes.attempt(partial(records.of_cell, path, group.name), cell, None) for cell in cells)
    arrays = partial(outcomes.attempt, lambda record: record.arrays)
    return [record._replace(load=partial(arrays, record, {})) for record in found if record is not None]


def _markup(part: Figure | bytes | str, name: str, outcome: str) -> str:
    if isinstance(part, str):
        return page.markdown(part)
    content = canvas.render(part) if isinstance(part, Figure) else part
    return page.picture(content, alt=f"{name}. {outcome}", caption=_caption(part) or name)


def _caption(part: Figure | bytes) -> str:
    try:
        return canvas.caption(part)
    except Exception:  # a picture that is none of this project's
        return ""
