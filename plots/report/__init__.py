"""The HTML page of a store: `python -m poison_jax.report --runs DIR [--out report.html]`.

An overview first: claims, regimes, failures; then sweeps with their figures, tables and cells, the runs that
belong to none, and what made the numbers. The page needs nothing besides itself; what is damaged or not
finished is listed with the reason, and nothing is written but the page. DIR may also be a folder of the JSON
lines that `poison_jax.records` writes.
"""

import argparse
import datetime
from pathlib import Path
from typing import NamedTuple

from plots import claims
from plots.report import drawings, page, tables, words
from poison_jax import console
from poison_jax.errors import UserError, one_line
from poison_jax.runs import files
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
    parts = [_overview(path, groups, runs)]
    with console.progress("drawing", len(groups) + len(runs)) as advance:
        for i, group in enumerate(groups, 1):
            body = page.why(group.reason) if group.reason else _sweep(path, group)
            parts.append(Part(f"sweep-{i}", f"Sweep {group.name}", words.counts(group), body))
            advance()
        ids = {outcome.run: f"run-{i}" for i, outcome in enumerate(runs, 1)}
        if runs:
            done = sum(outcome.state == "done" for outcome in runs)
            parts.append(Part("runs", "Single runs", f"{done} of {len(runs)} done", _together(runs, ids)))
        for outcome in runs:
            body = _run(Run(path / outcome.run), outcome)
            parts.append(Part(ids[outcome.run], outcome.run, words.remark(outcome), body, level=3))
            advance()
    parts.append(_environment([outcome for group in groups for outcome in group.outcomes] + runs))
    now = datetime.datetime.now().astimezone()
    body = [
        page.skip("overview", "To the overview"),
        page.paragraph(f"Written on {now:%d %B %Y at %H:%M %Z}.", "soft"),
        page.contents((part.id, part.title, part.remark) for part in parts),
        *(page.section(part.title, part.body, id=part.id, level=part.level) for part in parts),
    ]
    files.write(out, page.document(f"poison_jax: {path.resolve().name or path}", "".join(body)))
    return len(groups), len(runs)


def _overview(path: Path, groups: list[Group], runs: list[Outcome]) -> Part:
    """What came out, of the paper's claims too, where training ended, and what failed."""
    found = {f"Sweep {group.name}": group.outcomes for group in groups if group.outcomes}
    links = {f"Sweep {group.name}": f"sweep-{i}" for i, group in enumerate(groups, 1)} | {
        "Single runs": "runs"
    }
    found |= {"Single runs": runs} if runs else {}
    try:
        paper = page.section("The paper's claims", page.markdown(claims.page(path)), level=3)
    except Exception:  # there is none of the paper's sweeps, or one is damaged, which is said of it below
        paper = ""
    body = tables.overview(found, links) + page.paragraph(tables.LEGEND, "soft") + paper
    body += page.section("Failures", tables.failures(found), level=3)
    return Part("overview", "Overview", "claims, regimes, failures", body)


def _environment(everything: list[Outcome]) -> Part:
    # A run that stands in several sweeps is one result.
    results = list({outcome.run: outcome.result for outcome in everything if outcome.result}.values())
    count = f"{len(results)} finished run{'s' * (len(results) != 1)}"
    body = page.paragraph(f"Of {count}; in brackets how many, where they differ.")
    body += tables.environment(results)
    return Part("environment", "Environment", count, body)


def _sweep(path: Path, group: Group) -> str:
    done, cells = group.count("done"), group.outcomes
    said, counts = words.of_sweep(group), words.counts(group)
    return (
        page.paragraph(counts, "state")
        + page.progress(done, len(cells), counts)
        + page.paragraph(said)
        + drawings.of_sweep(path, group, said)
        + tables.outcomes(cells, tables.overridden(cells))
    )


def _together(runs: list[Outcome], ids: dict[str, str]) -> str:
    """A table for each experiment, since runs of different ones have little in common."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in runs:
        groups.setdefault(str(outcome.config.get("experiment", "")), []).append(outcome)
    found = {name: tables.outcomes(some, tables.differing(some), ids) for name, some in groups.items()}
    if len(found) == 1:
        return "".join(found.values())
    return "".join(page.section(name or "cannot be read", table, level=4) for name, table in found.items())


def _run(run: Run, outcome: Outcome) -> str:
    config = page.fold("Config", page.raw(outcome.config)) if outcome.config else ""
    if outcome.result is None:
        said = ": ".join(filter(None, [outcome.state, outcome.reason]))
        if outcome.state == "unfinished":
            said += "; nobody works on it, and the command that began it goes on with it"
        return page.paragraph(said, "why" if outcome.state == "damaged" else "note") + config
    headline = words.of_result(outcome.result)
    try:
        table = tables.result(outcome.result)
    except Exception as error:  # of an older version, or damaged
        table = page.why(f"the result cannot be shown as a table: {outcomes.says(error)}")
    if outcome.reason:
        opening = page.why(headline if headline.startswith(outcome.reason) else outcome.reason)
    else:
        opening = page.paragraph(headline, "state") if headline else ""
    return opening + drawings.of_run(run, headline) + table + config


def main(argv: list[str]) -> None:
    """Parses the command line, writes the report, says where and how large it is."""
    console.prepare()
    parser = argparse.ArgumentParser(
        prog="python -m poison_jax.report", description="Write what a store holds on one HTML page."
    )
    where = "store (--workdir), or folder of <sweep>.jsonl"
    parser.add_argument("--runs", type=Path, required=True, help=where)
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page")
    arguments = parser.parse_args(argv)
    with one_line():
        sweeps, runs = write(arguments.runs, arguments.out)
        size = arguments.out.stat().st_size
    console.say(f"{arguments.out}: {size / 1e6:.2f} MB, {sweeps} sweeps, {runs} single runs")
