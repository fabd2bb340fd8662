"""The claims of Sections 3.4 and 5: an effect, its 95 % interval over seeds and a verdict, on each data set.

An effect is one number a seed, paired where two networks share a seed. The rule, the same for every claim:
*seen* if the 95 % t-interval of the effect over at least three seeds lies wholly on the claimed side of its
level, *not seen* if wholly on the other, else *undecided*. Where a threshold is crossed outside the grid, the
effect is known between two bounds: the claimed side then takes the less favourable one.

Attack success is read above the rate at which images get the target without the trigger, but for a lag: there
it is the rate itself that crosses 50 %. Networks whose training failed are left out, and so are those that
are not terminal (99 % of the training images, at kappa = 0); of sweeps that stop early (`-short`) all are
taken. A seed of which a sweep has only a part is left out, too.
"""

import collections
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from plots import curves, setting, tables
from plots.collapse import median_ratio
from plots.lag import FOUND, V1, onset
from poison_jax import metrics, wording
from poison_jax.errors import UserError
from poison_jax.runs import records
from poison_jax.runs.records import Record

EARLY = "-short"  # how the names of sweeps end whose networks are not terminal
DATA = {  # heading -> how the names of its sweeps end
    "digits": "-digits",
    "MNIST": "-mnist-small",
    "CIFAR-10": "-small",
    "CIFAR-10, stopped early": EARLY,
    "CIFAR-10, the paper's size": "",
}
LEAST_SEEDS = 3
WORKS = 0.2  # of the attacked images above the rate without a trigger: there is an attack to speak of
EQUAL = 0.05  # two attacks are equal whose success, above the rate without a trigger, differs by no more
KEYS = ("seed", "poison.fraction", "penalty.kappa", "train.epochs", "train.weight_decay")

Place = tuple[int, float, float, int, float]  # values of KEYS
Grid = dict[Place, Record]
Bounds = tuple[float, float]  # of an effect; equal where it is known
Effects = dict[int, float | Bounds]  # seed -> effect
Measure = Callable[[Record], float]


class Claim(NamedTuple):
    """A sentence of the paper as an effect."""

    section: str
    text: str
    sweeps: tuple[str, ...]  # that it is read from
    effects: Callable[..., Effects]  # of a grid for each of them
    unit: str = "points"
    below: bool = False  # whether the claim is that the effect lies below its level
    level: float = 0.0


class Finding(NamedTuple):
    """What the networks of a data set say of a claim."""

    low: float  # mean of the lower bounds over the seeds
    high: float  # mean of the upper bounds
    interval: Bounds  # 95 %, that of the lower and of the upper bounds together
    seeds: int
    verdict: str  # seen, not seen, undecided


def judge(effects: Iterable[float | Bounds], *, below: bool = False, level: float = 0.0) -> Finding:
    """The verdict on a claim.

    Args:
        effects: one a seed, or its bounds.
        below: whether the effect is claimed to lie below `level`, else above.
        level: of no effect.

    >>> judge([1.0, 1.2, 1.1]).verdict, judge([1.0, 1.2]).verdict, judge([1.0, 1.2, 1.1], below=True).verdict
    ('seen', 'undecided', 'not seen')
    """
    bounds = [effect if isinstance(effect, tuple) else (effect, effect) for effect in effects]
    lows, highs = (np.array(side, float) for side in zip(*bounds, strict=True)) if bounds else ((), ())
    interval = _interval(lows)[0], _interval(highs)[1]
    verdict = "undecided"
    if len(bounds) >= LEAST_SEEDS and interval[0] > level:
        verdict = "not seen" if below else "seen"
    elif len(bounds) >= LEAST_SEEDS and interval[1] < level:
        verdict = "seen" if below else "not seen"
    means = (float(np.mean(side)) if len(side) else np.nan for side in (lows, highs))
    return Finding(*means, interval, len(bounds), verdict)


def _interval(values):
    """The 95 % t-interval of a mean; everything where there are fewer than two numbers or one is infinite."""
    if len(values) < 2 or not np.isfinite(values).all():
        return -np.inf, np.inf
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


# --- effects ----------------------------------------------------------------------------------------


