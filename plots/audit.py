"""Power, false alarms and ROC areas of the audit's detectors, from the stored networks of a sweep.

Three kinds of networks make up the sweep: clean references (seeds 1000 to 1999), held-out clean ones and
attacked ones. Each of the latter two is compared with all references of its recipe by `calibration`, as the
audit does; nothing is fitted to them.
"""

import collections
import itertools
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import optimize, stats

from plots import canvas, claims, curves, panels, setting, tables
from poison_jax import calibration, wording
from poison_jax.errors import UserError
from poison_jax.runs.records import Record

FIRST_REFERENCE = 1000  # the smallest seed of a reference
ALPHA = 0.05
LEVELS = (0.1, 0.25, 0.5, 0.75)  # which a clean network's p-value should not exceed this often
# name -> the statistics whose largest deviation is the score, and which of them are two-sided
NORM, LOCAL, TOP = "audit_norm_ratio", "audit_localisation_ratio", "audit_top_eigenvalue"
FLIPS = "audit_flip_rate"
DETECTORS = {
    "the audit": ((TOP, NORM, LOCAL), (True, False, False)),
    "input Hessian, λ₁": ((TOP,), (True,)),
    "common gradient, norm": ((NORM,), (False,)),
    "common gradient, localisation": ((LOCAL,), (False,)),
    "common gradient, flips": ((FLIPS,), (False,)),
}

PROBED = ("the audit", "input Hessian, λ₁", "common gradient, flips")
PAIRED = ("poison.fraction", "poison.target", "seed")


class Group(NamedTuple):
    """Networks that are alike but for their seeds, and what the detectors say of them."""

    attack: str  # "none" for held-out clean ones
    theta: float
    kappa: float
    records: list[Record]
    p_values: dict[str, np.ndarray]  # detector -> [n]
    scores: dict[str, np.ndarray]  # detector -> [n]
    matched: bool = True  # whether the references are of their own recipe
    failed: int = 0  # networks besides whose training failed


def groups(records: list[Record]) -> list[Group]:
    """The networks of a sweep against the references of their recipe, attack by attack.

    A recipe without references is judged by those of the same data and penalty, one with a penalty also by
    those without (`matched` is false): what an audit with the wrong references would say. Networks whose
    training failed are counted and left out.
    """
    found: dict[tuple, list[Record]] = {}
    references: dict[tuple, list[Record]] = {}
    failed: collections.Counter[tuple] = collections.Counter()
    for record in records:
        recipe, attack = _recipe(record), _attack(record)
        place = recipe, attack, record.setting("poison.fraction")
        if attack == "none" and FIRST_REFERENCE <= record.setting("seed") < 2000:
            group = references.setdefault(recipe, [])
        else:
            group = found.setdefault(place, [])
            failed[place] += not curves.trained(record)
        if curves.trained(record) and FLIPS in record.result:
            group.append(record)
    made = []
    for (recipe, attack, theta), networks in found.items():
        unpenalised = references.get(recipe._replace(kappa=0.0), [])
        if own := references.get(recipe, []):
            judges = [(own, True, attack)]
            if recipe.kappa and unpenalised:  # of a defender who does not know of the penalty
                judges.append((unpenalised, False, f"{attack}; κ = {recipe.kappa:g}"))
        else:  # those of the nearest recipe: the same data and penalty, the most networks
            others = [some for other, some in references.items() if other[:2] == recipe[:2]]
            said = f"{attack}; {recipe.epochs:g} epochs, weight decay {recipe.decay:g}"
            judges = [(max(others, key=len, default=[]), False, said)]
        for null, matched, said in judges:
            if networks and len(null) > 1:
                judged = {name: _judge(networks, null, *use) for name, use in DETECTORS.items()}
                p_values, scores = ({name: both[i] for name, both in judged.items()} for i in (0, 1))
                lost = failed[recipe, attack, theta]
                made.append(Group(said, theta, recipe.kappa, networks, p_values, scores, matched, lost))
    # Clean ones first, then attack by attack; what has the wrong references last.
    return sorted(
        made, key=lambda group: (not group.matched, group.theta > 0, group.attack, group.kappa, group.theta)
    )


