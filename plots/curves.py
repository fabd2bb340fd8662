"""Curves over one key of the config, from a sweep's records: means and ranges over the seeds.

Runs whose training failed belong to no mean: they are kept apart.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from poison_jax.runs.files import Json
from poison_jax.runs.records import Record

THETA, KAPPA = "poison.fraction", "penalty.kappa"
SYMBOLS = {THETA: "θ", KAPPA: "κ", "penalty.epsilon": "ε", "seed": "seed"}
# Keys in which runs may differ that say nothing of what was run.
NO_SETTINGS = "name", "experiment", "compare.", "sweep.", "data.dir"
Measure = Callable[[Json], float | None]


class Series(NamedTuple):
    """The records that make one line."""

    label: str  # what sets it apart: "κ = 100"
    records: list[Record]


class Curve(NamedTuple):
    """A measure over a key, the runs of each value of the key put together."""

    x: list  # [X] values of the key, rising
    mean: np.ndarray  # [X] over the runs that trained; NaN where none did
    low: np.ndarray  # [X] smallest
    high: np.ndarray  # [X] largest
    failed: list[tuple[Any, float]]  # key and measure of each run whose training failed


def percent(name: str) -> Measure:
    """The measure that a result has under this name, a fraction, in per cent."""
    return lambda result: None if result.get(name) is None else 100 * result[name]


def trained(record: Record) -> bool:
    """Whether its training did not fail: the attack success rate of a network near chance says nothing."""
    return record.result.get("status", "ok") == "ok"


def values(records: list[Record], measure: Measure) -> list[float]:
    """A measure of the networks whose training did not fail, where it is a number."""
    found = [measure(record.result) for record in records if trained(record)]
    return [value for value in found if value is not None and np.isfinite(value)]


def by(records: list[Record], *keys: str) -> list[tuple[tuple, list[Record]]]:
    """The records by their values of some keys of the config: numbers by size, before anything else."""
    found: dict[tuple, tuple[tuple, list[Record]]] = {}
    for record in records:
        held = tuple(record.setting(key) for key in keys)
        found.setdefault(tuple(map(_text, held)), (held, []))[1].append(record)
    return sorted(found.values(), key=lambda group: tuple(map(_order, group[0])))


def varied(records: list[Record]) -> list[str]:
    """The keys in which a sweep's records differ, the seed left out; theta, kappa and epsilon first."""
    keys = dict.fromkeys(key for record in records for key in record.overrides if key != "seed")
    keys = [key for key in keys if len(by(records, key)) > 1]
    return sorted(keys, key=lambda key: [*SYMBOLS].index(key) if key in SYMBOLS else len(SYMBOLS))


def flat(config: Json, prefix: str = "") -> Json:
    """A config by dotted keys."""
    found = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def most_seeds(records: list[Record], x: str) -> int:
    """How many records the largest of the groups has that differ in the seed alone."""
    return max(len(group) for _, group in by(records, x, *varied(records)))


def series(records: list[Record], x: str) -> list[Series]:
    """The lines over the key `x`: records of one line differ in `x` and `seed` alone."""
    keys = [key for key in varied(records) if key != x] or [THETA if x == KAPPA else KAPPA]
    return [Series(", ".join(map(label, keys, shown)), group) for shown, group in by(records, *keys)]


def curve(records: list[Record], x: str, measure: Measure) -> Curve:
    """A measure over the key `x`."""
    groups = by(records, x)
    found = [values(group, measure) or [np.nan] for _, group in groups]
    mean, low, high = (np.array([of(some) for some in found]) for of in (np.mean, np.min, np.max))
    others = [(record.setting(x), measure(record.result)) for record in records if not trained(record)]
    failed = [(place, value) for place, value in others if value is not None and np.isfinite(value)]
    return Curve([place for (place,), _ in groups], mean, low, high, failed)


def _order(value: Any) -> tuple:
    return (0, value, "") if isinstance(value, int | float) else (1, 0, _text(value))


def label(key: str, value: Any) -> str:
    """A key and its value in words: `κ = 100`."""
    name = SYMBOLS.get(key, key.rpartition(".")[2])
    return f"{name} = {value:g}" if isinstance(value, int | float) else f"{name} {value}"


def _text(value: Any) -> str:
    """A value as a key: 1 and 1.0 are the same."""
    return json.dumps(float(value) if type(value) is int else value, sort_keys=True)
