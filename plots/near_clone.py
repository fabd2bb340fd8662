"""The kernel theory beside a trained network: distances, the law of the spike, spike against efficacy."""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy import special

from plots import canvas, setting
from poison_jax.runs.store import Run

NEAR = 0.1  # r / l; the tests compare it to the code


def of_run(run: Run) -> dict[str, Figure]:
    """r / l, measured against predicted spike, spike against efficacy."""
    result, a = run.result(), run.arrays("near_clone")
    figure, (axes,) = canvas.subplots(1, 3, 17, 5.6)
    about = f"{len(a['distance'])} triggered test images x₀, ζ the poison nearest in feature space; "
    about += f"Gaussian kernel on the features, ℓ = {a['lengthscale']:.3g} (median distance)"
    figure.suptitle(f"{setting.outcome(result)}\n{_network(result['config'])}\n{about}", fontsize=11)
    _distances(axes[0], a)
    _law(axes[1], a)
    _efficacy(axes[2], a)
    _finish(axes)
    return {"near_clone": figure}


def of_runs(runs: list[Run]) -> Figure:
    """Medians of every run: spike against efficacy, and their slope."""
    results, arrays = [run.result() for run in runs], [run.arrays("near_clone") for run in runs]
    thetas = np.array([result["config"]["poison"]["fraction"] for result in results])
    x, y, clean, law = (
        np.array([np.median(a[key]) for a in arrays]) for key in ("efficacy", "spike", "clean_spike", "law")
    )
    figure, ((axis,),) = canvas.subplots(1, 1, 8.5, 6.5)
    scale = setting.common([setting.words(result["config"]) for result in results], 100)
    head = f"{len(runs)} networks, medians over each one's triggered test images"
    figure.suptitle(f"{head}\n{setting.outcomes(results)}\n{scale}", fontsize=11)
    shown = (x > 0) & (y > 0)
    norm = LogNorm(*_around(thetas[thetas > 0])) if (thetas > 0).any() else None
    label = "measured, |∇f(x₀)|²"
    points = axis.scatter(x[shown], y[shown], c=thetas[shown], norm=norm, s=50, zorder=3, label=label)
    figure.colorbar(points, label="poison fraction θ")
    _line(axis, x, y, "networks")
    axis.plot(x[shown], clean[shown], "+", color="tab:blue", label="the same without the trigger, |∇f(x)|²")
    axis.plot(x[shown], law[shown], "_", color="0.3", ms=10, label="law, Rₖ (Δf)² with the nearest poison")
    if not shown.all():
        axis.plot([], [], " ", label=f"{(~shown).sum()} not shown: median efficacy or spike not positive")
    _logarithmic(axis, shown)
    axis.set(xlabel="median efficacy Δf", ylabel="median curvature")
    _finish([axis])
    return figure


def _finish(axes):
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.title.set_fontsize(10)
        axis.legend(fontsize=8, framealpha=0.9)


def _network(c):
    return f"{setting.common([setting.words(c)])}, target class {c['poison']['target']}"


def _distances(axis, a):
    """Histograms of r / l on a logarithmic axis, in the space of features; medians in that of pixels."""
    kinds = (
        ("distance", "triggered image to the nearest poison", "tab:red"),
        ("distance_mean", "triggered image to the poisons' centre", "tab:orange"),
        ("clean_distance", "clean image to the nearest clean training image", "tab:blue"),
    )
    ratios = {key: a[key] / a["lengthscale"] for key, *_ in kinds}
    everything = np.concatenate([*ratios.values(), [NEAR / 2, 1.0]])
    bins = np.geomspace(*_around(everything[everything > 0]), 41)
    for key, label, colour in kinds:
        ratio = np.maximum(ratios[key], bins[0])  # a distance of zero has its place at the left
        median = np.median(ratios[key])
        style = {"color": colour, "histtype": "stepfilled", "alpha": 0.45}
        axis.hist(ratio, bins, label=f"{label}: median {median:.2g}", **style)
        pixels = np.median(a[f"input_{key}"]) / a["input_lengthscale"]
        axis.axvline(pixels, color=colour, ls="--", lw=1.2)
    axis.plot([], [], "k--", lw=1.2, label="medians of the same in pixels")
    axis.axvspan(bins[0], NEAR, color="0.9", zorder=0, label=f"near clone, r < {NEAR:g} ℓ")
    axis.set_ylim(0, 1.45 * axis.get_ylim()[1])  # room for the legend
    axis.set(xscale="log", xlim=(bins[0], bins[-1]), xlabel="distance r / ℓ", ylabel="images")
    axis.set_title("(a) how near: distances in the space of features")