def _judge(networks, references, names, two_sided):
    """p-value and score of each network, `[n]` and `[n]`."""
    null, p, scores = _statistics(references, names), [], []
    for values in _statistics(networks, names):
        away = calibration.deviations(np.vstack([values, null]), list(two_sided)).max(axis=1)
        p.append(calibration.p_value(away[0], away[1:]))
        scores.append(away[0])
    return np.array(p), np.array(scores)


def _statistics(records, names):
    # As the audit has them: logarithms, but of a share.
    values = np.array([[record.result[name] for name in names] for record in records])
    return np.where([name == FLIPS for name in names], values, np.log(np.maximum(values, 1e-300)))


class _Recipe(NamedTuple):
    data: str
    kappa: float
    epochs: int
    decay: float


def _recipe(record):
    keys = ("data.name", "penalty.kappa", "train.epochs", "train.weight_decay")
    return _Recipe(*(record.setting(key) for key in keys))


def _attack(record):
    trigger, labels = record.setting("poison.trigger"), record.setting("poison.labels")
    hide = record.setting("poison").get("hide", 0)  # a line of an earlier version does not say
    kind = (
        [trigger, labels if labels != "all_to_one" else ""] if record.setting("poison.fraction") else ["none"]
    )
    return ", ".join(filter(None, [*kind, f"hiding by {hide:g}" if hide else ""]))


def rate(hits: int, of: int) -> tuple[float, float, float]:
    """A rate and its exact 95 % interval (Clopper and Pearson)."""
    interval = stats.binomtest(hits, of).proportion_ci(0.95)
    return hits / of, float(interval.low), float(interval.high)


def roc_area(attacked: np.ndarray, clean: np.ndarray) -> tuple[float, float, float]:
    """Area under the ROC curve and its 95 % interval (Newcombe 2006, method 5), which holds at 1, too."""
    attacked, clean = np.asarray(attacked, float), np.asarray(clean, float)
    pairs = np.sign(attacked[:, None] - clean[None])
    area, m, n = float(np.mean(pairs + 1) / 2), len(attacked), len(clean)
    half = (m + n) / 2 - 1

    def error(a):
        variance = a * (1 - a) * (1 + half * ((1 - a) / (2 - a) + a / (1 + a))) / (m * n)
        return 1.959964 * np.sqrt(max(variance, 0.0))

    def bound(side, far):
        # Where the area lies just as far from the bound as the bound's own error.
        gap = lambda a: side * (area - a) - error(a)  # noqa: E731
        near = area - side * 1e-9  # the error vanishes at 0 and 1 themselves
        return float(optimize.brentq(gap, far, near)) if side * (near - far) > 0 else far

    return area, bound(1, 0.0), bound(-1, 1.0)


