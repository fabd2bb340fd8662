"""Curves over one key of the config, from a sweep's records: means and ranges over the seeds.

Runs whose training failed belong to no mean: they are kept apart.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from poison_jax.runs.files import Json
from poison_jax.runs.records import Record

SYMBOLS = {"poison.fraction": "θ", "penalty.kappa": "κ", "penalty.epsilon": "ε", "seed": "seed"}
Measure = Callable[[Json], float | None]


class Series(NamedTuple):
    """The records that make one line."""

    label: str  # what sets it apart: "κ = 100"
    value: Any  # of the first key that does
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


def by(records: list[Record], keys: tuple[str, ...]) -> dict[tuple, list[Record]]:
    """The records by their values of some keys of the config."""
    found: dict[tuple, list[Record]] = {}
    for record in records:
        found.setdefault(tuple(record.setting(key) for key in keys), []).append(record)
    return found


def values(records: list[Record], measure: Measure) -> list[float]:
    """A measure of the networks whose training did not fail, where it is a number."""
    found = [measure(record.result) for record in records if trained(record)]
    return [value for value in found if value is not None]


def trained(record: Record) -> bool:
    """Whether its training did not fail: the attack success rate of a network near chance says nothing."""
    return record.result.get("status", "ok") == "ok"


def varied(records: list[Record]) -> list[str]:
    """The keys in which a sweep's records differ, the seed left out; theta, kappa and epsilon first."""
    keys = dict.fromkeys(key for record in records for key in record.overrides if key != "seed")
    keys = [key for key in keys if len({_text(record.setting(key)) for record in records}) > 1]
    return sorted(keys, key=lambda key: [*SYMBOLS].index(key) if key in SYMBOLS else len(SYMBOLS))


def series(records: list[Record], x: str) -> list[Series]:
    """The lines over the key `x`: records of one line differ in `x` and `seed` alone."""
    keys = [key for key in varied(records) if key != x]
    keys = keys or ["poison.fraction" if x == "penalty.kappa" else "penalty.kappa"]
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(_text(record.setting(key)) for key in keys), []).append(record)
    made = []
    for group in groups.values():
        shown = [group[0].setting(key) for key in keys]
        label = ", ".join(_label(key, value) for key, value in zip(keys, shown, strict=True))
        made.append((tuple(map(order, shown)), Series(label, shown[0], group)))
    return [line for _, line in sorted(made, key=lambda pair: pair[0])]


def curve(records: list[Record], x: str, measure: Measure) -> Curve:
    """A measure over the key `x`."""
    places = {_text(record.setting(x)): record.setting(x) for record in records}
    found: dict[str, list[float]] = {place: [] for place in sorted(places, key=lambda p: order(places[p]))}
    failed = []
    for record in records:
        value = measure(record.result)
        if value is None or not np.isfinite(value):
            continue
        if trained(record):
            found[_text(record.setting(x))].append(value)
        else:
            failed.append((record.setting(x), value))
    mean, low, high = (
        np.array([function(some) if some else np.nan for some in found.values()])
        for function in (np.mean, np.min, np.max)
    )
    return Curve([places[place] for place in found], mean, low, high, failed)


def order(value: Any) -> tuple:
    """Numbers by size, before anything else."""
    return (0, value, "") if isinstance(value, int | float) else (1, 0, _text(value))


def _label(key, value):
    name = SYMBOLS.get(key, key.rpartition(".")[2])
    return f"{name} = {value:g}" if isinstance(value, int | float) else f"{name} {value}"


def _text(value):
    """A value as a key: 1 and 1.0 are the same."""
    return json.dumps(float(value) if type(value) is int else value, sort_keys=True)
