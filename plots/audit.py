"""Power, false alarms and ROC areas of the audit's detectors, from the stored networks of a sweep.

Three kinds of networks make up the sweep: clean references (seeds 1000 to 1999), held-out clean ones and
attacked ones. Each of the latter two is compared with all references of its recipe by `calibration`, as the
audit does; nothing is fitted to them.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from plots import curves, setting, tables
from poison_jax import calibration
from poison_jax.runs.records import Record

FIRST_REFERENCE = 1000  # the smallest seed of a reference
ALPHA = 0.05
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


class Group(NamedTuple):
    """Networks that are alike but for their seeds, and what the detectors say of them."""

    attack: str  # "none" for held-out clean ones
    theta: float
    kappa: float
    records: list[Record]
    p_values: dict[str, np.ndarray]  # detector -> [n]
    scores: dict[str, np.ndarray]  # detector -> [n]
    matched: bool = True  # whether the references are of their own recipe


def groups(records: list[Record]) -> list[Group]:
    """The networks of a sweep against the references of their recipe, attack by attack.

    A recipe without references is judged by those of the same data and penalty (`matched` is false): what an
    audit with the wrong references would say. Networks whose training failed are left out.
    """
    records = [record for record in records if curves.trained(record) and FLIPS in record.result]
    found: dict[tuple, list[Record]] = {}
    references: dict[tuple, list[Record]] = {}
    for record in records:
        theta, recipe = record.setting("poison.fraction"), _recipe(record)
        if theta == 0 and record.setting("seed") >= FIRST_REFERENCE and record.setting("seed") < 2000:
            references.setdefault(recipe, []).append(record)
        else:
            attack = _attack(record) if theta else "none"
            found.setdefault((recipe, attack, theta), []).append(record)
    made = []
    for (recipe, attack, theta), networks in found.items():
        null, matched = references.get(recipe, []), True
        if len(null) < 2:  # those of the nearest recipe: the same data and penalty, the most networks
            others = [some for other, some in references.items() if other[:2] == recipe[:2]]
            null, matched = max(others, key=len, default=[]), False
            attack = f"{attack}; {recipe[2]:g} epochs, weight decay {recipe[3]:g}"
        if len(null) > 1:
            judged = {name: _judge(networks, null, *use) for name, use in DETECTORS.items()}
            p_values, scores = ({name: both[i] for name, both in judged.items()} for i in (0, 1))
            made.append(Group(attack, theta, recipe[1], networks, p_values, scores, matched))
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


def _recipe(record):
    keys = ("data.name", "penalty.kappa", "train.epochs", "train.weight_decay")
    return tuple(record.setting(key) for key in keys)


def _attack(record):
    trigger, labels = record.setting("poison.trigger"), record.setting("poison.labels")
    hide = record.setting("poison").get("hide", 0)  # a line of an earlier version does not say
    said = [trigger, labels if labels != "all_to_one" else "", f"hiding by {hide:g}" if hide else ""]
    return ", ".join(filter(None, said))


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
    """The audit's evidence as Markdown: a table of the verdict by attack, and one of all detectors."""
    found = groups(records)
    clean = {group.kappa: group for group in found if group.attack == "none"}
    scale = setting.common([setting.of_result(record.result) for record in records])
    own, wrong = ([group for group in found if group.matched is matched] for matched in (True, False))
    rows = [_verdict_row(group) for group in own]
    attacked = [group for group in own if group.attack != "none" and group.kappa in clean]
    detectors = []
    for name in DETECTORS:
        shares = {
            attack: _area([group for group in attacked if group.attack == attack], clean, name)
            for attack in dict.fromkeys(group.attack for group in attacked)
        }
        detectors.append([name, *shares.values(), _area(attacked, clean, name)])
    header = [
        "attack",
        "κ",
        "θ",
        "networks",
        "ASR",
        "poisoned-like at 5 %",
        "target named",
        "overlap² of g_t",
    ]
    areas = ["area under the ROC curve", *dict.fromkeys(group.attack for group in attacked), "pooled"]
    lines = [f"**{title}**", "", f"Measured here: {tables.markdown(scale)}.", "", tables.table(header, rows)]
    if detectors:
        lines += ["", tables.table(areas, detectors)]
    if wrong:
        header = ["judged by references of another recipe", "networks", *DETECTORS]
        found = [[group.attack, str(len(group.records)), *_flagged(group)] for group in wrong]
        lines += ["", tables.table(header, found)]
    note = (
        "In brackets 95 % intervals: of a rate Clopper and Pearson's, of an area Newcombe's. Every network "
        "is judged by clean references of its recipe alone; attack `none` are held-out clean networks, whose "
        "rate should be 5 %."
    )
    if wrong:
        note += (
            " In the last table the references have another number of epochs or another weight decay than "
            "the networks: the share that each detector calls poisoned-like at 5 % by the wrong references."
        )
    return ["\n".join([*lines, "", note]) + "\n"]


def _flagged(group: Group) -> list[str]:
    """The share that each detector calls poisoned-like."""
    shares = [rate(int(np.sum(p <= ALPHA + 1e-12)), len(p)) for p in group.p_values.values()]
    return [f"{share:.0%} [{low:.0%}, {high:.0%}]" for share, low, high in shares]


def _verdict_row(group: Group) -> list[str]:
    named = overlap = tables.DASH
    if group.theta:
        hits = [r.result["audit_target"] == r.setting("poison.target") for r in group.records]
        named = f"{np.mean(hits):.0%}"
        overlap = tables.spread([r.result["audit_overlap_squared"] for r in group.records])
    return [
        group.attack,
        f"{group.kappa:g}",
        f"{group.theta:g}",
        str(len(group.records)),
        tables.percent(group.records, "asr", ".0f") + " %" if group.theta else tables.DASH,
        _flagged(group)[0],
        named,
        overlap,
    ]


def _area(attacked: list[Group], clean: dict[float, Group], name: str) -> str:
    """The area of groups against the held-out clean networks of their recipes, by their scores."""
    kappas = {group.kappa for group in attacked}
    if not attacked:
        return tables.DASH
    of_attacked = np.concatenate([group.scores[name] for group in attacked])
    of_clean = np.concatenate([clean[kappa].scores[name] for kappa in kappas])
    area, low, high = roc_area(of_attacked, of_clean)
    return f"{area:.2f} [{low:.2f}, {high:.2f}]"
