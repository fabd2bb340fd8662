"""The figures and tables of a store as markup, and why there are no others.

The only file of the report that knows the scripts which draw. A store is read, never written.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import plots
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


class Words(NamedTuple):
    """What stands beside a figure."""

    alt: str  # for whoever does not see it: what it shows and how that came out
    caption: str


def of_sweep(path: Path, group: Group, work: Path, outcome: str, scale: str) -> str:
    """The figures and tables of a sweep's finished cells.

    Args:
        path: the store, or the folder of JSON lines.
        group: the sweep.
        work: an empty folder.
        outcome: of the sweep in words, for the alternative text.
        scale: at which it was run, for the caption.
    """

    def words(file: Path) -> Words:
        return Words(f"Sweep {group.name}, {file.stem}. {outcome}", f"{file.stem}: {scale}")

    return _markup(partial(_draw_sweep, path, group, work), work, words)


def of_run(run: Run, work: Path, outcome: str) -> str:
    """The figures and tables of a run: its own, or drawn beside a copy of what it holds.

    Args:
        run: a finished one.
        work: an empty folder.
        outcome: of the run in words, for the alternative text.
    """

    def words(file: Path) -> Words:
        known = next((words for name, words in _CAPTIONS.items() if file.stem.startswith(name)), "")
        caption = f"{file.stem}: {known}" if known else file.stem
        return Words(f"{caption}. {outcome}", caption)

    return _markup(partial(_pictures, run, work), work, words)


def _draw_sweep(path: Path, group: Group, work: Path) -> list[Path]:
    if (path / records.SWEEPS / f"{group.name}.json").exists():
        done = list(_finished(path, group))
    else:
        done = records.load(path, group.name)
    return plots.draw_records(done, group.name, work) if done else []


def _finished(path: Path, group: Group) -> Iterator[Record]:
    """The finished cells of a store's sweep, without arrays where those cannot be read."""
    for cell in records.read_sweep(path, group.name).cells:
        try:
            record = records.of_cell(path, group.name, cell)
        except outcomes.DAMAGE:
            continue
        if record is not None:
            yield record._replace(load=partial(_arrays, record))


def _arrays(record: Record) -> records.Arrays:
    try:
        return record.arrays
    except outcomes.DAMAGE:
        return {}


def _pictures(run: Run, work: Path) -> list[Path]:
    found = {file.name: file for file in sorted(run.path.glob("[!.]*.png"))}
    if not found:
        for file in run.path.iterdir():
            if file.suffix in (".json", ".jsonl", ".npz"):
                (work / file.name).write_bytes(files.read(file, most=_MOST))
        found = {file.name: file for file in plots.draw(Run(work))}
    return [*(found | {file.name: file for file in sorted(run.path.glob("[!.]*.md"))}).values()]


def _markup(draw: Callable[[], list[Path]], folder: Path, words: Callable[[Path], Words]) -> str:
    """The files that are drawn into a folder as markup, and why there are no others."""
    why = ""
    try:
        drawn = draw()
    except Exception as error:  # scripts over results that are damaged or incomplete may raise anything
        drawn = sorted(folder.glob("*.png"))  # those before it
        why = page.why(f"cannot be drawn: {outcomes.says(error)}".replace(f"{folder}/", ""))
    result = []
    for file in drawn:
        try:
            if file.suffix == ".png":
                alt, caption = words(file)
                result.append(page.picture(files.read(file, most=_MOST), alt=alt, caption=caption))
            elif file.suffix == ".md":
                result.append(page.markdown(files.read(file, most=_MOST).decode()))
        except (OSError, ValueError) as error:
            result.append(page.why(f"{file.name} {outcomes.says(error)}"))
    return "".join([*result, why])
