"""Linear regression on poisoned MNIST: Figures 4 and 5, and why the attack grows slowly."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from plots import canvas
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
    """For each method its colour and line: black for exact, blues for ridges, reds for SGD."""
    ridges, epochs = len(measured["ridges"]) - 1, len(measured["epochs"])
    blues = matplotlib.colormaps["Blues"](np.linspace(0.9, 0.45, ridges))
    reds = matplotlib.colormaps["OrRd"](np.linspace(0.35, 0.95, epochs))
    styles = [{"color": "k", "lw": 2}]
    styles += [{"color": colour, "ls": "--"} for colour in blues]
    return styles + [{"color": colour} for colour in reds]


# --- Figure 4 -------------------------------------------------------------------------------------


def _weights(result, measured, exact, sgd):
    """Differences of the target class's weights as images, each on its own scale around zero."""
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
    figure, axes = canvas.subplots(len(rows), 4, 14, 3.4 * len(rows))
    figure.suptitle(
        f"{_setting(result, 'seed ' + str(result['seeds'][0]))}\nweights of the target class at "
        f"θ = {result['theta']:g}; base: θ = 0; exact step: Lemma F.1; colours clipped at the 99 % quantile",
        fontsize=12,
    )
    for (name, fits), row in zip(rows.items(), axes, strict=True):
        base, full, step = (image(weights) for weights in fits)
        panels = {"full - base": full - base, "step - base": step - base, "step - full": step - full}
        for axis, (title, values) in zip(row, (panels | {"weights (full)": full}).items(), strict=True):
            limit = _limit(values)
            shown = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
            figure.colorbar(shown, ax=axis, shrink=0.85, extend="both")
            axis.set(title=title, xticks=[], yticks=[])
            on_trigger = values[mask].mean()
            axis.set_xlabel(f"norm {np.linalg.norm(values):.2g}, trigger's pixels {on_trigger:+.2g}")
        row[0].set_ylabel(name)
    return figure


def _limit(values):
    """A symmetric scale that a few extreme pixels do not use up."""
    return max(np.quantile(np.abs(values), 0.99), 1e-300)


# --- Figure 5 -------------------------------------------------------------------------------------


def _against_theta(result: Json, measured: Mapping[str, np.ndarray]) -> Figure:
    """Clean accuracy, ASR, overlap^2 against theta for every fit; all measures for the last SGD."""
    figure, axes = canvas.subplots(2, 2, 14, 10)
    seeds = len(result["seeds"])
    figure.suptitle(
        f"{_setting(result, f'{seeds} seeds')}\nmean over the seeds, bands: standard deviation; "
        "target class excluded from the attack success rate",
        fontsize=12,
    )
    thetas, styles = measured["thetas"][1:], _styles(result, measured)
    panels = {
        "(a) clean accuracy (%)": 100 * measured["clean_accuracy"],
        "(b) attack success rate (%)": 100 * measured["asr"],
        "(c) overlap² of the input Hessian's top eigenvector with the trigger": measured["overlap_squared"][
            ..., ONE_HOT
        ],
    }
    for axis, (title, values) in zip(axes.flat[:3], panels.items(), strict=True):
        for i, (method, look) in enumerate(zip(measured["methods"], styles, strict=True)):
            _band(axis, thetas, values[:, i, 1:, BIAS], label=method, **look)
        axis.set(title=title, xlabel="poison fraction θ", xscale="log")
    axes[0, 0].legend(fontsize=8, ncols=2)
    summary = {
        "clean accuracy": measured["clean_accuracy"],
        "attack success rate": measured["asr"],
        "robust accuracy": measured["robust_accuracy"],
        "target rate without trigger": measured["no_trigger_target_rate"],
        "overlap²": measured["overlap_squared"][..., ONE_HOT],
    }
    for name, values in summary.items():
        _band(axes[1, 1], thetas, values[:, -1, 1:, BIAS], label=name, marker="o", markersize=3)
    axes[1, 1].set(title=f"(d) summary: {measured['methods'][-1]}", xlabel="poison fraction θ", xscale="log")
    axes[1, 1].legend(fontsize=8)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    return figure


def _band(axis, x, values, **look):
    mean, deviation = values.mean(0), values.std(0)
    (line,) = axis.plot(x, mean, **look)
    axis.fill_between(x, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.15, lw=0)


# --- the law --------------------------------------------------------------------------------------


def _rise(result, measured):
    """Why the attack grows slowly: SGD and ridges learn the trigger's direction at its curvature's rate."""
    c, thetas, epochs = result["config"], measured["thetas"][1:], len(measured["epochs"])
    figure, (axes,) = canvas.subplots(1, 2, 14, 5.8)
    seeds = f"{len(result['seeds'])} seeds, every point a fit"
    figure.suptitle(_setting(result, seeds), fontsize=12)
    methods, styles = measured["methods"], _styles(result, measured)
    styles = [{"color": s["color"], "marker": "s" if "ls" in s else "o", "s": 14} for s in styles]

    asr = 100 * measured["asr"][..., 1:, BIAS]
    for i, steps in zip(range(-epochs, 0), measured["steps"], strict=True):
        x = np.broadcast_to(thetas * steps, asr[:, i].shape)
        axes[0].scatter(x, asr[:, i], label=methods[i], **styles[i])
    exact = asr[:, 0].mean(0)
    axes[0].axhspan(exact.min(), exact.max(), color="k", alpha=0.2, lw=0, label="exact, lowest to highest θ")
    axes[0].set(title="attack success rate (%)", xlabel="θ × steps of SGD", xscale="log")

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
    axes[1].plot(x, 1 - np.exp(-x), color="tab:red", lw=1, label="1 - exp(-x)")
    axes[1].plot(x, x / (1 + x), color="tab:blue", lw=1, ls="--", label="x / (1 + x)")
    axes[1].set(
        title="rise of the target's score with the trigger, as a share of the exact fit's",
        xlabel="x = k m / c (ridge), k m × learning rate × steps / n (SGD)\n"
        "m poisoned images of n, k = |trigger|²",
        xscale="log",
        yscale="log",
    )
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure
