"""Pictures and tables of the README and docs: drawn from stored records by one command, and checked.

`docs/figures.toml` lists every picture, of what it is drawn or by which command. A table stands between

    <!-- plots: NAME SWEEP -->
    <!-- end -->

where NAME is one of `TABLES`; a picture's caption in italics below it. A picture holds its caption, and the
digest of the results that it was drawn from, so that whether a picture and a table are of the same results
can be told without looking at either.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from plots import canvas, claims, collapse, curves, figures, lag, setting, tables
from poison_jax import wording
from poison_jax.errors import UserError
from poison_jax.runs import files, records
from poison_jax.runs.records import Record
from poison_jax.runs.store import Run

LIST = "docs/figures.toml"
_PICTURE = re.compile(r"(!\[[^\]]*\]\((?:docs/)?(images/[\w-]+\.png)\)\n)(?:\n\*[^\n]+\*\n)?(?=(.?))")
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
        UserError: a record is missing or damaged; the store is no folder.
    """
    if store and not store.is_dir():
        raise UserError(f"{store} is no folder: name the --workdir of the runs")
    written = []
    for picture, entry in pictures(root).items():
        cells = _cells(results, entry)
        if "cell" in entry and store and all((store / cell.run / "result.json").exists() for cell in cells):
            with canvas.settings():
                part = figures.RUNS[entry["figure"]].several([Run(store / cell.run) for cell in cells])
        elif "cell" not in entry and cells:
            (part, *_) = figures.of_records(cells, entry["figure"], entry["sweep"])
        else:
            continue
        found = [cell.result for cell in cells]
        written += canvas.save([(picture.stem, part)], picture.parent, picture.suffix, results=found)
    for file, text, made in _pages(root, results):
        if made != text:
            files.write(file, made.encode())
            written.append(file)
    return written


def problems(root: Path, results: Path) -> list[str]:
    """What in the documents is not of the stored records, a line for each; nothing if all is.

    Raises:
        UserError: a record is missing or damaged.
    """
    pages = _pages(root, results)
    found = [
        f"{file}: a table or caption is not of its records" for file, text, made in pages if made != text
    ]
    listed = pictures(root)
    for picture, entry in listed.items():
        if not picture.exists():
            found.append(f"{picture} is listed, and not there")
        elif cells := _cells(results, entry):
            with Image.open(picture) as image:
                source = image.info.get(canvas.SOURCE)
            if source != canvas.source(cell.result for cell in cells):
                found.append(f"{picture} is not of the records of {entry['sweep']}")
    found += [f"{path} is not listed" for path in (root / "docs/images").glob("*") if path not in listed]
    return found


def pictures(root: Path) -> dict[Path, dict]:
    """Every picture of the documents, and its entry in the list."""
    listed = tomllib.loads((root / LIST).read_text(encoding="utf-8"))
    return {root / "docs" / name: entry for name, entry in listed.items()}


def _pages(root: Path, results: Path) -> Iterator[tuple[Path, str, str]]:
    """Every document, as it is and with its tables as the records, its captions as the pictures have them."""

    def made(match):
        name, sweep, _ = match.groups()
        if name not in TABLES:
            raise UserError(f"no table {name!r}: the documents know {', '.join(TABLES)}")
        return f"<!-- plots: {name} {sweep} -->\n{TABLES[name](results, sweep)}<!-- end -->"

    def captioned(match):
        shown, name, follows = match.groups()
        picture = root / "docs" / name
        caption = canvas.caption(picture.read_bytes()) if picture.exists() else ""
        return (
            f"{shown}\n*{tables.markdown(caption, cell=False)}*\n" + "\n" * bool(follows)
            if caption
            else match[0]
        )

    for file in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        text = file.read_text(encoding="utf-8")
        yield file, text, _PICTURE.sub(captioned, _TABLE.sub(made, text))


def _cells(results: Path, entry: dict) -> list[Record]:
    """The records that a picture is drawn from; none where it is of no stored sweep."""
    found = records.load(results, entry["sweep"]) if "sweep" in entry else []
    values = entry.get("cell", {}).items()
    return [record for record in found if all(record.setting(key) == value for key, value in values)]


# --- the tables -----------------------------------------------------------------------------------


def _of_sweep(name: str) -> Callable[[Path, str], str]:
    return lambda results, sweep: figures.of_records(records.load(results, sweep), name, sweep)[0]


def _arms(results: Path, sweep: str) -> str:
    """What the first seed's networks measured, a column for each kappa."""
    (_, first), *_ = curves.by(records.load(results, sweep), "seed")
    shown = [group[0].result for _, group in curves.by(first, "penalty.kappa")]
    best = [abs(result["overlap"][result["max_overlap_index"]]) for result in shown]
    shares = {
        "ASR (target class excluded)": "asr",
        "target rate without trigger": "no_trigger_target_rate",
        "clean accuracy": "clean_accuracy",
        "robust accuracy": "robust_accuracy",
    }
    rows = {
        "ASR above the target rate without trigger, points": map(_points, shown),
        **{name: [wording.percent(result[key]) for result in shown] for name, key in shares.items()},
        "top eigenvalue of the input Hessian": [f"{result['eigenvalues'][0]:.3g}" for result in shown],
        "the next eigenvalue": [f"{result['eigenvalues'][1]:.3g}" for result in shown],
        "residual of the top one": [f"{result['residuals'][0]:.0e}" for result in shown],
        "overlap² of v₁ with the trigger": [f"{result['overlap'][0] ** 2:.3f}" for result in shown],
        "largest overlap² of the top eigenvectors": [f"{overlap**2:.3f}" for overlap in best],
    }
    header = ["", *(f"κ = {result['config']['penalty']['kappa']:g}" for result in shown)]
    return tables.table(header, [[name, *cells] for name, cells in rows.items()]) + "\n"


def _points(result):
    gain = wording.excess(result)
    return ("–" if gain is None else setting.points(gain)) + ", collapsed" * setting.collapsed(result)


def _seeds(results: Path, sweep: str) -> str:
    """Mean and standard deviation over the seeds, a row for each kappa."""
    rows = []
    for (kappa,), group in curves.by(records.load(results, sweep), "penalty.kappa"):
        gains = 100 * np.array(curves.values(group, wording.excess))
        asr, accuracy = (f"{tables.percent(group, name, '.1f')} %" for name in ("asr", "clean_accuracy"))
        top = tables.spread(curves.values(group, lambda result: result["eigenvalues"][0]), ".3f")
        overlap = tables.spread(curves.values(group, lag.V1.of))
        rows.append([f"{kappa:g}", tables.spread(gains, ".1f"), asr, accuracy, top, overlap])
    gain = "ASR above the target rate without trigger, points"
    header = ["κ", gain, "ASR", "clean accuracy", "top eigenvalue", "overlap² of v₁"]
    return tables.table(header, rows) + "\n"


TABLES = {
    "arms": _arms,
    "seeds": _seeds,
    "claims": lambda results, _: claims.page(results),
    "findings": lambda results, _: claims.page(results, data=("digits", "MNIST"), claims=claims.HEADLINES),
    "collapse": lambda results, sweep: collapse.law(records.load(results, sweep), f"Power laws of {sweep}"),
    "lag": lambda results, sweep: lag.table(records.load(results, sweep), f"Thresholds of {sweep}"),
    **{name: _of_sweep(name) for name in ("audit", "table1", "table2", "table3")},
}