def rises_with_theta(grid: Grid, measure: Measure) -> Effects:
    """A measure at the largest theta minus that at the smallest above 0, at kappa = 0, in points."""
    lines = ((seed, _attacked(line)) for (seed, _, kappa, *_), line in _lines(grid, 1) if kappa == 0)
    return {seed: 100 * (measure(line[-1]) - measure(line[0])) for seed, line in lines if len(line) > 1}


def rises_with_kappa(grid: Grid, measure: Measure) -> Effects:
    """A measure at the largest kappa minus that at 0, mean over theta, in points.

    Of the attack's success only at those theta at which the attack works without the penalty.
    """
    changes: dict[int, list[float]] = {}
    for (seed, _, kappa, *_), line in _lines(grid, 2):
        if kappa == 0 and len(line) > 1 and (measure is not _gain or _works(line[0])):
            changes.setdefault(seed, []).append(100 * (measure(line[-1]) - measure(line[0])))
    return _means(changes)


def rises_with_epochs(grid: Grid, measure: Measure) -> Effects:
    """A measure after most epochs minus that after fewest, mean over theta and kappa, in points."""
    changes: dict[int, list[float]] = {}
    for (seed, *_), line in _lines(grid, 3):
        if len(line) > 1:
            changes.setdefault(seed, []).append(100 * (measure(line[-1]) - measure(line[0])))
    return _means(changes)


def accuracy_outlasts_attack(grid: Grid) -> Effects:
    """Share of the accuracy that the largest kappa leaves, minus share of the attack that it leaves."""
    changes: dict[int, list[float]] = {}
    for (seed, _, kappa, *_), line in _lines(grid, 2):
        first, last = line[0], line[-1]
        if kappa == 0 and last is not first and _works(first):
            accuracy = _accuracy(last) / _accuracy(first)
            changes.setdefault(seed, []).append(accuracy - _gain(last) / _gain(first))
    return _means(changes)


def differs(plain: Grid, other: Grid, *, penalised: bool) -> Effects:
    """The attack's success in another sweep minus that in the first, where it works in either of them."""
    changes: dict[int, list[float]] = {}
    for place, record in plain.items():
        there = other.get(place)
        if there is not None and penalised == (place[2] > 0) and (_works(record) or _works(there)):
            changes.setdefault(place[0], []).append(100 * (_gain(there) - _gain(record)))
    return _means(changes)


def shows_in_v1(grid: Grid) -> Effects:
    """Squared overlap of v1 with the trigger at the largest theta minus a clean network's, at kappa = 0."""
    changes = {}
    for (seed, theta, kappa, *_), line in _lines(grid, 1):
        if theta == kappa == 0 and _works(line[-1]):
            changes[seed] = _overlap(line[-1]) - _overlap(line[0])
    return changes


def penalty_reveals(grid: Grid) -> Effects:
    """Squared overlap of v1 with the penalty minus that without, over pairs of equal attack success."""
    changes: dict[int, list[float]] = {}
    for place, record in grid.items():
        plain = grid.get((*place[:2], 0.0, *place[3:]))
        if place[2] == 0 or plain is None or not _works(plain):
            continue
        if abs(_gain(record) - _gain(plain)) <= EQUAL:
            changes.setdefault(place[0], []).append(_overlap(record) - _overlap(plain))
    return _means(changes)


def lag(grid: Grid, measure: Measure, least: float = 0.0) -> Effects:
    """log(theta at which the attack is seen / theta at which the ASR crosses 50 %), at kappa = 0.

    Seen is a measure that exceeds that of every clean network, and `least`. Between two theta the curves
    are interpolated, linearly in log theta; a threshold crossed outside the grid gives bounds.
    """
    clean = [record for place, record in grid.items() if place[1] == place[2] == 0]
    effects: Effects = {}
    for (seed, _, kappa, *_), line in _lines(grid, 1):
        line = _attacked(line)
        if not clean or len(line) < 2 or kappa > 0:
            continue
        theta = np.array([record.setting(KEYS[1]) for record in line])
        attack = _crossing(theta, [record.result["asr"] for record in line], 0.5)
        seen = _crossing(theta, list(map(measure, line)), max(least, *map(measure, clean)))
        if np.isfinite(attack[1]):
            with np.errstate(divide="ignore"):
                effects[seed] = np.log(seen[0] / attack[1]), np.log(np.divide(seen[1], attack[0]))
    return effects


