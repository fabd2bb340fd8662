"""The figures of the theory's run: laws of a cloned poison, lost capacity, the filter, Fisher decay."""

import contextlib

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from plots import canvas, panels, theorems
from plots.panels import BLACK, BLUE, GREEN, GREY, ORANGE, RED
from poison_jax.runs.store import Run

# Settings of the synthetic problems, which their arrays do not hold; the tests compare them to the code.
CLONES = "30 random clean points in 6 dimensions, Gaussian kernel, ℓ = 1.5, c = 5"
CAPACITY = "Gaussian kernel, ℓ = 1, λ = 0.1"
FILTER = "32 points on a circle, stationary kernel of width 0.7, λ = 0.1, κ = 0.5"
FLOW = "24 clean and 8 poisoned points in 3 dimensions, Gaussian kernel, ℓ = 1.5"


def of_run(run: Run) -> dict[str, Figure]:
    """A figure for each curve; `images_`, `visibility_`, `defence_`, `penalty_bounds_` and each data set."""
    figures = theorems.of_run(run) | {
        "spike_law": _spike_law(run.arrays("spike_law")),
        "twilight_zone": _twilight_zone(run.arrays("twilight_zone")),
        "lost_capacity": _lost_capacity(run.arrays("lost_capacity")),
        "filter": _filter(run.arrays("filter_responses")),
        "fisher_decay": _fisher_decay(run.arrays("fisher_decay")),
    }
    for stored in sorted(run.path.glob("laws_*.npz")):
        name = stored.stem.removeprefix("laws_")
        laws, config = run.arrays(f"laws_{name}"), run.config()
        c, x0 = config["poison"], f"{laws['efficacy'].shape[-1]} trigger points x₀ (test images)"
        setting = f"{name}, class {c['target']} (+1) against the rest (−1), {c['trigger']} trigger, {x0}"
        setting += "; Gaussian kernel of length scale ℓ, in units of the median distance"
        approach = run.arrays(f"approach_{name}")
        figures |= {
            f"images_{name}": _images(setting, config["krr"], laws, approach),
            f"visibility_{name}": _visibility(setting, laws),
            f"defence_{name}": _defence(setting, run.arrays(f"defence_{name}")),
        }
    return figures


