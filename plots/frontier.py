"""Clean accuracy against attack success as a defence grows stronger.

Penalised runs (kappa) beside adversarially trained ones (epsilon); runs with neither belong to both.
Figure 11 is this of warp-poisoned runs; Remark 3.14 compares the two.
"""

from collections import defaultdict

import numpy as np
from matplotlib.figure import Figure

from plots import canvas, setting
from poison_jax.errors import UserError
from poison_jax.runs.store import Run

DEFENCES = {"kappa": ("gradient penalty κ", "tab:blue", "o"), "epsilon": ("adversarial ε", "tab:orange", "s")}


def of_runs(runs: list[Run]) -> Figure:
    """Accuracy and ASR against the strength of either defence, and against each other."""
    results = [run.result() for run in runs]
    for run, result in zip(runs, results, strict=True):
        if result["asr"] is None:
            raise UserError(f"{run.path} attacks no image, so it has no ASR: leave it out")
    rows = list(map(_row, results))
    figure, (axes,) = canvas.subplots(1, 3, 14, 4.6)
    used = [name for name in DEFENCES if any(row[name] for row in rows)]
    for axis, name in zip(axes, DEFENCES, strict=False):
        _against_strength(axis, rows, name)
    strongest = max(row["theta"] for row in rows)
    for name in used:
        label, colour, marker = DEFENCES[name]
        for theta, points in _lines(rows, name).items():
            look = {"color": colour, "marker": marker, "alpha": 0.4 + 0.6 * theta / (strongest or 1)}
            axes[2].plot(points["asr"], points["accuracy"], label=f"{label}, θ = {theta:g}", **look)
            for x, y, strength in zip(points["asr"], points["accuracy"], points["strength"], strict=True):
                axes[2].annotate(f"{strength:g}", (x, y), (4, 4), textcoords="offset points", fontsize=8)
    axes[2].set(
        xlabel="attack success rate (%)", ylabel="clean accuracy (%)", title="frontier: up and left is better"
    )
    for axis in axes:
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    scale = setting.common([setting.words(result["config"]) for result in results], 150)
    figure.suptitle(f"{setting.outcomes(results)}\n{scale}", fontsize=11)
    return figure


def _row(result):
    c = result["config"]
    return {
        "theta": c["poison"]["fraction"],
        "kappa": c["penalty"]["kappa"],
        "epsilon": c["penalty"].get("epsilon", 0.0),
        "accuracy": 100 * result["clean_accuracy"],
        "asr": 100 * result["asr"],
    }


def _lines(rows, name):
    """theta -> mean accuracy and ASR over seeds, by rising strength of a defence; the other one is off."""
    cells = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if not any(row[other] for other in DEFENCES if other != name):
            cells[row["theta"]][row[name]].append((row["accuracy"], row["asr"]))
    lines = {}
    for theta, strengths in sorted(cells.items()):
        means = [np.mean(strengths[strength], axis=0) for strength in sorted(strengths)]
        accuracy, asr = np.transpose(means)
        lines[theta] = {"strength": sorted(strengths), "accuracy": accuracy, "asr": asr}
    return lines


def _against_strength(axis, rows, name):
    label, _, _ = DEFENCES[name]
    axis.set(title=f"against the {label}", xlabel=f"{label} (0 at the left)", ylim=(-2, 102), ylabel="%")
    if not any(row[name] for row in rows):
        axis.text(0.5, 0.5, "no such run", ha="center", transform=axis.transAxes)
        return
    strengths = sorted({row[name] for row in rows})
    axis.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
    for (theta, points), style in zip(_lines(rows, name).items(), ("-", "--", ":", "-.") * 9, strict=False):
        places = [strengths.index(strength) for strength in points["strength"]]
        options = {"linestyle": style, "marker": "o", "markersize": 4}
        axis.plot(
            places, points["accuracy"], color="tab:green", label=f"clean accuracy, θ = {theta:g}", **options
        )
        axis.plot(places, points["asr"], color="tab:red", label=f"attack success, θ = {theta:g}", **options)