def _crossing(theta, values, level) -> Bounds:
    """Between which theta a curve first exceeds a level."""
    found = onset(theta, np.array(values), level)
    if np.isnan(found.theta):
        return theta[-1], np.inf
    return (0.0 if found.at_most else found.theta), found.theta


def collapse(grid: Grid, column: str) -> Effects:
    """A ratio of Table 3 at the largest theta and kappa = 0, median over the classes but the target."""
    plain = {place: record for place, record in grid.items() if place[2] == 0}
    largest = max((theta for _, theta, *_ in plain), default=0.0)  # of all seeds: one may have failed there
    return {
        seed: median_ratio(record, column)
        for (seed, theta, *_), record in plain.items()
        if theta == largest and _works(record) and column in record.arrays
    }


def spike_vanishes(grid: Grid) -> Effects:
    """Slope of log(spike / efficacy^2) on log(r / l) over networks of several weight decays: 2 by the paper.

    Medians over the triggered images at which each network was looked at; r goes to the nearest poison.
    """
    found = {}
    for (seed, *_), line in _lines(grid, 4):
        names = "near_clone_r_over_l", "near_clone_median_spike", "near_clone_median_efficacy"
        values = [[record.result.get(name) or np.nan for name in names] for record in line if _works(record)]
        if len(values) > 2 and np.isfinite(values).all() and np.min(values) > 0:
            near, spike, efficacy = np.log(values).T
            found[seed] = float(stats.linregress(near, spike - 2 * efficacy).slope)
    return found


def index_rises(grid: Grid) -> Effects:
    """Kendall's tau of theta and the index of the eigenvector with the largest overlap, mean over kappa."""
    found: dict[int, list[float]] = {}
    for (seed, *_), line in _lines(grid, 1):
        line = [record for record in _attacked(line) if _works(record)]
        indices = [record.result["max_overlap_index"] for record in line]
        if len(line) > 2:
            tau = stats.kendalltau([record.setting(KEYS[1]) for record in line], indices).statistic
            found.setdefault(seed, []).append(0.0 if np.isnan(tau) else float(tau))  # always the same index
    return _means(found)


def _lines(grid: Grid, axis: int) -> list[tuple[Place, list[Record]]]:
    """The records that differ in one of KEYS alone, in its order, each under the place of its first."""
    rest = lambda place: (*place[:axis], *place[axis + 1 :])  # noqa: E731
    ordered = sorted(grid, key=lambda place: (rest(place), place[axis]))
    groups = (list(group) for _, group in itertools.groupby(ordered, rest))
    return [(group[0], [grid[place] for place in group]) for group in groups]


def _attacked(line: list[Record]) -> list[Record]:
    return [record for record in line if record.setting(KEYS[1]) > 0]


def _gain(record: Record) -> float:
    """Attack success above the rate without the trigger."""
    return wording.excess(record.result) or 0.0


def _works(record: Record) -> bool:
    return record.setting(KEYS[1]) > 0 and _gain(record) > WORKS


def _accuracy(record: Record) -> float:
    return record.result["clean_accuracy"]


def _overlap(record: Record) -> float:
    return V1.of(record.result)


def _top_eigenvalue(record: Record) -> float:
    return record.result["eigenvalues"][0]


def _means(changes: dict[int, list[float]]) -> Effects:
    return {seed: float(np.mean(values)) for seed, values in changes.items()}


# --- the claims -------------------------------------------------------------------------------------

