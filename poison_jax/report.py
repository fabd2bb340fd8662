"""`python -m poison_jax.report --runs DIR [--out report.html]`: all that a store holds, on one page.

Sweeps first, with their figures, tables and cells, then the runs that belong to none. The page needs
nothing besides itself; what is damaged or not finished is listed with the reason, and nothing is written
but the page. DIR may also be a folder of the JSON lines that `poison_jax.runs.records` writes.
"""

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import plots
from poison_jax import console, page, report_tables
from poison_jax.errors import UserError, one_line
from poison_jax.runs import files, records
from poison_jax.runs.store import Run
from poison_jax.sweeps import outcomes
from poison_jax.sweeps.outcomes import Group, Outcome

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


class _Part(NamedTuple):
    """A section of the page, and what the contents say of it."""

    id: str
    title: str
    remark: str
    body: str  # markup
    level: int = 2


def write(path: Path, out: Path) -> tuple[int, int]:
    """Writes the report of a store, whole or not at all.

    Args:
        path: the store, or a folder of `<sweep>.jsonl`.
        out: the page.

    Returns:
        How many sweeps and single runs are in it.

    Raises:
        UserError: there is nothing to report, or no place for the page.
        OSError: the disk is full or read-only.
    """
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UserError(f"{out} cannot be written: name a file in a folder that exists")
    groups, runs = outcomes.read(path)
    with (
        tempfile.TemporaryDirectory() as work,
        console.progress("drawing", len(groups) + len(runs)) as advance,
    ):
        parts = [
            _environment(groups, runs),
            *_sweeps(path, groups, Path(work), advance),
            *_runs(path, runs, Path(work), advance),
        ]
    now = datetime.datetime.now().astimezone()
    body = [
        page.paragraph(f"Written on {now:%d %B %Y at %H:%M %Z}.", "soft"),
        page.contents((part.id, part.title, part.remark) for part in parts),
        *(page.section(part.title, part.body, id=part.id, level=part.level) for part in parts),
    ]
    files.write(out, page.document(f"poison_jax: {path.resolve().name or path}", "".join(body)))
    return len(groups), len(runs)


def _environment(groups: list[Group], runs: list[Outcome]) -> _Part:
    everything = [outcome for group in groups for outcome in group.outcomes] + runs
    # A run that stands in several sweeps is one result.
    results = list({outcome.run: outcome.result for outcome in everything if outcome.result}.values())
    count = f"{len(results)} finished run{'s' * (len(results) != 1)}"
    body = page.paragraph(f"Of {count}; in brackets how many, where they differ.")
    body += report_tables.environment(results) + page.paragraph(report_tables.LEGEND, "soft")
    return _Part("environment", "Environment", count, body)


def _sweeps(path: Path, groups: list[Group], work: Path, advance: Callable[[], None]) -> Iterator[_Part]:
    for i, group in enumerate(groups, 1):
        id = f"sweep-{i}"
        body = _why(group.reason) if group.reason else _sweep(path, group, _folder(work, id))
        yield _Part(id, f"Sweep {group.name}", report_tables.counts(group), body)
        advance()


def _runs(path: Path, runs: list[Outcome], work: Path, advance: Callable[[], None]) -> Iterator[_Part]:
    ids = {outcome.run: f"run-{i}" for i, outcome in enumerate(runs, 1)}
    if runs:
        done = sum(outcome.state == "done" for outcome in runs)
        table = report_tables.outcomes(runs, lambda outcome: ids[outcome.run])
        yield _Part("runs", "Single runs", f"{done} of {len(runs)} done", table)
    for outcome in runs:
        id = ids[outcome.run]
        body = _run(Run(path / outcome.run), outcome, _folder(work, id))
        yield _Part(id, outcome.run, outcome.state, body, level=3)
        advance()


def _sweep(path: Path, group: Group, work: Path) -> str:
    scale = report_tables.scale(group.outcomes)
    counts = report_tables.counts(group)
    opening = [
        page.paragraph(scale),
        page.paragraph(counts, "state"),
        page.progress(group.count("done"), len(group.outcomes), counts),
    ]
    about = f"{group.count('done')} of {len(group.outcomes)} cells. {scale}."
    pictures = _drawn(
        lambda: _draw_sweep(path, group, work),
        work / "figures",
        lambda file: (f"Sweep {group.name}: {file.stem}", f"{file.stem}: {about}"),
    )
    table = report_tables.outcomes(group.outcomes, lambda outcome: None)
    return "".join([*opening, pictures, table])