def page(records: list[Record], title: str) -> list[str]:
    """The audit's evidence as Markdown: rates, areas, what a penalty and the wrong references do."""
    found = groups(records)
    clean = {group.kappa: group for group in found if group.attack == "none"}
    scale = setting.common([setting.of_result(record.result) for record in records])
    own, wrong = ([group for group in found if group.matched is matched] for matched in (True, False))
    attacked = [group for group in own if group.theta and group.kappa in clean]
    kinds = dict.fromkeys(map(_kind, attacked))  # attacks in order, each once
    detectors = [
        [
            name,
            *(_area([group for group in attacked if _kind(group) == kind], clean, name) for kind in kinds),
            _area(attacked, clean, name),
        ]
        for name in DETECTORS
    ]
    header = ["attack", "κ", "θ", "networks", "ASR", *DETECTORS, "target named", "overlap² of g_t"]
    lines = [f"**{title}**", "", f"Measured here: {tables.markdown(scale)}.", ""]
    lines.append(tables.table(header, [_row(group) for group in own]))
    if attacked:
        lines += ["", tables.table(["area under the ROC curve", *kinds, "pooled"], detectors)]
    if probed := _probed(own):
        header = ["with the penalty, less without", "κ", "pairs", "ASR, points", "accuracy, points"]
        header += [f"poisoned-like by {name}" for name in PROBED]
        lines += ["", tables.table([*header, "overlap² of g_t"], probed)]
    if wrong:
        header = ["judged by references of another recipe", "θ", "networks", *DETECTORS]
        rows = [[group.attack, f"{group.theta:g}", _networks(group), *_flagged(group)] for group in wrong]
        lines += ["", tables.table(header, rows)]
    held_out = np.concatenate([[], *(group.p_values["the audit"] for group in clean.values())])
    shares = [f"{level:g} in {np.mean(held_out <= level):.0%}" for level in LEVELS] if len(held_out) else []
    note = (
        "Under each detector: the share of networks that it calls poisoned-like at 5 %, judged by clean "
        "references of their recipe alone; attack `none` are held-out clean networks, whose rate should be "
        "5 %. In brackets 95 % intervals: of a rate Clopper and Pearson's, of an area Newcombe's."
    )
    if any("hiding" in group.attack for group in own):
        note += (
            " Networks that hide train with a term that the references lack, those without poison (`none, "
            "hiding`), too."
        )
    if shares:
        note += f" Of {len(held_out)} held-out clean networks the audit's p is at most {', '.join(shares)}."
    if probed:
        note += (
            " With the penalty, less without: networks of the same seed, target and θ, each judged by "
            "references that are trained as it is; the overlap's interval is over seeds."
        )
    if wrong:
        note += (
            " In the last table the references have another number of epochs or another weight decay than "
            "the networks, or not their penalty."
        )
    return ["\n".join([*lines, "", note]) + "\n"]


def twilight(records: list[Record], title: str) -> list[Figure]:
    """Maps over theta, one an attack and penalty: the share that each detector calls poisoned-like.

    Its first column are held-out clean networks, its first row the attack's success above the rate without
    trigger.

    Raises:
        UserError: no attack is there at three values of theta beside clean networks.
    """
    own = [group for group in groups(records) if group.matched]
    clean = {group.kappa: group for group in own if group.attack == "none"}
    maps: dict[tuple[str, float], list[Group]] = {}
    for group in own:
        if group.theta and group.kappa in clean:
            maps.setdefault((group.attack, group.kappa), [clean[group.kappa]]).append(group)
    maps = {kind: found for kind, found in maps.items() if len(found) > 3}
    if not maps:
        raise UserError("no attack of this sweep is there at three poison fractions: choose another figure")
    attacks, kappas = dict.fromkeys(attack for attack, _ in maps), sorted({kappa for _, kappa in maps})
    shape = len(attacks), len(kappas)
    figure, axes = canvas.subplots(*shape, canvas.WIDTH, 0.6 + 2.1 * len(attacks))
    for axis, (attack, kappa) in zip(axes.flat, itertools.product(attacks, kappas), strict=True):
        if not (found := maps.get((attack, kappa))):
            panels.hide([axis])
            continue
        gains = [[wording.excess(record.result) or 0.0 for record in group.records] for group in found[1:]]
        shares = [[0.0, *map(np.mean, gains)]]  # nobody attacks the clean ones
        shares += [[np.mean(_is_flagged(group, name)) for group in found] for name in DETECTORS]
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=6)
        axis.axhline(0.5, color="w", lw=3)
        axis.grid(False)
        leftmost = kappa == min(other for some, other in maps if some == attack)
        names = ["the attack works", *DETECTORS]
        axis.set_yticks(range(len(names)), names if leftmost else [""] * len(names))
        thetas = [f"{group.theta:g}" if group.theta else "clean" for group in found]
        axis.set_xticks(range(len(found)), thetas, rotation=60)
        axis.set_xlabel("poison fraction θ")
        panels.label(axis, f"{attack}, κ = {kappa:g}")
    scale = setting.common([setting.of_result(record.result) for record in records])
    counts = [len(group.records) for found in maps.values() for group in found[1:]]
    networks = "–".join(map(str, sorted({min(counts), max(counts)})))
    rows = (
        "First row: ASR above the rate without trigger, in points; the others: share (%) of networks that a "
        f"detector calls poisoned-like at 5 %, by clean references of the recipe. {networks} networks a cell,"
        f" {' or '.join(dict.fromkeys(str(len(group.records)) for group in clean.values()))} clean ones"
    )
    canvas.describe(figure, title, scale, rows)
    return [figure]


