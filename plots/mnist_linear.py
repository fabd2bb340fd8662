"""Linear regression on poisoned MNIST: Figures 4 and 5, and why the attack grows slowly."""

import itertools
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from plots import canvas, panels
from poison_jax.errors import UserError
from poison_jax.runs.files import Json
from poison_jax.runs.records import Record
from poison_jax.runs.store import Run

BIAS, ONE_HOT = 1, 0  # of the arrays' axes: the fits that are drawn


def of_run(run: Run) -> dict[str, Figure]:
    """Figure 4 (weights), Figure 5 (measures over theta), and the law of the rise."""
    result, measured = run.result(), run.arrays("measures")
    seed = result["seeds"][0]
    return {
        "fig04": _weights(result, measured, run.arrays(f"exact-{seed}"), run.arrays(f"sgd-{seed}")),
        "fig05": _against_theta(result, measured),
        "rise": _rise(result, measured),
    }


def fig05(records: list[Record], title: str) -> list[Figure]:
    """Accuracy, attack success and overlap over theta; a figure for each regression of the sweep."""
    for record in records:
        if "methods" not in record.arrays:
            raise UserError(f"{record.run} is no linear regression: name a sweep of experiment mnist_linear")
    return [_against_theta(record.result, record.arrays) for record in records]


def _setting(result, seeds):
    c = result["config"]
    return (
        f"{c['data']['name']}, {result['num_train']:,} training "
        f"and {result['num_test']:,} test images, "
        f"linear regression with a bias, {c['poison']['trigger']} trigger, "
        f"target class {c['poison']['target']}, {seeds}"
    )


def _styles(result, measured):
    """For each method its colour, line and marker: black for exact, blues for ridges, reds for SGD."""
    ridges, epochs = len(measured["ridges"]) - 1, len(measured["epochs"])
    blues = matplotlib.colormaps["Blues"](np.linspace(0.95, 0.5, ridges))
    reds = matplotlib.colormaps["OrRd"](np.linspace(0.45, 0.95, epochs))
    styles = [{"color": "k", "lw": 2}]
    marked = zip(blues, itertools.cycle("sDPX"), strict=False)
    styles += [{"color": colour, "ls": "--", "marker": marker} for colour, marker in marked]
    marked = zip(reds, itertools.cycle("o^v<>*"), strict=False)
    return styles + [{"color": colour, "marker": marker} for colour, marker in marked]


# --- Figure 4 -------------------------------------------------------------------------------------


def _weights(result, measured, exact, sgd):
    """Differences of the target class's weights as images, all on one scale around zero."""
    t = measured["thetas"].tolist().index(result["theta"])
    target, shape = result["config"]["poison"]["target"], measured["mask"].shape
    mask = measured["mask"].any(-1)

    def image(weights):
        return weights[BIAS, :-1, target].reshape(shape).mean(-1)

    full, step, ridge = exact["full"][0], exact["step"], exact["full"][1]
    trained = sgd["weights"][-1]
    epochs, c = result["config"]["train"]["epochs"], measured["ridges"][1]
    rows = {
        "all exact": (full[0], full[t], step[t]),
        f"base and full: SGD, {epochs} epochs\nstep: exact": (trained[0], trained[t], step[t]),
        f"base and full: SGD, {epochs} epochs\nstep: ridge {c:g}": (trained[0], trained[t], ridge[t]),
    }
    figure, axes = canvas.subplots(len(rows), 4, canvas.WIDTH, 2.2 * len(rows) + 0.8)
    images = {
        name: {
            "full − base": full - base,
            "step − base": step - base,
            "step − full": step - full,
            "full": full,
        }
        for name, (base, full, step) in ((name, map(image, fits)) for name, fits in rows.items())
    }
    limit = max(np.quantile(np.abs(values), 0.99) for row in images.values() for values in row.values())
    decade = 10.0 ** np.floor(np.log10(limit or 1))
    norm = SymLogNorm(decade / 100, vmin=-(limit or 1), vmax=limit or 1, linscale=0.5)
    for (name, row), places in zip(images.items(), axes, strict=True):
        for axis, (title, values) in zip(places, row.items(), strict=True):
            shown = axis.imshow(values, cmap="RdBu_r", norm=norm)
            panels.frame(axis)
            axis.set_title(title)
            words = f"norm {np.linalg.norm(values):.2g}\ntrigger {values[mask].mean():+.2g}"
            axis.set_xlabel(words, fontsize=9)
        places[0].set_ylabel(name, fontsize=9)
    ticks = decade * np.array([-1, -0.1, -0.01, 0, 0.01, 0.1, 1])
    figure.colorbar(shown, ax=axes, location="bottom", shrink=0.6, aspect=40, extend="both", ticks=ticks)
    canvas.describe(
        figure,
        f"Weights of the target class at θ = {result['theta']:g}, and their differences; base: θ = 0, full: "
        "θ, step: base updated by the poisoned images, exactly by Lemma F.1 or of a ridge",
        _setting(result, f"seed {result['seeds'][0]}"),
        "One colour scale for all, linear around 0, logarithmic beyond, clipped at the "
        "largest 99 % quantile; trigger: mean over the trigger's pixels",
    )
    return figure