def _draw_sweep(path: Path, group: Group, work: Path) -> list[Path]:
    """From a store that holds what can be read of the sweep."""
    done = [outcome for outcome in group.outcomes if outcome.state == "done"]
    if not done:
        return []
    if len(done) < len(group.outcomes) and (path / records.SWEEPS / f"{group.name}.json").exists():
        sweep = records.read_sweep(path, group.name)
        names = {outcome.run for outcome in done}
        path, whole = _folder(work, "store"), path
        records.write_sweep(path, sweep._replace(cells=[c for c in sweep.cells if c["run"] in names]))
        for name in names:
            (path / name).symlink_to((whole / name).resolve())
    return plots.draw_sweep(path, group.name, _folder(work, "figures"))


def _run(run: Run, outcome: Outcome, work: Path) -> str:
    if outcome.result is None:
        return _no_result(outcome) + _config(outcome)
    try:
        table = report_tables.result(outcome.result)
    except Exception as error:  # of an older version, or damaged
        table = _why(f"the result cannot be shown as a table: {outcomes.says(error)}")
    pictures = _drawn(
        lambda: _pictures(run, work), work, lambda file: (f"{outcome.run}: {file.stem}", _caption(file))
    )
    return (_why(outcome.reason) if outcome.reason else "") + table + pictures + _config(outcome)


def _no_result(outcome: Outcome) -> str:
    said = f"{outcome.state}: {outcome.reason}" if outcome.reason else outcome.state
    if outcome.state == "unfinished":
        said += "; nobody works on it, and the command that began it goes on with it"
    return page.paragraph(said, "why" if outcome.state == "damaged" else "note")


def _pictures(run: Run, work: Path) -> list[Path]:
    """The run's own, or drawn beside a copy of what it holds: a store is read, never written."""
    found = {file.name: file for file in sorted(run.path.glob("[!.]*.png"))}
    if not found:
        for file in run.path.iterdir():
            if file.suffix in (".json", ".jsonl", ".npz"):
                (work / file.name).write_bytes(files.read(file, most=_MOST))
        found = {file.name: file for file in plots.draw(Run(work))}
    return [*(found | {file.name: file for file in sorted(run.path.glob("[!.]*.md"))}).values()]


def _drawn(draw: Callable[[], list[Path]], folder: Path, words: Callable[[Path], tuple[str, str]]) -> str:
    """Figures and tables as markup, and why there are no others.

    Args:
        draw: makes the files.
        folder: where it draws.
        words: the alternative text and the caption of one.
    """
    why = ""
    try:
        drawn = draw()
    except Exception as error:  # scripts over results that are damaged or incomplete may raise anything
        drawn = sorted(folder.glob("*.png"))  # those before it
        why = _why(f"cannot be drawn: {outcomes.says(error)}".replace(f"{folder}/", ""))
    result = []
    for file in drawn:
        try:
            if file.suffix == ".png":
                alt, caption = words(file)
                result.append(page.picture(files.read(file, most=_MOST), alt=alt, caption=caption))
            elif file.suffix == ".md":
                result.append(page.markdown(files.read(file, most=_MOST).decode()))
        except (OSError, ValueError) as error:
            result.append(_why(f"{file.name} {outcomes.says(error)}"))
    return "".join([*result, why])


def _caption(file: Path) -> str:
    known = next((words for name, words in _CAPTIONS.items() if file.stem.startswith(name)), None)
    return f"{file.stem}: {known}" if known else file.stem


def _config(outcome: Outcome) -> str:
    return (
        page.fold("Config", page.preformatted(json.dumps(outcome.config, indent=2))) if outcome.config else ""
    )


def _why(reason: str) -> str:
    return page.paragraph(reason, "why")


def _folder(parent: str | Path, name: str) -> Path:
    folder = Path(parent) / name
    folder.mkdir()
    return folder


def main(argv: list[str]) -> None:
    """Parses the command line, writes the report, says where and how large it is."""
    parser = argparse.ArgumentParser(prog="python -m poison_jax.report", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", type=Path, required=True, help="store (--workdir), or folder of <sweep>.jsonl"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page")
    arguments = parser.parse_args(argv)
    with one_line():
        sweeps, runs = write(arguments.runs, arguments.out)
        size = arguments.out.stat().st_size
    console.say(f"{arguments.out}: {size / 1e6:.2f} MB, {sweeps} sweeps, {runs} single runs")


if __name__ == "__main__":
    main(sys.argv[1:])