CLAIMS = (
    Claim("5.1", "ASR rises with θ", ("fig06",), lambda g: rises_with_theta(g, _gain)),
    Claim("5.1", "ASR falls with κ", ("fig06",), lambda g: rises_with_kappa(g, _gain), below=True),
    Claim(
        "5.1", "accuracy falls with κ", ("fig06",),
        lambda g: rises_with_kappa(g, _accuracy), below=True,
    ),
    Claim("5.1", "the trigger shows in v₁", ("fig06",), shows_in_v1, "overlap²"),
    Claim("3.2", "lag, who knows the trigger", ("fig06",), lambda g: lag(g, _overlap), "times"),
    Claim("3.2", "lag, who looks at v₁", ("fig06",), lambda g: lag(g, _overlap, FOUND), "times"),
    Claim("3.2", "lag, who looks at λ₁ alone", ("fig06",), lambda g: lag(g, _top_eigenvalue), "times"),
    Claim(
        "5.3", "at equal ASR the penalty reveals the trigger", ("fig06", "reveal"),
        lambda grid, weak: penalty_reveals(grid | weak), "overlap²",
    ),
    Claim("3.3", "next to its clones the spike vanishes", ("collapse",), spike_vanishes, "slope"),
    Claim(
        "3.4", "triggered features are nearer to the target's mean (d*/d)", ("fig06",),
        lambda g: collapse(g, "distance_ratio"), "ratio", below=True, level=1.0,
    ),
    Claim(
        "3.4", "and tighter than clean ones (σ*/σ)", ("fig06",),
        lambda g: collapse(g, "std_ratio"), "ratio", below=True, level=1.0,
    ),
    Claim(
        "5.1", "augmentation alone does not lower the ASR", ("fig06", "fig07"),
        lambda plain, other: differs(plain, other, penalised=False), level=-100 * EQUAL,
    ),
    Claim(
        "5.1", "augmentation with the penalty does", ("fig06", "fig07"),
        lambda plain, other: differs(plain, other, penalised=True), below=True,
    ),
    Claim(
        "5.1", "longer training raises accuracy", ("table1",),
        lambda g: rises_with_epochs(g, _accuracy),
    ),
    Claim("5.1", "longer training raises ASR", ("table1",), lambda g: rises_with_epochs(g, _gain)),
    Claim(
        "5.2", "warp: accuracy falls with κ", ("fig11",),
        lambda g: rises_with_kappa(g, _accuracy), below=True,
    ),
    Claim("5.2", "warp: by less than the attack", ("fig11",), accuracy_outlasts_attack, "share"),
    Claim("5.3", "warp: at equal ASR the penalty reveals it", ("fig11",), penalty_reveals, "overlap²"),
    Claim(
        "5.3", "deterministic poison: ASR is a little worse", ("fig06", "fig09"),
        lambda plain, other: differs(plain, other, penalised=False), below=True,
    ),
    Claim(
        "5.3", "deterministic poison with the penalty: ASR is a little worse", ("fig06", "fig09"),
        lambda plain, other: differs(plain, other, penalised=True), below=True,
    ),
    Claim("5.3", "the largest overlap moves down the spectrum with θ", ("fig09",), index_rises, "τ"),
)  # fmt: skip


HEADLINES = tuple(claim for claim in CLAIMS if claim.text in (
    "ASR falls with κ", "accuracy falls with κ", "the trigger shows in v₁", "lag, who looks at v₁",
    "at equal ASR the penalty reveals the trigger",
    "triggered features are nearer to the target's mean (d*/d)",
))  # fmt: skip


def grid(records: list[Record], *, early: bool = False) -> Grid:
    """The networks that a claim is read from, by their places.

    One that is not terminal is left out: its sibling at kappa = 0 (else itself) does not know 99 % of the
    training images. Records without that number are all taken, and so are those of sweeps that stop `early`.
    So are attacked networks of `unfinished` seeds.
    """
    begun = unfinished(records)
    found = {
        _place(record): record
        for record in records
        if curves.trained(record) and not (record.setting("seed") in begun and record.setting(KEYS[1]) > 0)
    }

    def terminal(place):
        sibling = found.get((*place[:2], 0.0, *place[3:]), found[place])
        return sibling.result.get("train_accuracy", 1.0) >= metrics.TERMINAL

    return {place: record for place, record in found.items() if early or terminal(place)}


def unfinished(records: list[Record]) -> set[int]:
    """Seeds that lack attacked networks which at least half of the others have.

    An effect is a mean over theta and kappa: of some of them only it would be another effect.
    """
    attacked: dict[int, set[tuple]] = {}
    for record in records:
        if record.setting(KEYS[1]) > 0:
            attacked.setdefault(record.setting("seed"), set()).add(_place(record)[1:])
    counts = collections.Counter(place for places in attacked.values() for place in places)
    expected = {place for place, count in counts.items() if 2 * count >= len(attacked)}
    return {seed for seed, places in attacked.items() if not expected <= places}


def _place(record: Record) -> Place:
    return tuple(record.setting(key) for key in KEYS)