def _is_flagged(group: Group, name: str) -> np.ndarray:
    return group.p_values[name] <= ALPHA + 1e-12


def _flagged(group: Group) -> list[str]:
    """The share that each detector calls poisoned-like, the audit's with its interval."""
    hits, of = [int(np.sum(_is_flagged(group, name))) for name in DETECTORS], len(group.records)
    share, low, high = rate(hits[0], of)
    return [f"{share:.0%} [{low:.0%}, {high:.0%}]", *(f"{some / of:.0%}" for some in hits[1:])]


def _probed(own: list[Group]) -> list[list[str]]:
    """What a penalty changes: attacked networks with it against those of the same seed and target without."""
    place = lambda record: tuple(record.setting(key) for key in PAIRED)  # noqa: E731
    plain = {
        (group.attack, *place(record)): (group, i)
        for group in own
        if group.theta and not group.kappa
        for i, record in enumerate(group.records)
    }
    pairs: dict[tuple[str, float], list[tuple[tuple[Group, int], tuple[Group, int]]]] = {}
    for group in own:
        for i, record in enumerate(group.records):
            if group.kappa and (without := plain.get((group.attack, *place(record)))):
                pairs.setdefault((group.attack, group.kappa), []).append((without, (group, i)))

    rows = []
    for (attack, kappa), found in pairs.items():
        change, seeds = {}, {}  # measure -> of each pair; seed -> change of the overlap
        for name in ("asr", "clean_accuracy", "audit_overlap_squared"):
            sides = np.array([[group.records[i].result[name] for group, i in pair] for pair in found])
            change[name] = sides[:, 1] - sides[:, 0]
        for ((group, i), _), value in zip(found, change["audit_overlap_squared"], strict=True):
            seeds.setdefault(group.records[i].setting("seed"), []).append(value)
        effect = claims.judge([float(np.mean(values)) for values in seeds.values()])
        hits = [
            [sum(bool(_is_flagged(group, name)[i]) for group, i in side) for side in zip(*found, strict=True)]
            for name in PROBED
        ]
        points = [setting.points(np.mean(change[name])) for name in ("asr", "clean_accuracy")]
        interval = ", ".join(map(setting.signed, effect.interval))
        rows.append(
            [attack, f"{kappa:g}", str(len(found)), *points]
            + [f"{before} → {after}" for before, after in hits]
            + [f"{setting.signed(effect.low)} [{interval}], {effect.seeds} seeds"]
        )
    return rows


def _row(group: Group) -> list[str]:
    asr = named = overlap = tables.DASH
    if group.theta:
        asr = tables.percent(group.records, "asr", ".0f") + " %"
        hits = [r.result["audit_target"] == r.setting("poison.target") for r in group.records]
        named = f"{np.mean(hits):.0%}"
        overlap = tables.spread([r.result["audit_overlap_squared"] for r in group.records])
    about = [group.attack, f"{group.kappa:g}", f"{group.theta:g}", _networks(group)]
    return [*about, asr, *_flagged(group), named, overlap]


def _networks(group: Group) -> str:
    return tables.networks(len(group.records), group.failed)


def _kind(group: Group) -> str:
    """The attack, and the penalty that it trains with."""
    return f"{group.attack}, κ = {group.kappa:g}" if group.kappa else group.attack


def _area(attacked: list[Group], clean: dict[float, Group], name: str) -> str:
    """The area of groups against the held-out clean networks of their recipes, by their scores."""
    kappas = {group.kappa for group in attacked}
    if not attacked:
        return tables.DASH
    of_attacked = np.concatenate([group.scores[name] for group in attacked])
    of_clean = np.concatenate([clean[kappa].scores[name] for kappa in kappas])
    area, low, high = roc_area(of_attacked, of_clean)
    return f"{area:.2f} [{low:.2f}, {high:.2f}]"
