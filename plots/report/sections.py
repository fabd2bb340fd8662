"""The sections of the report: environment, sweeps, single runs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from plots.report import drawings, headlines, page, tables
from poison_jax.runs.store import Run
from poison_jax.sweeps import outcomes
from poison_jax.sweeps.outcomes import Group, Outcome


class Part(NamedTuple):
    """A section of the page, and what the contents say of it."""

    id: str
    title: str
    remark: str
    body: str  # markup
    level: int = 2


def environment(groups: list[Group], runs: list[Outcome]) -> Part:
    everything = [outcome for group in groups for outcome in group.outcomes] + runs
    # A run that stands in several sweeps is one result.
    results = list({outcome.run: outcome.result for outcome in everything if outcome.result}.values())
    count = f"{len(results)} finished run{'s' * (len(results) != 1)}"
    body = page.paragraph(f"Of {count}; in brackets how many, where they differ.")
    body += tables.environment(results) + page.paragraph(tables.LEGEND, "soft")
    return Part("environment", "Environment", count, body)


def sweeps(path: Path, groups: list[Group], work: Path, advance: Callable[[], None]) -> Iterator[Part]:
    for i, group in enumerate(groups, 1):
        id = f"sweep-{i}"
        body = page.why(group.reason) if group.reason else _sweep(path, group, _folder(work, id))
        yield Part(id, f"Sweep {group.name}", tables.counts(group), body)
        advance()


def single_runs(path: Path, runs: list[Outcome], work: Path, advance: Callable[[], None]) -> Iterator[Part]:
    ids = {outcome.run: f"run-{i}" for i, outcome in enumerate(runs, 1)}
    if runs:
        done = sum(outcome.state == "done" for outcome in runs)
        yield Part("runs", "Single runs", f"{done} of {len(runs)} done", _overview(runs, ids))
    for outcome in runs:
        id = ids[outcome.run]
        body = _run(Run(path / outcome.run), outcome, _folder(work, id))
        yield Part(id, outcome.run, headlines.remark(outcome), body, level=3)
        advance()


def _overview(runs: list[Outcome], ids: dict[str, str]) -> str:
    """A table for each experiment, since runs of different ones have little in common."""
    groups = tables.by_experiment(runs)
    result = []
    for experiment, found in groups.items():
        table = tables.outcomes(found, tables.differing(found), lambda outcome: ids[outcome.run])
        title = experiment or "cannot be read"
        result.append(page.section(title, table, level=4) if len(groups) > 1 else table)
    return "".join(result)


def _sweep(path: Path, group: Group, work: Path) -> str:
    scale, counts, outcome = tables.scale(group.outcomes), tables.counts(group), headlines.of_sweep(group)
    caption = f"{group.count('done')} of {len(group.outcomes)} cells. {scale}."
    return "".join(
        [
            page.paragraph(scale),
            page.paragraph(counts, "state"),
            page.progress(group.count("done"), len(group.outcomes), counts),
            page.paragraph(outcome),
            drawings.of_sweep(path, group, work, outcome, caption),
            tables.outcomes(group.outcomes, [o.overrides for o in group.outcomes], lambda _: None),
        ]
    )


def _run(run: Run, outcome: Outcome, work: Path) -> str:
    if outcome.result is None:
        return _no_result(outcome) + _config(outcome)
    headline = headlines.of_result(outcome.result)
    try:
        table = tables.result(outcome.result)
    except Exception as error:  # of an older version, or damaged
        table = page.why(f"the result cannot be shown as a table: {outcomes.says(error)}")
    if outcome.reason:
        opening = page.why(headline if headline.startswith(outcome.reason) else outcome.reason)
    else:
        opening = page.paragraph(headline, "state") if headline else ""
    return opening + table + drawings.of_run(run, work, headline) + _config(outcome)


def _no_result(outcome: Outcome) -> str:
    said = f"{outcome.state}: {outcome.reason}" if outcome.reason else outcome.state
    if outcome.state == "unfinished":
        said += "; nobody works on it, and the command that began it goes on with it"
    return page.paragraph(said, "why" if outcome.state == "damaged" else "note")


def _config(outcome: Outcome) -> str:
    return (
        page.fold("Config", page.preformatted(json.dumps(outcome.config, indent=2))) if outcome.config else ""
    )


def _folder(parent: str | Path, name: str) -> Path:
    folder = Path(parent) / name
    folder.mkdir()
    return folder
