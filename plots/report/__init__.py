"""The HTML page of a store: `python -m poison_jax.report --runs DIR [--out report.html]`.

Sweeps first, with their figures, tables and cells, then the runs that belong to none. The page needs
nothing besides itself; what is damaged or not finished is listed with the reason, and nothing is written
but the page. DIR may also be a folder of the JSON lines that `poison_jax.records` writes.
"""

import argparse
import datetime
import tempfile
from pathlib import Path

from plots.report import page, sections
from poison_jax import console
from poison_jax.errors import UserError, one_line
from poison_jax.runs import files
from poison_jax.sweeps import outcomes


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
            sections.environment(groups, runs),
            *sections.sweeps(path, groups, Path(work), advance),
            *sections.single_runs(path, runs, Path(work), advance),
        ]
    now = datetime.datetime.now().astimezone()
    body = [
        page.paragraph(f"Written on {now:%d %B %Y at %H:%M %Z}.", "soft"),
        page.contents((part.id, part.title, part.remark) for part in parts),
        *(page.section(part.title, part.body, id=part.id, level=part.level) for part in parts),
    ]
    files.write(out, page.document(f"poison_jax: {path.resolve().name or path}", "".join(body)))
    return len(groups), len(runs)


def main(argv: list[str]) -> None:
    """Parses the command line, writes the report, says where and how large it is."""
    console.prepare()
    parser = argparse.ArgumentParser(
        prog="python -m poison_jax.report",
        description="Write what a store holds on one HTML page.",
    )
    parser.add_argument(
        "--runs", type=Path, required=True, help="store (--workdir), or folder of <sweep>.jsonl"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page")
    arguments = parser.parse_args(argv)
    with one_line():
        sweeps, runs = write(arguments.runs, arguments.out)
        size = arguments.out.stat().st_size
    console.say(f"{arguments.out}: {size / 1e6:.2f} MB, {sweeps} sweeps, {runs} single runs")
