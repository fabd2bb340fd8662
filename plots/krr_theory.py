"""The figures of the theory's run: laws of a cloned poison, lost capacity, the filter, Fisher decay."""

import contextlib

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from plots import canvas
from plots.panels import colours
from poison_jax.runs.store import Run

# Settings of the synthetic problems, which their arrays do not hold; the tests compare them to the code.
CLONES = "30 random clean points in 6 dimensions, Gaussian kernel, ℓ = 1.5, c = 5"
CAPACITY = "Gaussian kernel, ℓ = 1, λ = 0.1"
FILTER = "32 points on a circle, stationary kernel of width 0.7, λ = 0.1, κ = 0.5"
FLOW = "24 clean and 8 poisoned points in 3 dimensions, Gaussian kernel, ℓ = 1.5"


def of_run(run: Run) -> dict[str, Figure]:
    """A figure for each curve; `images_`, `visibility_` and `defence_<data set>` for each data set."""
    figures = {
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
        setting += "\nGaussian kernel of length scale ℓ, in units of the median distance"
        approach = run.arrays(f"approach_{name}")
        figures |= {
            f"images_{name}": _images(setting, config["krr"], laws, approach),
            f"visibility_{name}": _visibility(setting, laws),
            f"defence_{name}": _defence(setting, run.arrays(f"defence_{name}")),
        }
    return figures


@contextlib.contextmanager
def _page(title, rows, columns, *, legend_columns=1):
    """Axes `[rows * columns]` to draw on, which get their grids and legends at the end."""
    figure, axes = canvas.subplots(rows, columns, 5 * columns, 4.1 * rows + 0.8)
    figure.suptitle(title, fontsize=12)
    yield axes.ravel()
    for axis in axes.ravel():
        axis.grid(alpha=0.3)
        axis.title.set_fontsize(10)
        axis.legend(fontsize=8, ncols=legend_columns)


def _positive(values):
    """What a logarithmic axis can show."""
    return np.where(np.asarray(values) > 0, values, np.nan)


def _ratio(values, by):
    """Elementwise, 0 where `by` is."""
    values, by = np.broadcast_arrays(values, by)
    return np.divide(values, by, out=np.zeros(values.shape), where=by != 0)


def _kappa_axis(axis, kappas):
    """Logarithmic, with room for kappa = 0."""
    smallest = kappas[kappas > 0].min()
    axis.set_xscale("symlog", linthresh=smallest, linscale=0.6)
    axis.set(xlim=(-smallest / 3, 2 * kappas.max()), xlabel="strength of the gradient penalty κ")


def _spike_law(a):
    m, ratios = a["m"], a["ratios"]
    paper = "Rₖ (Δf)², Rₖ = r²/ℓ⁴ (eqs. 16, 20)", (ratios / a["lengthscale"]) ** 2
    posterior = "the same with R of the posterior kernel", a["near_factor"]
    panels = (
        ("far", {"-": paper}, "clones far from the data (no cross-block)"),
        ("near", {"--": paper, "-": posterior}, "clones two length scales from the data"),
    )
    title = f"Spike against efficacy for m = {m[0]} to {m[-1]} clones with label 1\n{CLONES}"
    with _page(title, 1, 2) as axes:
        for axis, (prefix, laws, where) in zip(axes, panels, strict=True):
            efficacy, spike = _positive(a[f"{prefix}_efficacy"]), _positive(a[f"{prefix}_spike"])
            for i, colour in enumerate(colours(len(ratios))):
                label = f"measured, r/ℓ = {ratios[i]:g}" if prefix == "far" else None
                axis.plot(efficacy[i], spike[i], "o", color=colour, ms=5, label=label)
                for style, (_, factor) in laws.items():
                    axis.plot(efficacy[i], factor[i] * efficacy[i] ** 2, style, color=colour, lw=1.2)
            for style, (label, _) in laws.items():
                axis.plot([], [], f"k{style}", label=label)
            x, y = np.nanmax(efficacy) / 2, np.nanmin(spike) / 3
            axis.plot([x / 2, x, x, x / 2], [y, y, 4 * y, y], color="k", lw=1)
            axis.text(1.05 * x, 1.4 * y, "slope 2", fontsize=8)
            axis.set(title=where, xlabel="efficacy Δf(x₀): shift of the score at the trigger point")
            axis.set(xscale="log", yscale="log", ylabel="the poison's Gauss–Newton spike |∇Δf(x₀)|²")
    return axes[0].figure


def _twilight_zone(a):
    ratios, spike = a["ratios"], _positive(a["spike"])
    title = f"A trigger point at distance r from 20 clones (label 1, far from the data)\n{CLONES}"
    with _page(title, 1, 2) as (left, right):
        left.plot(ratios, _positive(a["efficacy"]), color="tab:green", label="efficacy Δf(x₀)")
        low = ratios < 0.3
        left.plot(ratios[low], spike[0] / 5 * (ratios[low] / ratios[0]) ** 2, "k:", label="slope 2")
        left.set(
            title="efficacy and Gauss–Newton term, logarithmic", ylabel="efficacy, curvature", yscale="log"
        )
        for name, y, colour in (("target", "+1 (target)", "tab:blue"), ("truth", "−1 (truth)", "tab:orange")):
            smallest, largest = a[f"{name}_smallest"], a[f"{name}_largest"]
            right.fill_between(ratios, smallest, largest, color=colour, alpha=0.2)
            right.plot(ratios, largest, color=colour, label=f"Hessian's largest eigenvalue, y = {y}")
            right.plot(ratios, smallest, "--", color=colour, label=f"its smallest, y = {y}")
        right.axhline(0, color="k", lw=0.6)
        right.set(title="Gauss–Newton term and whole input Hessian, linear", ylabel="eigenvalue")
        for axis in (left, right):
            axis.plot(ratios, spike, color="tab:red", lw=2, label="Gauss–Newton spike |∇f(x₀)|²")
            axis.axvspan(ratios[0], 0.1, color="0.9", zorder=0, label="near clone, r < 0.1 ℓ")
            axis.set(xscale="log", xlabel="distance to the clones in length scales, r/ℓ")
    return left.figure


def _lost_capacity(a):
    exact = "exact", "[K (K + λI) + κG] α = K y, the minimiser", "-"
    paper = "paper", "(K + λI + κG) α = y, eq. 26 as printed", "--"
    residual = "training residual |y − Kα|²"
    panels = (
        ("df", "degrees of freedom df", "40 random points in the plane"),
        ("residual", residual, "40 random points in the plane, random targets"),
        ("counterexample", residual, "points 0, 0.5, 2 on a line, targets chosen for each form"),
    )
    with _page(f"Fits with a gradient penalty\n{CAPACITY}", 1, 3) as axes:
        for axis, (key, quantity, setting) in zip(axes, panels, strict=True):
            for form, label, style in (exact, paper):
                values = a[f"{form}_{key}"]
                axis.plot(a["kappas"], _ratio(values, values[0]), style, label=label)
            axis.axhline(1, color="k", lw=0.6)
            axis.set(title=setting, ylabel=f"{quantity}, relative to κ = 0")
            _kappa_axis(axis, a["kappas"])
    return axes[0].figure


def _filter(a):
    curves = (
        ("unpenalised", "without penalty: k̂/(k̂ + λ)", "0.5", "-"),
        ("exact", "exact (App. D): k̂/(k̂ + λ + κω²k̂)", "tab:blue", "-"),
        ("remark", "Remark 3.10 as printed: k̂/(k̂ + λ + κω²)", "tab:orange", "--"),
        ("paper", "eq. 26 as printed: k̂/(k̂ + λ + κω²k̂²)", "tab:green", "-."),
    )
    title = f"What the penalised fit keeps of each frequency: a low-pass filter\n{FILTER}"
    with _page(title, 1, 2) as axes:
        for axis, scale, top in zip(axes, ("linear", "log"), (1.6, None), strict=True):
            for key, label, colour, style in curves:
                axis.plot(a["fine"], _positive(a[key]), style, color=colour, label=label)
            axis.plot(a["omega"], _positive(a["measured"]), "o", color="tab:blue", label="measured fits")
            axis.set(title=f"{scale} scale", yscale=scale, xlabel="frequency ω", ylabel="response s(ω)")
            axis.set_ylim(top=top)  # room for the legend
    return axes[0].figure


def _fisher_decay(a):
    panels = (
        ("strong", "v'Fv", "v: the poison's direction, F(0)'s top eigenvector"),
        ("weak", "v'Fv", "v: the weakest direction, F(0)'s bottom eigenvector"),
        ("trace", "tr F", "all directions together"),
        ("objective", "J", "the objective J, eq. 25, which the flow follows"),
    )
    title = f"The input Fisher matrix F under gradient flow on J, from the fit without penalty\n{FLOW}"
    with _page(title, 2, 2) as axes:
        for axis, (key, quantity, setting) in zip(axes, panels, strict=True):
            for i, colour in enumerate(colours(len(a["kappas"]))):
                label = f"κ = {a['kappas'][i]:g}"
                axis.plot(a["times"], _ratio(a[key][i], a[key][i, 0]), color=colour, label=label)
                if key == "strong":
                    axis.plot(a["times"], _ratio(a["bound"][i], a[key][i, 0]), "--", color=colour)
            axis.set(title=setting, xlabel="time t of the flow", ylabel=f"{quantity}, relative to t = 0")
            axis.set_ylim(0, 1.45 * axis.get_ylim()[1])  # room for the legend
        axes[0].plot([], [], "k--", label="eq. 32's bound")
    return axes[0].figure


def _images(setting, config, laws, approach):
    i = np.argmin(np.abs(laws["lengthscales"] - config["lengthscale"]))  # as in the approach, if it is there
    j = np.argmin(np.abs(laws["ridges"] - config["ridge"]))
    size = "{:,} clean points in {:,} dimensions".format(*laws["points"])
    with _page(f"Clones of one image, {size}\n{setting}", 2, 2) as axes:
        _law_scatter(axes[0], axes[1], laws, i, j)
        _approach(axes[2], axes[3], approach, laws["median_distance"])
    return axes[0].figure


def _law_scatter(left, right, laws, i, j):
    cell = {key: laws[key][i, j] for key in laws if laws[key].ndim == 4}
    where = f"ℓ = {laws['lengthscales'][i]:g}, c = {laws['ridges'][j]:g}"
    efficacy, spike = cell["efficacy"], cell["spike"]
    m = np.broadcast_to(laws["clones"][:, None], efficacy.shape)
    by_m = {"c": m, "norm": LogNorm(m.min(), m.max()), "s": 14}
    exact = {"s": 2, "color": "tab:red", "label": "exact law (posterior kernel)"}
    left.axline((0, 0), slope=1, color="k", lw=0.8, label="law = measurement")
    left.scatter(cell["paper_efficacy"], efficacy, **by_m, label="paper's law (eq. 11)")
    left.scatter(cell["exact_efficacy"], efficacy, **exact)
    left.set(title=f"efficacy, {where}", xlabel="Δf(x₀) by law", ylabel="Δf(x₀) measured by fits")
    size = _positive(np.abs(efficacy))
    dots = right.scatter(size, _positive(spike), **by_m, label="measured by fits")
    right.plot(size, _positive(spike), color="0.7", lw=0.4, zorder=0)  # a line for each x₀, of slope 2
    right.scatter(_positive(np.abs(cell["exact_efficacy"])), _positive(cell["exact_spike"]), **exact)
    x = np.sort(size, axis=None)
    for key, style, which in (("paper", "--", "Rₖ = r²/ℓ⁴"), ("exact", "-", "R, posterior kernel")):
        factor = np.median(_ratio(cell[f"{key}_spike"][-1], cell[f"{key}_efficacy"][-1] ** 2))
        right.plot(x, _positive(factor * x**2), f"k{style}", label=f"R (Δf)², median {which}")
    right.set(title=f"spike against efficacy, {where}", xscale="log", yscale="log")
    right.set(xlabel="efficacy |Δf(x₀)|", ylabel="the poison's Gauss–Newton spike |∇Δf(x₀)|²")
    right.figure.colorbar(dots, ax=right, label="number of clones m (left as well)")


def _visibility(setting, laws):
    title = f"Which m clones work, which are seen (Remark 3.5): {laws['points'][0]:,} clean points\n{setting}"
    with _page(title, 2, len(laws["ridges"]), legend_columns=2) as axes:
        for j, (top, bottom) in enumerate(axes.reshape(2, -1).T):
            _against_m(top, bottom, laws, j)
    return axes[0].figure


def _against_m(top, bottom, laws, j):
    score = laws["clean_score"][:, j, None] + laws["efficacy"][:, j]  # [l, m, t]
    spike, law, clean = laws["spike"][:, j], laws["paper_spike"][:, j], laws["clean_curvature"][:, j, None]
    curves = (
        (top, "attack works: score > 0", "o-", np.mean(score > 0, -1)),
        (top, "seen: spike > clean curvature", "s--", np.mean(spike > clean, -1)),
        (bottom, "measured by fits", "o-", _positive(np.median(_ratio(spike, clean), -1))),
        (bottom, "paper's law (eq. 15)", "x:", _positive(np.median(_ratio(law, clean), -1))),
    )
    palette = colours(len(laws["lengthscales"]))
    for axis in (top, bottom):
        for length, colour in zip(laws["lengthscales"], palette, strict=True):
            axis.plot([], [], color=colour, lw=3, label=f"ℓ = {length:g}")
        axis.set(title=f"c = {laws['ridges'][j]:g}", xscale="log", xlabel="number of clones m")
    for axis, label, style, values in curves:
        for row, colour in zip(values, palette, strict=True):
            axis.plot(laws["clones"], row, style, color=colour, ms=4)
        axis.plot([], [], f"k{style}", ms=4, label=label)
    top.set(ylabel="share of the trigger points", yticks=np.linspace(0, 1, 6), ylim=(-0.04, 1.4))
    bottom.axhline(1, color="k", lw=0.8)
    bottom.set(yscale="log", ylabel="spike / clean curvature |∇f(x₀)|², median")
    bottom.margins(y=0.4)  # room for the legend, as above


def _approach(left, right, a, median_distance):
    length, c, m = a["label"]
    law = (a["ratios"] / (length * median_distance)) ** 2 * a["efficacy"] ** 2
    curves = (
        (left, a["efficacy"], "efficacy Δf(x₀), bold: median", "tab:green", "-"),
        (right, a["spike"], "the poison's Gauss–Newton spike |∇Δf(x₀)|²", "tab:red", "-"),
        (right, law, "Rₖ (Δf)², Rₖ = r²/ℓ⁴", "tab:red", ":"),
        (right, a["full"], "loss Hessian's top eigenvalue (y = +1), poisoned", "tab:blue", "-"),
        (right, a["full_clean"], "the same, clean", "tab:blue", "--"),
    )
    for axis, values, label, colour, style in curves:
        axis.plot(a["ratios"].T, _positive(values).T, style, color=colour, lw=0.7, alpha=0.5)
        medians = np.median(a["ratios"], 0), _positive(np.median(values, 0))
        axis.plot(*medians, style, color=colour, lw=2.2, label=label)
        axis.set(xscale="log", xlabel="distance to the clones in length scales, r/ℓ")
        axis.set_title(f"from clones to {len(law)} trigger points, m = {m:g}, ℓ = {length:g}, c = {c:g}")
    left.set(ylabel="efficacy", ylim=(0, None))
    right.set(ylabel="curvature at x₀", yscale="log")


def _defence(setting, a):
    length, c, m, count = a["label"]
    quantities = (
        ("accuracy", "clean test accuracy, target or rest"),
        ("asr", "attack success rate: share of score > 0 at x₀"),
        ("at_zeta", "score f(ζ) at the cloned image ζ"),
        ("df", "degrees of freedom df(κ) / df(0)"),
    )
    title = f"Gradient penalty against {m:g} clones of one triggered image, or a cluster of {m:g} images"
    title += f"; {count:,.0f} clean points, c = {c:g}\n{setting} (here {length:g})"
    with _page(title, 2, 2) as axes:
        for axis, (key, quantity) in zip(axes, quantities, strict=True):
            for kernel, colour in (("Gaussian", "tab:blue"), ("linear", "tab:orange")):
                for kind, style in (("cluster", "o-"), ("clones", "x--")):
                    values = a[f"{kernel.lower()}_{kind}_{key}"]
                    values = _ratio(values, values[0]) if key == "df" else values
                    axis.plot(a["kappas"], values, style, color=colour, ms=4, label=f"{kernel}, {kind}")
            if key == "accuracy":
                axis.axhline(a["always_rest"], color="k", ls=":", label="always the rest")
            axis.set_ylabel(quantity)
            _kappa_axis(axis, a["kappas"])
    return axes[0].figure