def _law(axis, a):
    y, usable = a["spike"], (a["law"] > 0) & (a["spike"] > 0)
    zetas = (("", "ζ the nearest poison", "tab:red"), ("_mean", "ζ the poisons' centre", "tab:orange"))
    for suffix, zeta, colour in zetas:
        ratio, rank = a["ratio" + suffix], a["rank_correlation" + suffix]
        label = f"{zeta}: measured / predicted {ratio:.3g} (median),\nrank correlation {rank:.2f}"
        axis.scatter(a["law" + suffix][usable], y[usable], s=14, color=colour, alpha=0.6, label=label)
    if usable.any():
        ends = _around(np.concatenate([a["law"][usable], y[usable]]))
        axis.plot(ends, ends, "k", lw=1, label="the law: measured = predicted")
    _line(axis, a["law"], y, "points, ζ the nearest poison")
    _logarithmic(axis, usable)
    axis.set(
        title="(b) the law, Λ = Rₖ (Δf)²",
        xlabel="predicted spike Rₖ (Δf)² (eq. 16)",
        ylabel="measured spike |∇f(x₀)|² (eq. 14)",
    )


def _efficacy(axis, a):
    x, y = a["efficacy"], a["spike"]
    shown = (x > 0) & (y > 0)
    axis.scatter(x[shown], y[shown], s=14, color="tab:red", alpha=0.7, label="score's spike |∇f(x₀)|²")
    positive = shown & (a["softmax_spike"] > 0)
    label = "Gauss–Newton matrix of the cross-entropy, top eigenvalue"
    axis.scatter(x[positive], a["softmax_spike"][positive], s=14, color="tab:purple", alpha=0.5, label=label)
    background = np.median(a["clean_spike"])
    if background > 0:
        label = "|∇f(x)|² without the trigger, median"
        axis.axhline(background, color="tab:blue", ls="--", lw=1.2, label=label)
    _line(axis, x, y, "points")
    if not shown.all():
        axis.plot([], [], " ", label=f"{(~shown).sum()} not shown: efficacy or spike not positive")
    _logarithmic(axis, shown)
    axis.set(
        title="(c) spike against efficacy: slope 2 by the theory, at one Rₖ",
        xlabel="efficacy Δf = f(x₀) − f(x), f the target's log-odds",
        ylabel="curvature at x₀",
    )


def _logarithmic(axis, shown):
    axis.set(xscale="log", yscale="log")
    if not shown.any():  # there is no range to find
        axis.set(xlim=(0.1, 10), ylim=(0.1, 10))


def _line(axis, x, y, what):
    """The least-squares line in logarithms, its slope and 95 % interval (`near_clone.log_slope`)."""
    usable = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    x, y = x[usable], y[usable]
    if len(x) < 3 or np.ptp(np.log(x)) == 0:
        return
    x, y = np.log(x), np.log(y)
    slope, intercept = np.polyfit(x, y, 1)
    error = np.sqrt(((y - slope * x - intercept) ** 2).sum() / (len(x) - 2) / ((x - x.mean()) ** 2).sum())
    half = special.stdtrit(len(x) - 2, 0.975) * error
    ends = np.array([x.min(), x.max()])
    interval = f"95 % interval {slope - half:.2f} to {slope + half:.2f}"
    label = f"slope {slope:.2f}, {interval}, {len(x)} {what}"
    axis.plot(np.exp(ends), np.exp(intercept + slope * ends), "k--", lw=1.5, label=label)


def _around(values):
    """A range that holds positive numbers, with a little room."""
    return values.min() / 1.3, values.max() * 1.3
