"""Pictures and tables of the README and docs: drawn from stored records by one command, and checked.

`docs/figures.toml` lists every picture, of what it is drawn or by which command. A table stands between

    <!-- plots: NAME SWEEP -->
    <!-- end -->

where NAME is one of `TABLES`. A picture holds the digest of the results that it was drawn from, so that
whether a picture and a table are of the same results can be told without looking at either.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from plots import canvas, claims, curves, figures, setting, tables
from poison_jax.errors import UserError
from poison_jax.runs import files, records
from poison_jax.runs.records import Record
from poison_jax.runs.store import Run

LIST = "docs/figures.toml"
_TABLE = re.compile(r"<!-- plots: (\w+) ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)


def update(root: Path, results: Path, store: Path | None = None) -> list[Path]:
    """Writes every table, and every picture of a stored sweep; pictures of runs where a store has the run.

    Args:
        root: of the project.
        results: folder of the sweeps' records.
        store: where the runs of a sweep are, for the pictures of single runs.

    Returns:
        The files that were written.

    Raises:
        UserError: a record is missing or damaged.
    """
    written = []
    for file, text, made in _pages(root, results):
        if made != text:
            files.write(file, made.encode())
            written.append(file)
    for picture, entry in _pictures(root):
        if "sweep" not in entry:
            continue
        found = records.load(results, entry["sweep"])
        if "cell" not in entry:
            parts = figures.of_records(found, entry["figure"], entry["sweep"])
            source = canvas.source(record.result for record in found)
            written += canvas.save(parts[0], picture, source=source)
        elif store:
            (cell,) = _cells(found, entry["cell"])
            with canvas.settings():
                (figure, *_) = figures.RUNS[entry["figure"]].draw(Run(store / cell.run)).values()
            written += canvas.save(figure, picture, source=canvas.source([cell.result]))
    return written


def problems(root: Path, results: Path) -> list[str]:
    """What in the documents is not of the stored records, a line for each; nothing if all is.

    Raises:
        UserError: a record is missing or damaged.
    """
    found = [
        f"{file}: a table is not of its records" for file, text, made in _pages(root, results) if made != text
    ]
    listed = dict(_pictures(root))
    for picture, entry in listed.items():
        if not picture.exists():
            found.append(f"{picture} is listed, and not there")
        elif "sweep" in entry:
            cells = _cells(records.load(results, entry["sweep"]), entry.get("cell", {}))
            if canvas.source(cell.result for cell in cells) != source_of(picture):
                found.append(f"{picture} is not of the records of {entry['sweep']}")
    found += [f"{path} is not listed" for path in (root / "docs/images").glob("*") if path not in listed]
    return found


def source_of(picture: Path) -> str:
    """The digest of the results that a picture was drawn from; "" if it does not say."""
    with Image.open(picture) as image:
        return image.info.get(canvas.SOURCE, "")


def _pictures(root: Path) -> Iterator[tuple[Path, dict]]:
    for name, entry in tomllib.loads((root / LIST).read_text(encoding="utf-8")).items():
        yield root / "docs" / name, entry


def _pages(root: Path, results: Path) -> Iterator[tuple[Path, str, str]]:
    """Every document, as it is and with its tables as the records have them."""

    def made(match):
        name, sweep, _ = match.groups()
        if name not in TABLES:
            raise UserError(f"no table {name!r}: the documents know {', '.join(TABLES)}")
        return f"<!-- plots: {name} {sweep} -->\n{TABLES[name](results, sweep)}<!-- end -->"

    for file in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        text = file.read_text(encoding="utf-8")
        yield file, text, _TABLE.sub(made, text)


def _cells(found: list[Record], values: dict) -> list[Record]:
    return [record for record in found if all(record.setting(key) == value for key, value in values.items())]


# --- the tables -----------------------------------------------------------------------------------


def _of_sweep(name: str) -> Callable[[Path, str], str]:
    return lambda results, sweep: figures.of_records(records.load(results, sweep), name, sweep)[0]


def _claims(results: Path, _: str) -> str:
    """The claims' table, of all sweeps that there are."""
    held = records.names(results)
    return claims.page(lambda name: records.load(results, name) if name in held else [])


def _arms(results: Path, sweep: str) -> str:
    """What the first seed's networks measured, a column for each kappa."""
    found = records.load(results, sweep)
    arms = _cells(found, {"seed": min(record.setting("seed") for record in found)})
    shown = [record.result for record in sorted(arms, key=lambda record: record.setting("penalty.kappa"))]
    best = [abs(result["overlap"][result["max_overlap_index"]]) for result in shown]
    rows = {
        "ASR above the target rate without trigger, points": [_points(result) for result in shown],
        "ASR (target class excluded)": [setting.percent(result["asr"]) for result in shown],
        "target rate without trigger": [
            setting.percent(result["no_trigger_target_rate"]) for result in shown
        ],
        "clean accuracy": [setting.percent(result["clean_accuracy"]) for result in shown],
        "robust accuracy": [setting.percent(result["robust_accuracy"]) for result in shown],
        "top eigenvalue of the input Hessian": [f"{result['eigenvalues'][0]:.3g}" for result in shown],
        "the next eigenvalue": [f"{result['eigenvalues'][1]:.3g}" for result in shown],
        "residual of the top one": [f"{result['residuals'][0]:.0e}" for result in shown],
        "overlap² of v₁ with the trigger": [f"{result['overlap'][0] ** 2:.3f}" for result in shown],
        "largest overlap² of the top eigenvectors": [f"{overlap**2:.3f}" for overlap in best],
    }
    header = ["", *(f"κ = {result['config']['penalty']['kappa']:g}" for result in shown)]
    return "\n".join(tables.table(header, [[name, *cells] for name, cells in rows.items()])) + "\n"


def _points(result):
    gain = setting.gain(result)
    return ("–" if gain is None else setting.points(gain)) + ", collapsed" * setting.collapsed(result)


def _seeds(results: Path, sweep: str) -> str:
    """Mean and standard deviation over the seeds, a row for each kappa."""
    rows = []
    for (kappa,), group in sorted(curves.by(records.load(results, sweep), ("penalty.kappa",)).items()):
        gains = curves.values(group, setting.gain)
        rows.append(
            [
                f"{kappa:g}",
                tables.spread(100 * np.array(gains), ".1f"),
                *(f"{tables.percent(group, name, '.1f')} %" for name in ("asr", "clean_accuracy")),
                tables.spread(curves.values(group, lambda result: result["eigenvalues"][0]), ".3f"),
                tables.spread(curves.values(group, lambda result: result["overlap"][0] ** 2)),
            ]
        )
    gain = "ASR above the target rate without trigger, points"
    header = ["κ", gain, "ASR", "clean accuracy", "top eigenvalue", "overlap² of v₁"]
    return "\n".join(tables.table(header, rows)) + "\n"


TABLES = {
    "arms": _arms,
    "seeds": _seeds,
    "claims": _claims,
    **{name: _of_sweep(name) for name in ("table1", "table2", "table3")},
}