@contextlib.contextmanager
def _page(count, *said, columns=2, height=2.9):
    """Panels `[count]` to draw on, with one legend: in an empty place if there is one, else below."""
    rows = -(-count // columns)
    figure, axes = canvas.subplots(rows, columns, canvas.WIDTH, height * rows + 1)
    canvas.describe(figure, *said)
    yield axes.ravel()[:count]
    for axis in axes.flat:
        axis.title.set_fontsize(10)
    if count < axes.size:
        axes.flat[-1].axis("off")
        axes.flat[-1].legend(**panels.labels(axes.flat), fontsize=9, loc="center")
    else:
        panels.legend(figure, axes.flat, fontsize=9, ncols=2)


def _ratio(values, by):
    """Elementwise, 0 where `by` is."""
    values, by = np.broadcast_arrays(values, by)
    return np.divide(values, by, out=np.zeros(values.shape), where=by != 0)


def _spike_law(a):
    m, ratios = a["m"], a["ratios"]
    paper = "Rₖ (Δf)², Rₖ = r²/ℓ⁴ (eqs. 16, 20)", (ratios / a["lengthscale"]) ** 2
    posterior = "the same with R of the posterior kernel", a["near_factor"]
    places = (
        ("far", {"--": paper}, "clones far from the data"),
        ("near", {"--": paper, "-": posterior}, "clones 2 length scales from the data"),
    )
    title = f"Spike against efficacy for m = {m[0]} to {m[-1]} clones with label 1"
    with _page(2, title, CLONES, height=3.6) as axes:
        for axis, (prefix, laws, where) in zip(axes, places, strict=True):
            efficacy, spike = panels.positive(a[f"{prefix}_efficacy"]), panels.positive(a[f"{prefix}_spike"])
            for i, look in enumerate(panels.looks(len(ratios))):
                points = look | {"linestyle": ""}
                axis.plot(efficacy[i], spike[i], label=f"measured, r/ℓ = {ratios[i]:g}", **points)
                for style, (_, factor) in laws.items():
                    axis.plot(efficacy[i], factor[i] * efficacy[i] ** 2, style, color=look["color"], lw=1.2)
            for style, (label, _) in laws.items():
                axis.plot([], [], style, color=GREY, label=label)
            x, y = np.nanmax(efficacy) / 2, np.nanmin(spike) / 3
            axis.plot([x / 2, x, x, x / 2], [y, y, 4 * y, y], color=BLACK, lw=1)
            axis.text(1.05 * x, 1.4 * y, "slope 2", fontsize=9)
            axis.set(title=where, xlabel="efficacy Δf(x₀)", xscale="log", yscale="log")
        axes[0].set_ylabel("Gauss–Newton spike |∇Δf(x₀)|²")
    return axes[0].figure


def _twilight_zone(a):
    ratios, spike = a["ratios"], panels.positive(a["spike"])
    title = "A trigger point at distance r from 20 clones (label 1, far from the data)"
    shown = "Left: efficacy and Gauss–Newton term; right: that and the whole input Hessian, linear"
    with _page(2, title, shown, CLONES, height=3.6) as (left, right):
        left.plot(ratios, panels.positive(a["efficacy"]), "--", color=GREEN, label="efficacy Δf(x₀)")
        low = ratios < 0.3
        slope = spike[0] / 5 * (ratios[low] / ratios[0]) ** 2
        left.plot(ratios[low], slope, ":", color=BLACK, label="slope 2")
        left.set(ylabel="efficacy, curvature", yscale="log")
        for name, y, colour in (("target", "+1 (target)", BLUE), ("truth", "−1 (truth)", ORANGE)):
            smallest, largest = a[f"{name}_smallest"], a[f"{name}_largest"]
            right.fill_between(ratios, smallest, largest, color=colour, alpha=0.2)
            right.plot(ratios, largest, color=colour, label=f"Hessian's largest eigenvalue, y = {y}")
            right.plot(ratios, smallest, "--", color=colour, label=f"its smallest, y = {y}")
        right.axhline(0, color=BLACK, lw=0.6)
        right.set_ylabel("eigenvalue")
        for axis in (left, right):
            axis.plot(ratios, spike, color=RED, lw=2, label="Gauss–Newton spike |∇f(x₀)|²")
            axis.axvspan(ratios[0], 0.1, color="0.9", zorder=0, label="near clone, r < 0.1 ℓ")
            axis.set(xscale="log", xlabel="distance to the clones, r/ℓ")
    return left.figure


def _lost_capacity(a):
    exact = "exact", "[K (K + λI) + κG] α = K y,\nthe minimiser", {"color": BLACK, "ls": "-"}
    paper = "paper", "(K + λI + κG) α = y,\neq. 26 as printed", {"color": RED, "ls": "--"}
    quantities = (
        ("df", "degrees of freedom", "40 random points in the plane"),
        ("residual", "residual |y − Kα|²", "the same, random targets"),
        ("counterexample", "residual |y − Kα|²", "3 points on a line"),
    )
    more = "Relative to κ = 0; the three points are 0, 0.5 and 2, with targets chosen for each form"
    with _page(3, "Fits with a gradient penalty", more, CAPACITY) as axes:
        for axis, (key, quantity, where) in zip(axes, quantities, strict=True):
            for form, label, look in (exact, paper):
                values = a[f"{form}_{key}"]
                axis.plot(a["kappas"], _ratio(values, values[0]), label=label, **look)
            axis.axhline(1, color=GREY, lw=0.6)
            axis.set(title=where, ylabel=quantity)
            panels.kappa_axis(axis, a["kappas"])
    return axes[0].figure


def _filter(a):
    curves = (
        ("unpenalised", "without penalty: k̂/(k̂ + λ)", GREY, "-"),
        ("exact", "exact (App. D): k̂/(k̂ + λ + κω²k̂)", BLACK, "-"),
        ("remark", "Remark 3.10 as printed: k̂/(k̂ + λ + κω²)", ORANGE, "--"),
        ("paper", "eq. 26 as printed: k̂/(k̂ + λ + κω²k̂²)", BLUE, "-."),
    )
    title = "What the penalised fit keeps of each frequency, a low-pass filter: linear and logarithmic"
    with _page(2, title, FILTER, height=3.4) as axes:
        for axis, scale in zip(axes, ("linear", "log"), strict=True):
            for key, label, colour, style in curves:
                axis.plot(a["fine"], panels.positive(a[key]), style, color=colour, label=label)
            axis.plot(a["omega"], panels.positive(a["measured"]), "o", color=BLACK, label="measured fits")
            axis.set(yscale=scale, xlabel="frequency ω")
        axes[0].set_ylabel("response s(ω)")
    return axes[0].figure


def _fisher_decay(a):
    quantities = (
        ("strong", "v'Fv, v the poison's direction"),
        ("weak", "v'Fv, v the weakest direction"),
        ("trace", "tr F, all directions"),
        ("objective", "J, which the flow follows"),
    )
    title = "The input Fisher matrix F under gradient flow on J (eq. 25), from the fit without penalty"
    more = (
        "Relative to t = 0; the poison's direction is the top eigenvector of F(0), the weakest its bottom one"
    )
    with _page(4, title, more, FLOW) as axes:
        for axis, (key, quantity) in zip(axes, quantities, strict=True):
            for i, look in enumerate(panels.looks(len(a["kappas"]))):
                line = look | {"marker": ""}
                label = f"κ = {a['kappas'][i]:g}"
                axis.plot(a["times"], _ratio(a[key][i], a[key][i, 0]), label=label, **line)
                if key == "strong":
                    bound = {"color": look["color"], "ls": (0, (1, 1)), "lw": 0.9}
                    axis.plot(a["times"], _ratio(a["bound"][i], a[key][i, 0]), **bound)
            axis.set(xlabel="time t of the flow", ylabel=quantity, ylim=(0, None))
        axes[0].plot([], [], color=GREY, ls=(0, (1, 1)), lw=0.9, label="eq. 32's bound")
    return axes[0].figure


def _images(setting, config, laws, approach):
    i = np.argmin(np.abs(laws["lengthscales"] - config["lengthscale"]))  # as in the approach, if it is there
    j = np.argmin(np.abs(laws["ridges"] - config["ridge"]))
    size = "{:,} clean points in {:,} dimensions".format(*laws["points"])
    where = f"Above: ℓ = {laws['lengthscales'][i]:g}, c = {laws['ridges'][j]:g}"
    length, c, m = approach["label"]
    walk = (
        f"below: on the way from {m:g} clones to {len(approach['ratios'])} trigger points, bold the median, "
    )
    walk += f"ℓ = {length:g}, c = {c:g}"
    with _page(4, f"Clones of one image, {size}", f"{where}; {walk}", setting, height=3.1) as axes:
        _law_scatter(axes[0], axes[1], laws, i, j)
        _approach(axes[2], axes[3], approach, laws["median_distance"])
    return axes[0].figure


def _law_scatter(left, right, laws, i, j):
    cell = {key: laws[key][i, j] for key in laws if laws[key].ndim == 4}
    efficacy, spike = cell["efficacy"], cell["spike"]
    m = np.broadcast_to(laws["clones"][:, None], efficacy.shape)
    by_m = {"c": m, "norm": LogNorm(m.min(), m.max()), "s": 14, "cmap": "viridis"}
    exact = {"s": 2, "color": RED, "label": "exact law (posterior kernel)"}
    left.axline((0, 0), slope=1, color=BLACK, lw=0.8, label="law = measurement")
    left.scatter(cell["paper_efficacy"], efficacy, **by_m, label="paper's law (eq. 11), by m")
    left.scatter(cell["exact_efficacy"], efficacy, **exact)
    left.set(xlabel="Δf(x₀) by law", ylabel="Δf(x₀) measured")
    size = panels.positive(np.abs(efficacy))
    dots = right.scatter(size, panels.positive(spike), **by_m, marker="s", label="measured by fits, by m")
    right.plot(size, panels.positive(spike), color="0.7", lw=0.4, zorder=0)  # a line for each x₀, of slope 2
    right.scatter(
        panels.positive(np.abs(cell["exact_efficacy"])), panels.positive(cell["exact_spike"]), **exact
    )
    x = np.sort(size, axis=None)
    for key, style, which in (("paper", "--", "Rₖ = r²/ℓ⁴"), ("exact", "-", "R, posterior kernel")):
        factor = np.median(_ratio(cell[f"{key}_spike"][-1], cell[f"{key}_efficacy"][-1] ** 2))
        right.plot(x, panels.positive(factor * x**2), style, color=BLACK, label=f"R (Δf)², median {which}")
    right.set(xscale="log", yscale="log", xlabel="efficacy |Δf(x₀)|", ylabel="spike |∇Δf(x₀)|²")
    right.figure.colorbar(dots, ax=right, label="number of clones m")


def _visibility(setting, laws):
    title = f"Which m clones work, which are seen (Remark 3.5): {laws['points'][0]:,} clean points"
    shown = "Left: share of the trigger points; right: spike / clean curvature |∇f(x₀)|², median; by c"
    ridges = laws["ridges"]
    with _page(2 * len(ridges), title, shown, setting, height=1.9) as axes:
        for j, (left, right) in enumerate(axes.reshape(-1, 2)):
            _against_m(left, right, laws, j)
            left.set_ylabel(f"c = {ridges[j]:g}")
        for axis in axes[-2:]:
            axis.set_xlabel("number of clones m")
    return axes[0].figure


def _against_m(left, right, laws, j):
    score = laws["clean_score"][:, j, None] + laws["efficacy"][:, j]  # [l, m, t]
    spike, law, clean = laws["spike"][:, j], laws["paper_spike"][:, j], laws["clean_curvature"][:, j, None]
    curves = (
        (left, "left: attack works, score > 0", "-", np.mean(score > 0, -1)),
        (left, "left: seen, spike > clean curvature", "--", np.mean(spike > clean, -1)),
        (right, "right: measured by fits", "-", panels.positive(np.median(_ratio(spike, clean), -1))),
        (right, "right: paper's law (eq. 15)", ":", panels.positive(np.median(_ratio(law, clean), -1))),
    )
    looks = panels.looks(len(laws["lengthscales"]))
    for length, look in zip(laws["lengthscales"], looks, strict=True):
        left.plot([], [], label=f"ℓ = {length:g}", **look | {"linestyle": ""})
    for axis, label, style, values in curves:
        for row, look in zip(values, looks, strict=True):
            axis.plot(laws["clones"], row, ms=4, **look | {"linestyle": style})
        axis.plot([], [], style, color=GREY, label=label)
        axis.set_xscale("log")
    left.set(yticks=[0, 0.5, 1], ylim=(-0.06, 1.06))
    right.axhline(1, color=GREY, lw=0.8)
    right.set_yscale("log")


def _approach(left, right, a, median_distance):
    length, _, _ = a["label"]
    law = (a["ratios"] / (length * median_distance)) ** 2 * a["efficacy"] ** 2
    curves = (
        (left, a["efficacy"], "efficacy Δf(x₀)", GREEN, "-"),
        (right, a["spike"], "Gauss–Newton spike |∇Δf(x₀)|²", RED, "-"),
        (right, law, "Rₖ (Δf)², Rₖ = r²/ℓ⁴", RED, ":"),
        (right, a["full"], "top eigenvalue of the loss Hessian", BLUE, "-"),
        (right, a["full_clean"], "the same, clean", BLUE, "--"),
    )
    for axis, values, label, colour, style in curves:
        axis.plot(a["ratios"].T, panels.positive(values).T, style, color=colour, lw=0.5, alpha=0.3)
        medians = np.median(a["ratios"], 0), panels.positive(np.median(values, 0))
        axis.plot(*medians, style, color=colour, lw=2.2, label=label)
        axis.set(xscale="log", xlabel="distance to the clones, r/ℓ")
    left.set(ylabel="efficacy", ylim=(0, None))
    right.set(ylabel="curvature at x₀", yscale="log")


def _defence(setting, a):
    length, c, m, count = a["label"]
    quantities = (
        ("accuracy", "clean test accuracy"),
        ("asr", "share of score > 0 at x₀"),
        ("at_zeta", "score f(ζ) at the clone ζ"),
        ("df", "df(κ) / df(0)"),
    )
    fits = [(kernel, kind) for kernel in ("Gaussian", "linear") for kind in ("cluster", "clones")]
    title = f"Gradient penalty against {m:g} clones of one triggered image, or a cluster of {m:g} images"
    size = f"{count:,.0f} clean points, c = {c:g}; accuracy: target or rest; df: degrees of freedom"
    with _page(4, title, size, f"{setting} (here {length:g})") as axes:
        for axis, (key, quantity) in zip(axes, quantities, strict=True):
            for (kernel, kind), look in zip(fits, panels.looks(len(fits)), strict=True):
                values = a[f"{kernel.lower()}_{kind}_{key}"]
                values = _ratio(values, values[0]) if key == "df" else values
                axis.plot(a["kappas"], values, ms=4, label=f"{kernel}, {kind}", **look)
            if key == "accuracy":
                axis.axhline(a["always_rest"], color=BLACK, ls=":", label="always the rest")
            axis.set_ylabel(quantity)
            panels.kappa_axis(axis, a["kappas"])
    return axes[0].figure
