"""Curves over one key of the config, from a sweep's records: means and ranges over the seeds.

Runs whose training failed belong to no mean: they are kept apart.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from poison_jax.runs.records import Record
from poison_jax.runs.store import Json

SYMBOLS = {"poison.fraction": "θ", "penalty.kappa": "κ", "penalty.epsilon": "ε", "seed": "seed"}
Measure = Callable[[Json], float | None]


class Series(NamedTuple):
    """The records that make one line."""

    label: str  # what sets it apart: "κ = 100"
    value: Any  # of the first key that does
    records: list[Record]


class Curve(NamedTuple):
    """A measure over a key, the runs of each value of the key put together."""

    x: np.ndarray  # [X] rising
    mean: np.ndarray  # [X] over the runs that trained; NaN where none did
    low: np.ndarray  # [X] smallest
    high: np.ndarray  # [X] largest
    failed: np.ndarray  # [F, 2] key and measure of each run whose training failed


def percent(name: str) -> Measure:
    """The measure that a result has under this name, a fraction, in per cent."""
    return lambda result: None if result[name] is None else 100 * result[name]


def trained(record: Record) -> bool:
    """Whether its training did not fail: the attack success rate of a network near chance says nothing."""
    return record.result.get("status", "ok") == "ok"


def series(records: list[Record], x: str) -> list[Series]:
    """The lines over the key `x`: records of one line differ in `x` and `seed` alone."""
    keys = [key for key in dict.fromkeys(k for r in records for k in r.overrides) if key not in (x, "seed")]
    keys = [key for key in keys if len({_text(r.setting(key)) for r in records}) > 1]
    keys = sorted(keys, key=lambda key: key not in SYMBOLS) or [
        "poison.fraction" if x == "penalty.kappa" else "penalty.kappa"
    ]
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(_text(record.setting(key)) for key in keys), []).append(record)
    made = []
    for group in groups.values():
        values = [group[0].setting(key) for key in keys]
        label = ", ".join(_label(key, value) for key, value in zip(keys, values, strict=True))
        made.append((tuple(map(_order, values)), Series(label, values[0], group)))
    return [line for _, line in sorted(made, key=lambda pair: pair[0])]


def curve(records: list[Record], x: str, measure: Measure) -> Curve:
    """A measure over the key `x`."""
    places = sorted({record.setting(x) for record in records})
    found: dict[float, list[float]] = {place: [] for place in places}
    failed = []
    for record in records:
        value = measure(record.result)
        if value is None or not np.isfinite(value):
            continue
        if trained(record):
            found[record.setting(x)].append(value)
        else:
            failed.append((record.setting(x), value))
    mean, low, high = (
        np.array([function(found[place]) if found[place] else np.nan for place in places])
        for function in (np.mean, np.min, np.max)
    )
    return Curve(np.array(places, float), mean, low, high, np.array(failed, float).reshape(-1, 2))


def _label(key, value):
    name = SYMBOLS.get(key, key.rpartition(".")[2])
    return f"{name} = {value:g}" if isinstance(value, int | float) else f"{name} {value}"


def _text(value):
    return json.dumps(value, sort_keys=True)


def _order(value):
    """Numbers by size, before anything else."""
    return (0, value, "") if isinstance(value, int | float) else (1, 0, _text(value))
