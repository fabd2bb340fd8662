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
# Of the pictures of a single run, by the start of their files' names.
_CAPTIONS = {
    "figure1": "Features of an image, without and with the trigger",
    "figure2": "Features in the plane of their principal components",
    "figure3": "Class means of the features",
    "figure": "Trigger, clean and triggered images, top eigenvectors of the input Hessian, training curves",
    "eigenvectors_per_class": "Top eigenvectors of each class's input Hessian",
    "eigenvectors": "Top eigenvectors of the input Hessian",
    "near_clone": "The kernel theory at triggered images, beside the network",
}


def of_sweep(path: Path, group: Group, outcome: str, scale: str) -> str:
    """The figures and tables of a sweep's finished cells.

    Args:
        path: the store, or the folder of JSON lines.
        group: the sweep.
        outcome: of the sweep in words, for the alternative text.
        scale: at which it was run, for the caption.
    """
    try:
        if not (found := _finished(path, group)):
            return ""
        parts = figures.of_records(found, figures.name_of(found, group.name), group.name)
        return "".join(
            _markup(part, f"Sweep {group.name}, {name}. {outcome}", f"{name}: {scale}")
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
    pictures = sorted(run.path.glob("[!.]*.png"))
    if not pictures:
        try:
            made = figures.of_run(run).items()
            return "".join(_of_run(name, part, outcome) for name, part in made)
        except Exception as error:
            return page.why(f"cannot be drawn: {outcomes.says(error)}")
    shown = []
    for file in [*pictures, *sorted(run.path.glob("[!.]*.md"))]:
        try:
            content = files.read(file, most=_MOST)
            part = content if file.suffix == ".png" else content.decode()
            shown.append(_of_run(file.stem, part, outcome))
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


def _of_run(name: str, part: Figure | bytes | str, outcome: str) -> str:
    known = next((words for start, words in _CAPTIONS.items() if name.startswith(start)), "")
    caption = f"{name}: {known}" if known else name
    return _markup(part, f"{caption}. {outcome}", caption)


def _markup(part: Figure | bytes | str, alt: str, caption: str) -> str:
    if isinstance(part, str):
        return page.markdown(part)
    content = canvas.render(part) if isinstance(part, Figure) else part
    return page.picture(content, alt=alt, caption=caption)
