"""The figures of the theorems: a penalty's bounds, a linear model's transition, far clones, images needed."""

import numpy as np
from matplotlib.figure import Figure

from plots import canvas, panels
from plots.panels import BLACK, GREY, RED
from poison_jax.runs.store import Run

# Settings of the synthetic problems, which their arrays do not hold; the tests compare them to the code.
FLIPS = "16 clean and 8 poisoned points in the plane, Gaussian kernel, ℓ = 1, λ = 0.1"
FAR = "30 clean points in 3 dimensions, Gaussian kernel, ℓ = 1, c = 0.1"
GRADIENTS = "Gaussian gradients, 100 background eigenvalues from 0.2 to 1"


def of_run(run: Run) -> dict[str, Figure]:
    """A figure for each theorem's curves; `penalty_bounds_<data set>` for each data set."""
    figures = {
        "penalty_bounds": _penalty_bounds(FLIPS, run.arrays("penalty_bounds")),
        "transition": _transition(run.arrays("transition")),
        "far_clones": _far_clones(run.arrays("far_clones")),
        "images_needed": _images_needed(run.arrays("images_needed")),
    }
    for stored in sorted(run.path.glob("defence_*.npz")):
        name = stored.stem.removeprefix("defence_")
        a = run.arrays(f"defence_{name}")
        length, c, m, count = a["label"]
        setting = f"{name}, {count:,.0f} clean images and {m:g} triggered ones, Gaussian kernel, "
        setting += f"ℓ = {length:g} median distances, c = {c:g}"
        figures[f"penalty_bounds_{name}"] = _penalty_bounds(setting, a, prefix="gaussian_")
    return figures


def _figure(columns, height, *said):
    figure, axes = canvas.subplots(1, columns, canvas.WIDTH, height)
    canvas.describe(figure, *said)
    return figure, axes.ravel()


def _legend(figure, axes, columns=2):
    for axis in axes:
        axis.title.set_fontsize(10)
    panels.legend(figure, axes, fontsize=9, ncols=columns)
    return figure


def _penalty_bounds(setting, a, *, prefix=""):
    kappas = a["kappas"]
    said = "A flip's efficacy E = δ'Δf(X) against the gradient penalty, between the bounds of Theorem A"
    figure, axes = _figure(2, 4.2, said, "No κ below the vertical line E/V halves it", setting)
    for axis, (kind, title) in zip(
        axes, (("cluster", "different points"), ("clones", "clones of one point")), strict=True
    ):
        E, V = (a[f"{prefix}{kind}_{quantity}"] for quantity in ("efficacy", "visibility"))
        kappa_half = E[0] / V[0] if V[0] > 0 else np.inf
        lower = 1 / (1 + kappas / kappa_half)
        upper = 1 - kappas * np.divide(V, E, out=np.zeros_like(E), where=E > 0)
        axis.fill_between(kappas, lower, upper, color="0.88", label="between the bounds")
        axis.plot(kappas, E / E[0], "o-", ms=3, color=BLACK, label="measured by fits")
        axis.plot(kappas, np.maximum(0, 1 - kappas / kappa_half), ":", color=GREY, label="slope −V at κ = 0")
        axis.plot(kappas, lower, "--", color=GREY, label="E / (1 + κ V/E)")
        if np.isfinite(kappa_half):
            axis.axvline(kappa_half, color=RED, lw=1, label="κ = E/V")
        panels.kappa_axis(axis, kappas)
        axis.set(title=f"{title}: E/V = {kappa_half:.2g}", ylim=(-0.03, 1.05))
    axes[0].set_ylabel("efficacy, relative to κ = 0")
    return _legend(figure, axes, columns=3)


def _transition(a):
    said = "A trigger of coefficients ρ in random weights W of d × K: v₁ of the input Hessian WW'"
    figure, (axis,) = _figure(1, 4.2, said, "Points: 12 draws, ±2 standard errors; lines: Theorem D")
    for i, ((dimension, classes), look) in enumerate(
        zip(a["shapes"], panels.looks(len(a["shapes"])), strict=True)
    ):
        axis.plot(a["fine"], a[f"law_{i}"], color=look["color"])
        points = look | {"linestyle": "", "label": f"d = {dimension}, K = {classes}"}
        axis.errorbar(a["sizes"], a[f"mean_{i}"], 2 * a[f"error_{i}"], capsize=2, **points)
    axis.axvline(1, color=GREY, ls=":", label="|ρ| = τ (dK)^¼")
    axis.set(xlabel="|ρ| / τ (dK)^¼", ylabel="squared overlap of v₁ with the trigger", ylim=(-0.02, 1.02))
    return _legend(figure, [axis], columns=3)


def _far_clones(a):
    said = "Clones at the distance D of all clean points: they work, and clean points do not see them"
    figure, (left, right) = _figure(2, 4.2, said, FAR)
    few, many = a["efficacy"].min(1), a["efficacy"].max(1)
    m = f"m = {a['counts'][0]:g} to {a['counts'][-1]:,.0f} clones"
    left.fill_between(a["distances"], few, many, color="0.8", label=m)
    left.plot(a["distances"], few, color=GREY)
    left.plot(a["distances"], many, color=BLACK)
    right.plot(a["distances"], a["bounds"][:, 2], "-", color=RED, label="bound on |Hess Δf(x)|, any m")
    largest = panels.positive(a["changes"][:, :, 2].max(1))
    right.plot(a["distances"], largest, "o", ms=4, color=BLACK, label="largest |Hess Δf(x)| of any m")
    moved = panels.positive(a["mean_hessian"].max(1))
    right.plot(a["distances"], moved, "--", color=BLACK, label="largest change of the mean loss Hessian")
    left.set(title="efficacy at the clones", ylabel="Δf(ζ)", xlabel="D / ℓ", ylim=(0, None))
    right.set(title="what clean points see", ylabel="spectral norm", xlabel="D / ℓ", yscale="log")
    return _legend(figure, [left, right])


def _images_needed(a):
    said = "How many images a test needs: v₁ of the mean of N gradients' outer products, and the poison"
    figure, (axis,) = _figure(
        1, 4.2, said, GRADIENTS, "Points: 8 draws, ±2 standard errors; lines: Theorem F"
    )
    for i, look in enumerate(panels.looks(len(a["eigenvalues"]))):
        needed = a["needed"][i]
        where = f"N* = {needed:.0f}" if np.isfinite(needed) else "below the background"
        axis.plot(a["fine"], a["law"][i], color=look["color"])
        points = look | {"linestyle": "", "label": f"α = {a['eigenvalues'][i]:g}, {where}"}
        axis.errorbar(a["images"], a["mean"][i], 2 * a["error"][i], capsize=2, **points)
    axis.set(
        xscale="log", xlabel="images N", ylabel="squared overlap of v₁ with the poison", ylim=(-0.02, 1.02)
    )
    return _legend(figure, [axis])