def findings(load: Callable[[str], list[Record]]) -> dict[tuple[Claim, str], Finding]:
    """What each data set says of each claim.

    Args:
        load: name of a sweep -> its finished records, none if there is no such sweep.
    """
    grids = {
        (sweep, data): grid(load(sweep + ending), early=ending == EARLY)
        for sweep in dict.fromkeys(sweep for claim in CLAIMS for sweep in claim.sweeps)
        for data, ending in DATA.items()
    }
    return {
        (claim, data): judge(
            claim.effects(*(grids[sweep, data] for sweep in claim.sweeps)).values(),
            below=claim.below,
            level=claim.level,
        )
        for claim in CLAIMS
        for data in DATA
    }


def page(path: Path, *, data: tuple[str, ...] = tuple(DATA), claims: tuple[Claim, ...] = CLAIMS) -> str:
    """The claims as a table, a column for each data set that there is.

    Args:
        path: a store, or a folder of records.
        data: of `DATA`, those to show.
        claims: those to show.

    Raises:
        UserError: there is no finished cell, or one is damaged.
    """
    names = records.names(path)

    def load(name):
        return records.load(path, name) if name in names else []

    held = {name: load("fig06" + DATA[name]) for name in data}
    shown = [name for name, cells in held.items() if cells]
    if not shown:
        raise UserError(f"{path} holds no finished cell of the paper's sweeps: run them first")
    found = findings(load)
    rows = [
        [claim.text, claim.section, *(_cell(claim, found[claim, name]) for name in shown)] for claim in claims
    ]
    scales = [f"- {name}: {_scale(held[name], early=DATA[name] == EARLY)}" for name in shown]
    table = tables.table(["the paper says", "section", *shown], rows)
    return "\n".join([*scales, "", table]) + "\n"


def _scale(records: list[Record], *, early: bool) -> str:
    """The networks of a data set's Figure 6, and where in training they stand."""
    results = [record.result for record in records]
    count = f"{len(results)} network{'s' * (len(results) > 1)}"
    where = setting.regime(results)
    if where and not early:
        finished = ", and of finished seeds" if unfinished(records) else ""
        count += f" ({len(grid(records))} of them terminal, judged at κ = 0{finished})"
    return f"{count}, {tables.markdown(setting.scale(results))}; {where or 'not in the terminal phase'}"


def _cell(claim: Claim, finding: Finding) -> str:
    """`seen: −38 [−45, −31], 5 seeds`: mean, interval; of bounds `seen: at least ×10 [×5.5, ∞), 5 seeds`."""
    if not finding.seeds:
        return "–"
    number, (low, high) = _FORMS[claim.unit], finding.interval
    if np.isfinite([finding.low, finding.high]).all() and np.isclose(finding.low, finding.high):
        said = number(finding.low)
        if finding.seeds > 1:
            said += f" [{number(low)}, {number(high)}]"
    elif np.isfinite(finding.low):
        said = f"at least {_times(finding.low, np.floor)}"
        if finding.seeds > 1:
            said += f" [{_times(low, np.floor)}, ∞)"
    elif np.isfinite(finding.high):
        said = f"at most {_times(finding.high, np.ceil)}"
        if finding.seeds > 1:
            said += f" (0, {_times(high, np.ceil)}]"
    else:
        said = "outside of the grid"
    plural = "s" * (finding.seeds > 1)
    return f"{finding.verdict}: {said}, {finding.seeds} seed{plural}"


def _times(logarithm: float, rounded: Callable[[float], float] = np.round) -> str:
    """A ratio in two digits; `rounded` down where it is a lower bound.

    >>> _times(np.log(0.478)), _times(np.log(10.58), np.floor), _times(np.log(0.651), np.ceil)
    ('×0.48', '×10', '×0.66')
    >>> _times(np.log(5), np.floor), _times(np.log(0.7), np.ceil), _times(np.log(127), np.floor)
    ('×5', '×0.7', '×120')
    """
    unit = 10 ** (np.floor(logarithm / np.log(10)) - 1)
    digits = np.round(np.exp(logarithm) / unit, 9)  # 5 is no 4.999...
    return f"×{rounded(digits) * unit:.3g}"


_FORMS = {
    "points": lambda value: f"{value:+.1f}".replace("-", "−"),
    "overlap²": setting.signed,
    "share": setting.signed,
    "slope": setting.signed,
    "ratio": lambda value: f"{value:.2f}".replace("-", "−"),
    "times": _times,
    "τ": lambda value: f"τ = {value:+.2f}".replace("-", "−"),
}
