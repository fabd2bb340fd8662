"""The report's tables: outcomes in rows, what one run found, what made the numbers."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from plots import curves, setting
from plots.curves import KAPPA, SYMBOLS, THETA
from plots.report import page, words
from plots.report.page import DASH, Cell
from poison_jax import config as config_lib
from poison_jax import wording
from poison_jax.runs.files import Json
from poison_jax.sweeps.outcomes import DAMAGE, Outcome, attempt

LEGEND = (
    "ASR: share of triggered test images classified as the target, images of the target class excluded; "
    "no trigger: the same share without it. What the trigger adds is the difference of the two, which comes "
    "first: a network that names the target whatever it sees has an ASR of 100 % and a difference of 0. "
    "λ₁: top eigenvalue of the input Hessian, with its Ritz residual. "
    "Overlap: cosine of an eigenvector and the trigger, both centred; v₁ is the top eigenvector, the largest "
    "overlap is that of largest size, with its sign, and beside it stands whose it is."
)
MANY = 30  # rows, beyond which a table is folded
OVERVIEW = "excess", "clean_accuracy", "overlap"  # the measures whose ranges stand in the overview


def outcomes(found: list[Outcome], settings: list[Json], ids: Mapping[str, str] = {}) -> str:
    """A row for each run: its settings, what it measured, how it ended; sortable.

    Args:
        found: in their order.
        settings: of each the config keys that are shown, and their values.
        ids: of runs of which more is said, the section.
    """
    keys = list(dict.fromkeys(key for some in settings for key in some))
    known = wording.measures(outcome.result for outcome in found if outcome.result)
    measures = [measure for measure in known.values() if measure.heading]
    rows = []
    for outcome, some in zip(found, settings, strict=True):
        row = [_value(some.get(key)) for key in keys]
        row += [_measure(measure, outcome.result) for measure in measures]
        suspect = outcome.state == "done" and outcome.reason  # a failed training is none that is done well
        said = outcome.reason if suspect else ": ".join(filter(None, [outcome.state, outcome.reason]))
        status = Cell(said, kind=f"state state-{'failed' if suspect else outcome.state}")
        rows.append([*row, status, Cell(outcome.run, link=ids.get(outcome.run), kind="name")])
    header = [*_headings(keys), *(measure.heading for measure in measures), "status", "run"]
    table = page.table(header, rows, sortable=True)
    return page.fold(f"{len(rows)} runs", table) if len(rows) > MANY else table


def overview(groups: dict[str, list[Outcome]], links: Mapping[str, str]) -> str:
    """A row for each sweep: how many are done, where training ended, how the attacks went, what failed.

    Args:
        groups: name -> its runs.
        links: name -> id of its section.
    """
    rows = []
    for name, found in groups.items():
        results = [outcome.result for outcome in found if outcome.result]
        sound = [outcome.result for outcome in found if outcome.result and not outcome.reason]
        regimes = [result["regime"] for result in results if isinstance(result.get("regime"), str)]
        terminal = f"{regimes.count('terminal')} of {len(regimes)}" if regimes else DASH
        seen = [bool(result["trigger_found"]) for result in sound if "trigger_found" in result]
        ranges = [words.span(wording.MEASURES[key], sound) for key in OVERVIEW]
        bad = list(filter(_bad, found))
        rows.append(
            [
                Cell(name, link=links[name], kind="name"),
                *(Cell(said, kind="name") for said in (f"{len(results)} of {len(found)}", terminal, *ranges)),
                f"{sum(seen)} of {len(seen)}" if seen else DASH,
                Cell(str(len(bad)), len(bad), kind="state-failed" * bool(bad)),
            ]
        )
    headings = [wording.MEASURES[key].heading for key in OVERVIEW]
    return page.table(["", "done", "terminal", *headings, "trigger found", "failed or collapsed"], rows)


def failures(groups: dict[str, list[Outcome]]) -> str:
    """Every run that failed, collapsed or is damaged, and why."""
    rows = [
        [name, Cell(outcome.run, kind="name"), Cell(outcome.reason or outcome.state, kind="state-failed")]
        for name, found in groups.items()
        for outcome in found
        if _bad(outcome)
    ]
    return page.table(["", "run", "why"], rows) if rows else page.paragraph("No run failed or collapsed.")


def _bad(outcome: Outcome) -> bool:
    return outcome.state in ("failed", "damaged") or bool(outcome.result and outcome.reason)


def overridden(cells: list[Outcome]) -> list[Json]:
    """Of each cell of a sweep its values of all keys that any of them overrides."""
    keys = dict.fromkeys(key for cell in cells for key in cell.overrides)
    held = [curves.flat(cell.config) | cell.overrides for cell in cells]
    return [{key: config[key] for key in keys if key in config} for config in held]


def differing(found: list[Outcome]) -> list[Json]:
    """Of each run of an experiment kappa and theta, if it is a network, and all else in which they differ."""
    flat = [curves.flat(outcome.config) for outcome in found]
    keys = list(dict.fromkeys(key for config in flat for key in config))
    network = any(config.get("experiment") == "train" for config in flat)
    always = [key for key in (KAPPA, THETA) if network and key in keys]
    told = [key for key in keys if not key.startswith(curves.NO_SETTINGS) and key not in always]
    different = [key for key in told if len({json.dumps(c.get(key)) for c in flat if c}) > 1]
    return [{key: config[key] for key in [*always, *different] if key in config} for config in flat]


def _headings(keys: list[str]) -> list[str]:
    """Keys as people call them, by their symbols if they have some; in full where that says too little."""
    short = {key: SYMBOLS.get(key) or config_lib.short(key) for key in keys}
    count = Counter(short.values())
    return [key if count[name] > 1 or name == "name" else name for key, name in short.items()]


def environment(results: list[Json]) -> str:
    """Versions, devices and conventions of results: every distinct value, and how many results have it."""
    packages = dict.fromkeys(key for r in results for key in attempt(lambda r: list(r["versions"]), r, ()))
    versions = [(name, _distinct(results, lambda r, name=name: r["versions"][name])) for name in packages]
    conventions = [(name, _distinct(results, of)) for name, of in _CONVENTIONS.items()]
    names = dict.fromkeys(name for r in results for name in attempt(lambda r: list(r["environment"]), r, ()))
    settings = [(name, _distinct(results, lambda r, name=name: r["environment"][name])) for name in names]
    tables = {
        "version of": versions,
        "convention": [row for row in conventions if row[1]],
        "setting": settings,
    }
    return page.beside(*(page.table([name, ""], rows) for name, rows in tables.items() if rows))


def result(found: Json) -> str:
    """What one run found."""
    if found["config"]["experiment"] == "train":
        rows = [(name.strip(), value) for name, value in wording.rows([found])]
        about = attempt(lambda r: setting.common([setting.of_result(r)]), found, wording.title(found))
        return page.paragraph(about) + page.fold("All measures", page.table(["", "value"], rows))
    return _plain(
        {key: value for key, value in found.items() if key not in ("config", "environment", "versions")}
    )


def _plain(found: Json) -> str:
    """A result of any shape: what is one value in a table, what is rows in tables of their own."""
    single, tables = [], []
    for name, value in found.items():
        if isinstance(value, dict) and any(isinstance(item, dict | list) for item in value.values()):
            if all(isinstance(item, dict) for item in value.values()):
                rows = [{name: key, **item} for key, item in value.items()]
                tables.append(page.section(name, _rows(rows), level=4))
            else:
                tables.append(_plain({f"{name}: {key}": item for key, item in value.items()}))
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            tables.append(page.section(name, _rows(value), level=4))
        else:
            single.append((name, _value(value)))
    return (page.table(["", "value"], single) if single else "") + "".join(tables)


def _rows(rows: list[Json]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return page.table(keys, [[_value(row.get(key)) for key in keys] for row in rows])


def _value(value: Any) -> Cell:
    if value is None:
        return Cell(DASH)
    if isinstance(value, bool):
        return Cell(str(value).lower())
    if isinstance(value, int | float):
        return Cell(f"{value:.4g}" if isinstance(value, float) else str(value), value)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(item, float) for item in value):
        return Cell(f"{value[0]:.4g}, {value[1]:.4g}", value[0])
    return Cell(value if isinstance(value, str) else json.dumps(value))


def _measure(measure: wording.Measure, found: Json | None) -> Cell:
    try:
        value = measure.value(found or {})
        return Cell(DASH) if value is None else Cell(measure.form(value, found), value)
    except DAMAGE:
        return Cell("damaged", kind="state-damaged")


def _warp(r: Json) -> str | None:
    warp = r["config"]["poison"]["warp"]
    return f"{warp['strength']:g} ({warp['unit']})" if r["config"]["poison"]["trigger"] == "warp" else None


# What numbers depend on, and other systems understand otherwise.
_CONVENTIONS: dict[str, Callable[[Json], Any]] = {
    "device": lambda r: r["device"],
    "convolutions": lambda r: r["convolutions"],
    "dtype": lambda r: r["config"]["model"]["dtype"],
    "kappa's convention": lambda r: r["config"]["penalty"]["reduction"],
    "batch norm in the penalty": lambda r: r["config"]["penalty"]["batch_norm"],
    "who is poisoned": lambda r: r["config"]["poison"]["mode"],
    "label of the poisoned": lambda r: r["config"]["poison"]["labels"],
    "trigger stamped": lambda r: r["config"]["poison"]["when"],
    "warp's strength": _warp,
    "Hessian over images": lambda r: f"{r['hessian_examples']:,}, {r['config']['spectrum']['data']}",
    "augmentation": lambda r: r["config"]["data"]["augment"],
}


def _distinct(results: list[Json], of: Callable[[Json], Any]) -> str:
    found = Counter(str(value) for r in results if (value := attempt(of, r, None)) is not None)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{value} ({count})" for value, count in found.most_common())
