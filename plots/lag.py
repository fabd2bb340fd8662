"""Detectability lag (Remark 3.5) as numbers: theta at which the attack works, and at which it is seen.

For each kappa, of the means over the seeds: the theta at which the attack success rate crosses 50 %, and
those at which the squared overlap with the trigger leaves what it is without an attack: for a random
direction (its 99.9 % quantile), and in the sweep's clean networks (the largest there is at theta = 0);
and that at which it is large enough to count as found by whoever does not know the trigger.
Between two cells a curve is interpolated, linearly in log theta. Runs whose training failed are left out.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from plots import curves, setting, tables
from plots.curves import THETA
from poison_jax import metrics
from poison_jax.runs.files import Json
from poison_jax.runs.records import Record

UNIT = 1e-3  # of theta, in words and on axes
SUCCESS = 50.0  # per cent of attacked images: the attack works
LEVEL = 1e-3  # probability that a random direction exceeds its null
FOUND = 0.1  # squared overlap that shows a trigger in a picture, if it is beyond the random null, too
HEADER = [
    "θ (10⁻³) at which",
    "ASR > 50 %",
    "overlap² > random's",
    "> clean networks'",
    f"> {FOUND:g} and random's (found)",
]


class Overlap(NamedTuple):
    """Which squared overlap with the trigger is meant."""

    name: str
    label: str  # of an axis
    of: Callable[[Json], float]
    count: Callable[[Json], int]  # eigenvectors that it is the best of


V1 = Overlap(
    "overlap² of v₁ with the trigger",
    "overlap² of v₁",
    lambda result: float(result["overlap"][0]) ** 2,
    lambda result: 1,
)
LARGEST = Overlap(
    "largest overlap² of the top eigenvectors with the trigger",
    "largest overlap²",
    lambda result: (np.array(result["overlap"], float) ** 2).max(),
    lambda result: len(result["overlap"]),
)


class Nulls(NamedTuple):
    """What an overlap is without an attack."""

    random: float
    clean: float  # NaN where no clean network was trained
    dimension: int  # of the input, channels included
    networks: int  # clean ones


class Onset(NamedTuple):
    """Where a curve over theta first exceeds a level.

    `theta` is NaN where it does not, 0 where it does at theta = 0 already; with `at_most` it does at the
    smallest positive theta there is, and so may at less.
    """

    theta: float
    at_most: bool = False

    def __str__(self):
        if np.isnan(self.theta):
            return "not reached"
        return f"{'≤ ' * self.at_most}{self.theta / UNIT:.3g}" if self.theta else "0"


class Lag(NamedTuple):
    """Of one series: when the attack works, and when the overlap leaves each null."""

    label: str
    attack: Onset
    random: Onset
    clean: Onset | None  # None: no clean network to compare with
    found: Onset


def random_null(dimension: int, count: int = 1) -> float:
    """What the squared cosine of a random direction, or the best of `count`, exceeds once in a thousand."""
    return metrics.overlap_threshold(dimension, count, level=LEVEL, floor=0.0)


def nulls(records: list[Record], overlap: Overlap) -> Nulls:
    """Both nulls of a sweep."""
    clean = [r for r in records if r.setting(THETA) == 0 and curves.trained(r)]
    dimension = int(np.prod(records[0].arrays["shape"]))
    count = max(overlap.count(record.result) for record in records)
    largest = max((float(overlap.of(record.result)) for record in clean), default=np.nan)
    return Nulls(random_null(dimension, count), largest, dimension, len(clean))


def onset(theta: np.ndarray, values: np.ndarray, level: float) -> Onset:
    """Where a curve first exceeds a level.

    Args:
        theta: `[T]` rising, may begin with 0.
        values: `[T]`, NaN where there is none.
        level: to exceed.
    """
    known = np.isfinite(values)
    theta, values = np.asarray(theta)[known], values[known]
    above = np.flatnonzero(values > level)
    if not above.size:
        return Onset(np.nan)
    i = above[0]
    if theta[i] == 0 or i == 0 or theta[i - 1] == 0:
        return Onset(float(theta[i]), at_most=bool(theta[i] > 0))
    share = (level - values[i - 1]) / (values[i] - values[i - 1])
    return Onset(float(theta[i - 1] * (theta[i] / theta[i - 1]) ** share))


def lags(records: list[Record], overlap: Overlap, null: Nulls) -> list[Lag]:
    """The lag of each series of a sweep."""
    found = []
    for line in curves.series(records, THETA):
        attack = curves.curve(line.records, THETA, curves.percent("asr"))
        works = onset(attack.x, attack.mean, SUCCESS)
        seen = curves.curve(line.records, THETA, overlap.of)
        levels = null.random, null.clean, max(FOUND, null.random)
        random, clean, known = (onset(seen.x, seen.mean, level) for level in levels)
        found.append(Lag(line.label, works, random, clean if null.networks else None, known))
    return found


def ratio(attack: Onset, seen: Onset) -> str:
    """How many times the attack's theta is needed to see it; empty where that is not known."""
    if not (attack.theta > 0 and seen.theta > 0) or seen.at_most:
        return ""
    return f"{'≥ ' * attack.at_most}{seen.theta / attack.theta:.2g}×"


def rows(found: list[Lag]) -> list[list[str]]:
    """A row for each series, under `HEADER`."""

    def said(attack, seen):
        if seen is None:
            return "no network at θ = 0"
        times = ratio(attack, seen)
        return f"{seen} ({times})" if times else str(seen)

    return [
        [lag.label, str(lag.attack), *(said(lag.attack, seen) for seen in (lag.random, lag.clean, lag.found))]
        for lag in found
    ]


def explained(overlap: Overlap, null: Nulls) -> str:
    """What the columns of the table are."""
    clean = (
        f"{null.clean:.3g} (the largest of {null.networks} network{'s'[: null.networks > 1]} at θ = 0)"
        if null.networks
        else "not known: no network was trained at θ = 0"
    )
    return (
        f"{overlap.name}: random directions' {null.random:.2g} (99.9 % quantile, d = {null.dimension:,}), "
        f"clean networks' {clean}; brackets: times the θ at which the attack works"
    )


def table(records: list[Record], title: str, overlap: Overlap = V1) -> str:
    """The lag of a sweep as Markdown, under a title."""
    null = nulls(records, overlap)
    shown = [[tables.markdown(label), *cells] for label, *cells in rows(lags(records, overlap, null))]
    words = f"{explained(overlap, null)}; ≤: already at the smallest θ above 0; a 0: without poison, too."
    return "\n\n".join([f"**{tables.markdown(title)}**", tables.table(HEADER, shown), words]) + "\n"


def report(records: list[Record], title: str) -> str:
    """The same, with the sweep's setting."""
    said = map(tables.markdown, setting.of_sweep(records, THETA, "")[1:])
    return f"{table(records, title)}\n{' '.join(f'{sentence}.' for sentence in said if sentence)}\n"
