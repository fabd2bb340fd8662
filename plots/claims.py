"""The claims of Section 5, judged by the finished cells of sweeps.

Every claim is a rule over finished cells. It is *seen* where the rule holds in all comparisons that can be
made, *in part* where it holds in most of them, *not seen* otherwise, and *open* where cells are missing.
Networks whose training failed are left out. Comparisons of means over the seeds.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from plots import curves, lag, setting, tables
from plots.curves import KAPPA, THETA
from poison_jax.errors import UserError
from poison_jax.runs import records
from poison_jax.runs.records import Record

EPOCHS = "train.epochs"
TIE = 1.0  # per cent: less is no difference
SWEEPS = ("fig06", "fig07", "fig09", "fig11", "table1", "table3")  # that claims are read from
WORKS = 20.0  # per cent of attacked images above the rate without a trigger: there is an attack to speak of


class Claim(NamedTuple):
    """A sentence of Section 5 and what was found."""

    sweeps: str  # that it is read from
    text: str
    found: str
    verdict: str


def all_claims(sweeps: dict[str, list[Record]]) -> list[Claim]:
    """Every claim.

    Args:
        sweeps: of `SWEEPS` those that there are, and their finished records.
    """
    plain, augmented, deterministic, warp, longer, features = (sweeps.get(name, []) for name in SWEEPS)
    return [
        Claim("fig06", "ASR increases with θ", *_monotone(plain, THETA, "asr", +1)),
        Claim("fig06", "ASR decreases with κ", *_monotone(plain, KAPPA, "asr", -1)),
        Claim("fig06", "ASR comes before an overlap² that is above both nulls", *_lag(plain, False)),
        Claim("fig06", f"ASR comes before an overlap² above {lag.FOUND:g}", *_lag(plain, True)),
        Claim(
            "fig06",
            "increasing κ always reduces test accuracy",
            *_monotone(plain, KAPPA, "clean_accuracy", -1),
        ),
        Claim(
            "fig06, fig07", "augmentation without the penalty does not help", *_helps(plain, augmented, False)
        ),
        Claim("fig06, fig07", "augmentation with the penalty does", *_helps(plain, augmented, True)),
        Claim("table1", "longer training raises accuracy", *_monotone(longer, EPOCHS, "clean_accuracy", +1)),
        Claim("table1", "longer training raises ASR", *_monotone(longer, EPOCHS, "asr", +1)),
        Claim("fig06, fig09", "deterministic poison: ASR is a little worse", *_worse(plain, deterministic)),
        Claim("fig09", "the largest overlap moves to other eigenvectors", *_rotates(deterministic)),
        Claim("fig11", "warp: κ costs accuracy", *_monotone(warp, KAPPA, "clean_accuracy", -1)),
        Claim("fig11", "warp: κ costs less accuracy than ASR", *_less(warp)),
        Claim("table3", "triggered images are tighter than clean ones", *_collapse(features, "std_ratio")),
        Claim("table3", "and nearer to the target's clean mean", *_collapse(features, "distance_ratio")),
    ]


def page(path: Path, size: str) -> str:
    """Every claim as a table, under the scale in words.

    Args:
        path: a store, or a folder of records.
        size: what ends the sweeps' names: `-small`, say.

    Raises:
        UserError: there is no finished cell, or one is damaged.
    """
    held = {name + size for name in SWEEPS} & set(records.names(path))
    sweeps = {name: records.load(path, name + size) for name in SWEEPS if name + size in held}
    used = [record for found in sweeps.values() for record in found]
    if not used:
        raise UserError(f"{path} holds no finished cell of the paper's sweeps: run them first")
    scale = setting.common([setting.of_result(record.result) for record in used])
    rows = [[claim.text, claim.sweeps, claim.found, claim.verdict] for claim in all_claims(sweeps)]
    table = tables.table(["Section 5 says", "sweeps", "measured", "here"], rows)
    return f"Measured here: {tables.markdown(scale)}.\n\n{table}\n"


def _means(records: list[Record], name: str) -> dict[tuple, float]:
    """(theta, kappa, epochs) -> mean over the seeds, in per cent."""
    cells = curves.by(records, THETA, KAPPA, EPOCHS)
    found = {place: curves.values(group, curves.percent(name)) for place, group in cells}
    return {place: float(np.mean(values)) for place, values in found.items() if values}


def _works(records: list[Record]) -> set[tuple]:
    """Where the attack does something."""
    asr, without = _means(records, "asr"), _means(records, "no_trigger_target_rate")
    return {place for place in asr if asr[place] - without[place] > WORKS}


def _verdict(held: int, of: int) -> str:
    if not of:
        return "open"
    return "seen" if held == of else "in part" if held > of / 2 else "not seen"


def _monotone(records: list[Record], key: str, name: str, sign: int) -> tuple[str, str]:
    """Steps of `key`, all else equal, in which the measure moves as `sign` says, or not at all."""
    means, axis = _means(records, name), (THETA, KAPPA, EPOCHS).index(key)
    # What an attack does is looked at where there is one, at either end of a step.
    relevant = _works(records) if name == "asr" else set(means)
    steps = []
    for place in means:
        beside = [o for o in means if all(o[i] == place[i] for i in range(3) if i != axis)]
        later = [other for other in beside if other[axis] > place[axis]]
        if later:
            after = min(later, key=lambda other: other[axis])
            if (place in relevant or after in relevant) and (key != THETA or place[axis] > 0):
                steps.append(sign * (means[after] - means[place]))
    held = sum(step > -TIE for step in steps)
    if not steps:
        return "no two cells to compare", "open"
    change = f"{sign * np.mean(steps):+.1f} points a step in the mean ({sign * min(steps):+.1f} at the least)"
    return f"{held} of {len(steps)} steps; {change}", _verdict(held, len(steps))


def _lag(records: list[Record], large: bool) -> tuple[str, str]:
    """Whether the overlap is above what there is without an attack (or `large`) only after the ASR is."""
    if not records:
        return "no cells", "open"
    said, held, of = [], 0, 0
    for each in lag.lags(records, lag.V1, lag.nulls(records, lag.V1)):
        if each.clean is None or not each.attack.theta > 0:
            continue
        later = max(each.random, each.clean, key=lambda onset: np.nan_to_num(onset.theta, nan=np.inf))
        onset = each.found if large else later
        of += 1
        held += bool(np.isnan(onset.theta) or onset.theta > each.attack.theta)
        said.append(f"{each.label}: ASR > 50 % from {each.attack}, overlap² from {onset}")
    return "; ".join(said) + " (θ in 10⁻³)" if said else "ASR never above 50 %", _verdict(held, of)


def _falls(before: list[Record], after: list[Record]) -> dict[tuple, float]:
    """What the ASR loses from one sweep to another, in points, wherever the first's attack works."""
    first, second = _means(before, "asr"), _means(after, "asr")
    return {place: first[place] - second[place] for place in _works(before) if place in second}


