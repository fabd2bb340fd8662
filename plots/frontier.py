"""Clean accuracy against attack success as a defence grows stronger.

Penalised runs (kappa) beside adversarially trained ones (epsilon); runs with neither belong to both.
Figure 11 is this of warp-poisoned runs; Remark 3.14 compares the two.
"""

from collections import defaultdict

import numpy as np
from matplotlib.figure import Figure

from plots import canvas, panels, setting
from poison_jax.errors import UserError
from poison_jax.runs.store import Run

DEFENCES = {"kappa": "gradient penalty κ", "epsilon": "adversarial ε"}
_RECIPE = "data", "model", "poison", "penalty", "train"
_SHOWN = {"poison.fraction", "penalty.kappa", "penalty.epsilon", "data.dir"}
MEASURES = {  # key -> name, look
    "accuracy": ("clean accuracy", {"color": panels.BLUE, "marker": "s"}),
    "asr": ("attack success", {"color": panels.RED, "marker": "o"}),
    "untriggered": ("target rate without trigger", {"color": panels.GREY, "marker": "_"}),
}


def of_runs(runs: list[Run]) -> Figure:
    """Accuracy and ASR against the strength of each defence, and against each other.

    Points are means over the seeds, bars go from the smallest to the largest. Networks whose training failed
    are left out.

    Raises:
        UserError: the training of all runs failed; one attacks no image; they differ in more than theta, the
            defence's strength and the seed.
    """
    given = [(run, run.result()) for run in runs]
    results = [result for _, result in given if result.get("status", "ok") == "ok"]
    if not results:
        raise UserError("the training of every run failed: there is nothing to compare")
    for run, result in given:
        if result in results and result["asr"] is None:
            raise UserError(f"{run.path} attacks no image, so it has no ASR: leave it out")
    _check_alike(results)
    rows = list(map(_row, results))
    used = [name for name in DEFENCES if any(row[name] for row in rows)] or ["kappa"]
    several = len({row["theta"] for row in rows}) > 1
    lines = {(name, theta): line for name in used for theta, line in _lines(rows, name).items()}
    figure = canvas.blank(canvas.WIDTH, 6.6)
    axes = figure.subplot_mosaic([used, ["frontier"] * len(used)])
    for name in used:
        strengths = sorted({row[name] for row in rows})
        axes[name].set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
        axes[name].set(xlabel=DEFENCES[name], ylim=(-2, 102), ylabel="test images (%)")
    for (name, theta), line in lines.items():
        strengths = sorted({row[name] for row in rows})
        places = [strengths.index(strength) for strength in line["strength"]]
        style = ("-", "--", ":", "-.")[[t for n, t in lines if n == name].index(theta) % 4]
        for key, (measure, look) in MEASURES.items():
            mean, bars = line[key]
            label = measure + f", θ = {theta:g}" * several
            panels.points(axes[name], places, mean, bars, label=label, linestyle=style, **look)
    for (name, theta), look in zip(lines, panels.looks(len(lines)), strict=True):
        (x, across), (y, up) = (lines[name, theta][key] for key in ("asr", "accuracy"))
        label = DEFENCES[name] + f", θ = {theta:g}" * several
        panels.points(axes["frontier"], x, y, up, across, label=label, **look)
        beside = (5, 5) if name == "epsilon" else (5, -13)
        for place, strength in zip(zip(x, y, strict=True), lines[name, theta]["strength"], strict=True):
            axes["frontier"].annotate(f"{strength:g}", place, beside, textcoords="offset points", fontsize=9)
    axes["frontier"].set(xlabel="attack success rate (%)", ylabel="clean accuracy (%)")
    axes["frontier"].legend()
    handles, labels = axes[used[0]].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    scale = setting.common([setting.words(result["config"]) for result in results])
    shown = "Above: against the strength of each defence; below: the frontier, up and left is better"
    bars = "Points: means over the seeds; bars: smallest to largest"
    failed = f"{len(given) - len(results)} failed trainings are left out" * (len(results) < len(given))
    canvas.describe(figure, shown, setting.outcomes(results), scale, bars, failed)
    return figure


def _check_alike(results):
    """Refuses what is no comparison: networks that differ in more than the figure shows."""
    first, *others = (_recipe(result["config"]) for result in results)
    differing = {key for other in others for key in first.keys() & other.keys() if first[key] != other[key]}
    if differing:
        raise UserError(
            f"the runs differ in {', '.join(sorted(differing))}: name runs that differ in theta, the "
            "strength of the defence and the seed alone"
        )


def _recipe(c):
    """What the figure does not show of a config, by key; of the defence only what one that is there reads."""
    keys = {f"{group}.{key}": value for group in _RECIPE for key, value in c[group].items()}
    unread = {"penalty.reduction", "penalty.batch_norm"} if not c["penalty"]["kappa"] else set()
    if not c["penalty"].get("epsilon"):
        unread.add("penalty.steps")
    return {key: value for key, value in keys.items() if key not in unread | _SHOWN}


def _row(result):
    c = result["config"]
    return {
        "theta": c["poison"]["fraction"],
        "kappa": c["penalty"]["kappa"],
        "epsilon": c["penalty"].get("epsilon", 0.0),
        "accuracy": 100 * result["clean_accuracy"],
        "asr": 100 * result["asr"],
        "untriggered": 100 * result["no_trigger_target_rate"],
    }


def _lines(rows, name):
    """theta -> each measure by rising strength of a defence, its mean and bars; the other one is off."""
    cells = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if not any(row[other] for other in DEFENCES if other != name):
            cells[row["theta"]][row[name]].append(row)
    lines = {}
    for theta, strengths in sorted(cells.items()):
        line = lines[theta] = {"strength": sorted(strengths)}
        for key in MEASURES:
            found = [[row[key] for row in strengths[strength]] for strength in line["strength"]]
            mean, low, high = (np.array([of(some) for some in found]) for of in (np.mean, np.min, np.max))
            line[key] = mean, np.maximum([mean - low, high - mean], 0)
    return lines
