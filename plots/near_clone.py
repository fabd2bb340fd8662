"""The kernel theory beside a trained network: distances, the law of the spike, spike against efficacy."""

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from plots import canvas, panels, setting
from plots.canvas import WIDTH
from poison_jax.runs.store import Run

NEAR = 0.1  # r / l; the tests compare it to the code


def of_run(run: Run) -> dict[str, Figure]:
    """r / l, measured against predicted spike, spike against efficacy."""
    result, a = run.result(), run.arrays("near_clone")
    figure = canvas.blank(WIDTH, 12)
    about = f"{len(a['distance'])} triggered test images x₀, ζ the poison nearest in feature space; "
    about += f"Gaussian kernel on the features, ℓ = {a['lengthscale']:.3g} (median distance)"
    shown = "(a) how near: distances in the space of features; (b) the law Λ = Rₖ (Δf)², eqs. 14 and 16; "
    shown += "(c) spike against efficacy, slope 2 by the theory at one Rₖ"
    network = (
        f"{setting.common([setting.words(result['config'])])}, target {result['config']['poison']['target']}"
    )
    canvas.describe(figure, shown, setting.outcome(result), network, about)
    for part, draw in zip(figure.subfigures(3, 1), (_distances, _law, _efficacy), strict=True):
        draw(axis := part.subplots(), a)
        panels.legend(part, [axis], fontsize=9, ncols=1)
    return {"near_clone": figure}


def of_runs(runs: list[Run]) -> Figure:
    """Medians of every run: spike against efficacy, and their slope; a colour for each value that varies."""
    runs = sorted(runs, key=lambda run: setting.strength(run.result()))
    results, arrays = [run.result() for run in runs], [run.arrays("near_clone") for run in runs]
    x, y, clean, law = (
        np.array([np.median(a[key]) for a in arrays]) for key in ("efficacy", "spike", "clean_spike", "law")
    )
    figure, ((axis,),) = canvas.subplots(1, 1, WIDTH, 6.2)
    shown = (x > 0) & (y > 0)
    names = np.array(_varying(results))
    axis.plot(x[shown], clean[shown], "+", color=panels.GREY, ms=8, label="the same without the trigger")
    axis.plot(x[shown], law[shown], "_", color=panels.GREY, ms=12, label="the law, Rₖ (Δf)², nearest poison")
    found = list(dict.fromkeys(names))
    for name, look in zip(found, panels.looks(len(found)), strict=True):
        own = shown & (names == name)
        axis.plot(x[own], y[own], label=f"|∇f(x₀)|², {name}", **look | {"linestyle": "", "ms": 8})
    _line(axis, x, y, "networks")
    if not shown.all():
        axis.plot([], [], " ", label=f"{(~shown).sum()} not shown: median efficacy or spike not positive")
    _logarithmic(axis, shown)
    axis.set(xlabel="median efficacy Δf", ylabel="median curvature")
    panels.legend(figure, [axis], fontsize=9, ncols=1)
    scale = setting.common([setting.words(result["config"]) for result in results])
    head = f"{len(runs)} networks, medians over each one's triggered test images"
    canvas.describe(figure, head, setting.outcomes(results), scale)
    return figure


def _varying(results):
    """The values of the first setting in which the networks differ, the seed last."""
    settings = [setting.words(result["config"]) for result in results]
    key = min(setting.differing(settings), key=lambda key: key == "seed", default="theta")
    return [said[key].partition(" (")[0] or "none" for said in settings]


def _distances(axis, a):
    """Histograms of r / l on a logarithmic axis, in the space of features; medians in that of pixels."""
    kinds = (
        ("distance", "triggered image to the nearest poison", panels.RED),
        ("distance_mean", "triggered image to the poisons' centre", panels.ORANGE),
        ("clean_distance", "clean image to the nearest clean training image", panels.BLUE),
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
    axis.set(xscale="log", xlim=(bins[0], bins[-1]), xlabel="(a) distance r / ℓ", ylabel="images")


def _law(axis, a):
    y, usable = a["spike"], (a["law"] > 0) & (a["spike"] > 0)
    zetas = (
        ("", "ζ the nearest poison", {"color": panels.RED, "marker": "o"}),
        ("_mean", "ζ the poisons' centre", {"color": panels.SKY, "marker": "^"}),
    )
    for suffix, zeta, look in zetas:
        ratio, rank = a["ratio" + suffix], a["rank_correlation" + suffix]
        label = f"{zeta}: measured / predicted {ratio:.3g} (median), rank correlation {rank:.2f}"
        axis.scatter(a["law" + suffix][usable], y[usable], s=16, **look, alpha=0.7, label=label)
    if usable.any():
        ends = _around(np.concatenate([a["law"][usable], y[usable]]))
        axis.plot(ends, ends, "k", lw=1, label="the law: measured = predicted")
    _line(axis, a["law"], y, "points, ζ the nearest poison")
    _logarithmic(axis, usable)
    axis.set(
        xlabel="(b) predicted spike Rₖ (Δf)² (eq. 16)",
        ylabel="measured spike |∇f(x₀)|² (eq. 14)",
    )


def _efficacy(axis, a):
    x, y = a["efficacy"], a["spike"]
    shown = (x > 0) & (y > 0)
    axis.scatter(x[shown], y[shown], s=14, color=panels.RED, alpha=0.7, label="score's spike |∇f(x₀)|²")
    positive = shown & (a["softmax_spike"] > 0)
    label = "Gauss–Newton matrix of the cross-entropy, top eigenvalue"
    axis.scatter(x[positive], a["softmax_spike"][positive], s=16, color=panels.BLUE, marker="^", label=label)
    background = np.median(a["clean_spike"])
    if background > 0:
        label = "|∇f(x)|² without the trigger, median"
        axis.axhline(background, color=panels.GREY, ls="--", lw=1.2, label=label)
    _line(axis, x, y, "points")
    if not shown.all():
        axis.plot([], [], " ", label=f"{(~shown).sum()} not shown: efficacy or spike not positive")
    _logarithmic(axis, shown)
    axis.set(
        xlabel="(c) efficacy Δf = f(x₀) − f(x), f the target's log-odds",
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
    slope, intercept, _, _, error = stats.linregress(x, y)
    half = stats.t.ppf(0.975, len(x) - 2) * error
    ends = np.array([x.min(), x.max()])
    interval = f"95 % interval {slope - half:.2f} to {slope + half:.2f}"
    label = f"slope {slope:.2f}, {interval}, {len(x)} {what}"
    axis.plot(np.exp(ends), np.exp(intercept + slope * ends), "k--", lw=1.5, label=label)


def _around(values):
    """A range that holds positive numbers, with a little room."""
    return values.min() / 1.3, values.max() * 1.3
