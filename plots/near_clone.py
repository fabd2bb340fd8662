"""The kernel theory beside a trained network: `python plots/near_clone.py runs/<run> ...`.

A picture for each run; of several runs also one of all of them, in the first one's directory.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator
from scipy import stats

from plots import command, foreign
from poison_jax.runs.store import Run

NEAR = 0.1  # r / l; the tests compare it to the code


def draw(run: Run) -> list[Path]:
    """r / l, measured against predicted spike, spike against efficacy -> `near_clone.png` in the run."""
    result, a = run.result(), run.arrays("near_clone")
    figure, axes = plt.subplots(1, 3, figsize=(17, 5.6), layout="constrained")
    figure.suptitle(_title(result, a), fontsize=12)
    _distances(axes[0], a)
    _law(axes[1], a)
    _efficacy(axes[2], a)
    return [_save(figure, axes, run)]


def draw_all(runs: list[Run]) -> list[Path]:
    """Medians of every run, spike against efficacy, their slope -> `near_clone_runs.png` in the first."""
    configs, arrays = [run.result()["config"] for run in runs], [run.arrays("near_clone") for run in runs]
    thetas = np.array([config["poison"]["fraction"] for config in configs])
    x, y, clean, law = (
        np.array([np.median(a[key]) for a in arrays]) for key in ("efficacy", "spike", "clean_spike", "law")
    )
    figure, axis = plt.subplots(figsize=(8.5, 6.5), layout="constrained")
    settings = list(dict.fromkeys(_network(config) for config in configs))
    title = [f"{len(runs)} networks, medians over each one's triggered test images", *settings[:3]]
    figure.suptitle("\n".join(title + ["and others"] * (len(settings) > 3)), fontsize=11)
    shown = (x > 0) & (y > 0)
    norm = LogNorm(*_around(thetas))
    label = "measured, |∇f(x₀)|²"
    points = axis.scatter(x[shown], y[shown], c=thetas[shown], norm=norm, s=50, zorder=3, label=label)
    figure.colorbar(points, label="poison fraction θ")
    _line(axis, x, y, "networks")
    axis.plot(x[shown], clean[shown], "+", color="tab:blue", label="the same without the trigger, |∇f(x)|²")
    axis.plot(
        x[shown], law[shown], "_", color="0.3", ms=10, label="law, $R_k\\,(Δf)^2$ with the nearest poison"
    )
    if not shown.all():
        axis.plot([], [], " ", label=f"{(~shown).sum()} not shown: median efficacy or spike not positive")
    _logarithmic(axis, shown)
    axis.set(xlabel="median efficacy Δf", ylabel="median curvature")
    return [_save(figure, [axis], runs[0], "near_clone_runs.png")]


def _save(figure, axes, run, name="near_clone.png"):
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.title.set_fontsize(10)
        axis.legend(fontsize=8, framealpha=0.9)
        for line in (axis.xaxis, axis.yaxis):
            _ticks(line)
    (written,) = command.write(figure, run.path / name, dpi=100)
    return written


def _ticks(line):
    """Plain numbers at 1, 2, 5, 10 on a short logarithmic axis, where powers of ten are too few."""
    low, high = line.get_view_interval()
    if line.get_scale() == "log" and high < 300 * low:
        line.set_major_locator(LogLocator(subs=(1, 2, 5)))
        line.set_major_formatter("{x:g}")
        line.set_minor_formatter("")


def _network(c):
    p, penalty = c["poison"], f"κ = {c['penalty']['kappa']:g}"
    if c["penalty"].get("epsilon"):
        penalty = f"ε = {c['penalty']['epsilon']:g}"
    return (
        f"{foreign.literal(c['data']['name'])}, PreResNet-{c['model']['depth']}, "
        f"{p['mode']} poison, {p['trigger']} trigger, "
        f"target class {p['target']}, {penalty}, {c['train']['epochs']} epochs"
    )


def _title(result, a):
    c = result["config"]
    return (
        f"{_network(c)}, θ = {c['poison']['fraction']:g}, seed {c['seed']}: attack success rate "
        f"{_percent(result['asr'])}\n{len(a['distance'])} triggered test images x₀, ζ the poison nearest in "
        f"feature space; Gaussian kernel on the features, ℓ = {a['lengthscale']:.3g} (median distance)"
    )


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
        title="(b) the law, Λ = $R_k\\,(Δf)^2$",
        xlabel="predicted spike $R_k\\,(Δf)^2$ (eq. 16)",
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
        title="(c) spike against efficacy: slope 2 by the theory, at one $R_k$",
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
    line = stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf(0.975, len(x) - 2) * line.stderr
    ends = np.array([x.min(), x.max()])
    interval = f"95 % interval {line.slope - half:.2f} to {line.slope + half:.2f}"
    label = f"slope {line.slope:.2f}, {interval}, {len(x)} {what}"
    axis.plot(ends, np.exp(line.intercept) * ends**line.slope, "k--", lw=1.5, label=label)


def _around(values):
    """A range that holds positive numbers, with a little room."""
    return values.min() / 1.3, values.max() * 1.3


def _percent(value):
    return "-" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    command.of_each_run(draw, __doc__, draw_all)
