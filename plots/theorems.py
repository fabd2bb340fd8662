"""The figures of the theorems: a penalty's bounds, a linear model's transition, far clones, images needed."""

import numpy as np
from matplotlib.figure import Figure

from plots import canvas
from plots.panels import colours
from poison_jax.runs.store import Run

# Settings of the synthetic problems, which their arrays do not hold; the tests compare them to the code.
FLIPS = "16 clean and 8 poisoned points in the plane, Gaussian kernel, ℓ = 1, λ = 0.1"
FAR = "30 clean points in 3 dimensions, Gaussian kernel, ℓ = 1, c = 0.1"
GRADIENTS = "Gaussian gradients, 100 background eigenvalues from 0.2 to 1"


def of_run(run: Run) -> dict[str, Figure]:
    """A figure for each theorem's curves; `penalty_bounds_<data set>` for each data set."""
    figures = {
        "penalty_bounds": _penalty_bounds(FLIPS, _of_points(run.arrays("penalty_bounds"))),
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
        figures[f"penalty_bounds_{name}"] = _penalty_bounds(setting, _of_points(a, prefix="gaussian_"))
    return figures


def _of_points(a, *, prefix=""):
    """kappas, and (E, V) of the cluster and of the clones."""
    pairs = {k: [a[f"{prefix}{k}_{q}"] for q in ("efficacy", "visibility")] for k in ("cluster", "clones")}
    return a["kappas"], pairs


def _finish(axes):
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.title.set_fontsize(10)
        axis.legend(fontsize=8)
    return axes[0].figure


def _positive(values):
    """What a logarithmic axis can show."""
    return np.where(np.asarray(values) > 0, values, np.nan)


def _penalty_bounds(setting, paths):
    kappas, pairs = paths
    figure, axes = canvas.subplots(1, 2, 10, 4.6)
    figure.suptitle(
        f"A flip's efficacy E = δ'Δf(X) against the penalty, between its bounds\n{setting}", fontsize=12
    )
    titles = {"cluster": "a cluster of different points", "clones": "clones of one point"}
    for axis, (kind, (E, V)) in zip(axes.ravel(), pairs.items(), strict=True):
        half = E[0] / V[0] if V[0] > 0 else np.inf
        lower = E[0] / (1 + kappas / half)
        upper = E[0] * (1 - kappas * np.divide(V, E, out=np.zeros_like(E), where=E > 0))
        axis.fill_between(kappas, lower / E[0], upper / E[0], color="0.85", label="between the bounds")
        axis.plot(kappas, E / E[0], "o-", ms=3, color="tab:blue", label="measured by fits")
        axis.plot(kappas, np.maximum(0, 1 - kappas / half), "k:", label="slope at 0, −V")
        axis.plot(kappas, lower / E[0], "k--", lw=1, label="E / (1 + κ V/E)")
        if np.isfinite(half):
            axis.axvline(half, color="tab:red", lw=1, label=f"no earlier half: κ = E/V = {half:.2g}")
        smallest = kappas[kappas > 0].min()
        axis.set_xscale("symlog", linthresh=smallest, linscale=0.6)
        axis.set(title=titles[kind], xlabel="strength of the gradient penalty κ", ylim=(-0.03, 1.05))
        axis.set(xlim=(-smallest / 3, 2 * kappas.max()), ylabel="efficacy, relative to κ = 0")
    return _finish(axes.ravel())


def _transition(a):
    figure, axes = canvas.subplots(1, 1, 7, 4.8)
    (axis,) = axes.ravel()
    figure.suptitle(
        "A trigger of coefficients ρ in random weights W of d × K, input Hessian WW'", fontsize=12
    )
    for i, ((dimension, classes), colour) in enumerate(
        zip(a["shapes"], colours(len(a["shapes"])), strict=True)
    ):
        label = f"d = {dimension}, K = {classes}"
        axis.plot(a["fine"], a[f"law_{i}"], color=colour, label=f"theory, {label}")
        axis.errorbar(a["sizes"], a[f"mean_{i}"], 2 * a[f"error_{i}"], fmt="o", ms=4, color=colour, capsize=2)
    axis.plot([], [], "ko", ms=4, label="simulated, 12 draws, ±2 standard errors")
    axis.axvline(1, color="k", ls=":", label="τ (dK)^¼")
    axis.set(xlabel="|ρ| / τ (dK)^¼", ylabel="squared overlap of v₁ with the trigger", ylim=(-0.02, 1.02))
    return _finish([axis])


def _far_clones(a):
    figure, axes = canvas.subplots(1, 2, 10, 4.6)
    left, right = axes.ravel()
    figure.suptitle(
        f"Clones at distance D of all clean points: they work, and clean points do not see them\n{FAR}",
        fontsize=12,
    )
    for j, (m, colour) in enumerate(zip(a["counts"], colours(len(a["counts"])), strict=True)):
        label = f"m = {m:,.0f}"
        left.plot(a["distances"], a["efficacy"][:, j], color=colour, label=label)
        right.plot(a["distances"], _positive(a["changes"][:, j, 2]), "o", ms=3, color=colour)
        right.plot(a["distances"], _positive(a["mean_hessian"][:, j]), color=colour, lw=1)
    right.plot(a["distances"], a["bounds"][:, 2], "k-", label="Theorem E's bound on |Hess Δf(x)|")
    right.plot([], [], "ko", ms=3, label="largest |Hess Δf(x)| at a clean point")
    right.plot([], [], "k-", lw=1, alpha=0.5, label="change of the mean loss Hessian")
    left.set(title="efficacy at the clones", ylabel="Δf(ζ)", xlabel="D / ℓ", ylim=(0, None))
    right.set(title="what clean points see, whatever m", ylabel="spectral norm", xlabel="D / ℓ", yscale="log")
    return _finish([left, right])


def _images_needed(a):
    figure, axes = canvas.subplots(1, 1, 7, 4.8)
    (axis,) = axes.ravel()
    figure.suptitle(f"How many images a test needs\n{GRADIENTS}", fontsize=12)
    for i, colour in enumerate(colours(len(a["eigenvalues"]))):
        needed = a["needed"][i]
        label = (
            f"α = {a['eigenvalues'][i]:g}, N* = {needed:.0f}"
            if np.isfinite(needed)
            else (f"α = {a['eigenvalues'][i]:g}, below the background")
        )
        axis.plot(a["fine"], a["law"][i], color=colour, label=label)
        axis.errorbar(a["images"], a["mean"][i], 2 * a["error"][i], fmt="o", ms=4, color=colour, capsize=2)
    axis.plot([], [], "ko", ms=4, label="simulated, 8 draws, ±2 standard errors")
    axis.set(
        xscale="log", xlabel="images N", ylabel="squared overlap of v₁ with the poison", ylim=(-0.02, 1.02)
    )
    return _finish([axis])