# --- Figure 5 -------------------------------------------------------------------------------------


def _against_theta(result: Json, measured: Mapping[str, np.ndarray]) -> Figure:
    """Clean accuracy, ASR, overlap^2 against theta for every fit; all measures for the last SGD."""
    figure, axes = canvas.subplots(2, 2, canvas.WIDTH, 7.8)
    canvas.describe(
        figure,
        "Linear regression over the poison fraction: (a) to (c) every fit, (d) all measures of "
        f"{measured['methods'][-1]}; overlap²: of the input Hessian's top eigenvector with the trigger",
        _setting(result, f"{len(result['seeds'])} seeds"),
        "Mean over the seeds, bands: standard deviation; target class excluded from the attack success rate",
    )
    thetas, styles = measured["thetas"][1:], _styles(result, measured)
    overlap = measured["overlap_squared"][..., ONE_HOT]
    quantities = {
        "(a) clean accuracy (%)": 100 * measured["clean_accuracy"],
        "(b) attack success rate (%)": 100 * measured["asr"],
        "(c) overlap²": overlap,
    }
    for axis, (name, values) in zip(axes.flat[:3], quantities.items(), strict=True):
        for i, (method, look) in enumerate(zip(measured["methods"], styles, strict=True)):
            _band(axis, thetas, values[:, i, 1:, BIAS], label=method, ms=4, **look)
        axis.set_ylabel(name)
    summary = {
        "clean accuracy": measured["clean_accuracy"],
        "attack success rate": measured["asr"],
        "robust accuracy": measured["robust_accuracy"],
        "target rate without trigger": measured["no_trigger_target_rate"],
        "overlap²": overlap,
    }
    for (name, values), look in zip(summary.items(), panels.looks(len(summary)), strict=True):
        _band(axes[1, 1], thetas, values[:, -1, 1:, BIAS], label=name, ms=4, **look)
    axes[1, 1].set_ylabel("(d) summary")
    for axis in axes.flat:
        axis.set(xlabel="poison fraction θ", xscale="log")
    panels.legend(figure, (axes[0, 0], axes[1, 1]), ncols=3, fontsize=9)
    return figure


def _band(axis, x, values, **look):
    mean, deviation = values.mean(0), values.std(0)
    (line,) = axis.plot(x, mean, **look)
    axis.fill_between(x, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.15, lw=0)


# --- the law --------------------------------------------------------------------------------------


def _rise(result, measured):
    """Why the attack grows slowly: SGD and ridges learn the trigger's direction at its curvature's rate."""
    c, thetas, epochs = result["config"], measured["thetas"][1:], len(measured["epochs"])
    figure, (axes,) = canvas.subplots(1, 2, canvas.WIDTH, 5)
    canvas.describe(
        figure,
        "Left: attack success rate over θ × steps of SGD; right: rise of the target's score with the "
        "trigger, as a share of the exact fit's, over x = k m / c (ridge) or k m × learning rate × steps / n "
        "(SGD), with m poisoned images of n and k = |trigger|²",
        _setting(result, f"{len(result['seeds'])} seeds, every point a fit"),
    )
    methods, styles = measured["methods"], _styles(result, measured)
    styles = [{"color": s["color"], "marker": s.get("marker", "."), "s": 14} for s in styles]

    asr = 100 * measured["asr"][..., 1:, BIAS]
    for i, steps in zip(range(-epochs, 0), measured["steps"], strict=True):
        x = np.broadcast_to(thetas * steps, asr[:, i].shape)
        axes[0].scatter(x, asr[:, i], label=methods[i], **styles[i])
    exact = asr[:, 0].mean(0)
    axes[0].axhspan(exact.min(), exact.max(), color="k", alpha=0.2, lw=0, label="exact, lowest to highest θ")
    axes[0].set(ylabel="attack success rate (%)", xlabel="θ × steps of SGD", xscale="log")

    k = measured["mask"].sum() * c["poison"]["value"] ** 2  # |trigger|^2
    time = c["train"]["learning_rate"] * measured["steps"] / result["num_train"]
    learned = np.concatenate([1 / measured["ridges"][1:], time])
    learned = learned[:, None] * k * measured["num_poisoned"][:, None, 1:]  # [S, methods, T]
    rise = measured["rise"][..., 1:, BIAS]
    for i, method in enumerate(methods[1:]):
        there = measured["num_poisoned"][:, 1:] > 0
        share = rise[:, i + 1][there] / rise[:, 0][there]
        axes[1].scatter(learned[:, i][there], share, label=method, **styles[i + 1])
    x = np.geomspace(learned[learned > 0].min(), learned.max(), 200)
    axes[1].plot(x, 1 - np.exp(-x), color=panels.GREEN, lw=1, label="1 − exp(−x)")
    axes[1].plot(x, x / (1 + x), color="k", lw=1, ls=":", label="x / (1 + x)")
    axes[1].set(ylabel="share of the exact rise", xlabel="x", xscale="log", yscale="log")
    panels.legend(figure, axes, ncols=3, fontsize=9)
    return figure