def _helps(plain: list[Record], augmented: list[Record], penalised: bool) -> tuple[str, str]:
    """Whether augmentation lowers the ASR, with the penalty or without; helping is by more than a tie."""
    falls = [fall for p, fall in _falls(plain, augmented).items() if (p[1] > 0) == penalised]
    if not falls:
        return "no two cells to compare", "open"
    helped = sum(fall > TIE for fall in falls)
    words = f"ASR falls by {np.mean(falls):+.1f} points; helps in {helped} of {len(falls)}"
    return words, _verdict(helped if penalised else len(falls) - helped, len(falls))


def _worse(stochastic: list[Record], deterministic: list[Record]) -> tuple[str, str]:
    changes = [-fall for fall in _falls(stochastic, deterministic).values()]
    if not changes:
        return "no two cells to compare", "open"
    held = sum(change < TIE for change in changes)
    words = f"ASR {np.mean(changes):+.1f} points; lower in {held} of {len(changes)}"
    return words, _verdict(held, len(changes))


def _rotates(records: list[Record]) -> tuple[str, str]:
    poisoned = [r for r in records if r.setting(THETA) > 0 and curves.trained(r)]
    if not poisoned:
        return "no cells", "open"
    found = [r for r in poisoned if r.result["trigger_found"]]
    below = sum(r.result["max_overlap_index"] > 0 for r in found)
    words = f"of {len(poisoned)} networks {len(found)} show the trigger, {below} of these not in v₁"
    return words, "seen" if below else "not seen"


def _less(records: list[Record]) -> tuple[str, str]:
    """From kappa = 0 to the largest, relative to kappa = 0; an ASR above what there is without a trigger."""
    accuracy, asr = _means(records, "clean_accuracy"), _means(records, "asr")
    without, pairs = _means(records, "no_trigger_target_rate"), []
    for theta, epochs in {(place[0], place[2]) for place in _works(records)}:
        kappas = sorted(place[1] for place in accuracy if (place[0], place[2]) == (theta, epochs))
        first, last = ((theta, kappas[i], epochs) for i in (0, -1))
        if first != last and first in _works(records):
            attack = (asr[last] - without[last]) / (asr[first] - without[first])
            pairs.append((accuracy[last] / accuracy[first], attack))
    if not pairs:
        return "no attack to lose", "open"
    said = "; ".join(f"accuracy × {a:.2f}, ASR above the rate without a trigger × {b:.2f}" for a, b in pairs)
    return said, _verdict(sum(a > b for a, b in pairs), len(pairs))


def _collapse(records: list[Record], column: str) -> tuple[str, str]:
    """Classes other than the target for which a ratio of Table 3 is below 1."""
    ratios: list[float] = []
    for record in filter(curves.trained, records):
        if column in record.arrays:
            others = np.arange(len(record.arrays[column])) != record.arrays["target"]
            ratios += list(record.arrays[column][others])
    if not ratios:
        return "not measured", "open"
    held = sum(ratio < 1 for ratio in ratios)
    words = f"ratio {np.median(ratios):.2f} in the median ({min(ratios):.2f} to {max(ratios):.2f})"
    return words, _verdict(held, len(ratios))
