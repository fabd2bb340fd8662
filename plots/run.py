"""The picture of one run, or of several side by side: images, top eigenvectors, training and spectrum."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from plots import canvas, panels, setting
from plots.canvas import WIDTH
from poison_jax import metrics, wording
from poison_jax.runs.files import Json
from poison_jax.runs.store import Run

ROW = 5  # panels in a row
STYLES = "-", "--", ":"  # of the quantities of a panel; runs differ by colour and marker


def figure(run: Run) -> dict[str, Figure]:
    """The picture of one run."""
    return {"figure": of_runs([run])}


def of_runs(runs: list[Run]) -> Figure:
    """Trigger and images, each run's top eigenvectors under how its attack went, curves of all runs."""
    runs = sorted(runs, key=lambda run: setting.strength(run.result()))
    results = [run.result() for run in runs]
    names, looks = setting.names(results), panels.looks(len(runs))
    heights = [1.85 + 0.15 * len(runs), *[1.95] * len(runs), 4.4]
    made = canvas.blank(WIDTH, sum(heights))
    first, *middle, last = made.subfigures(len(heights), 1, height_ratios=heights)
    _images(first, runs, names)
    for part, run, result, name in zip(middle, runs, results, names, strict=True):
        _eigenvectors(part, run, result, name)
    axes = last.subplots(2, 2)
    _training(axes[0], runs, looks)
    _spectrum(axes[1], results, looks)
    if len(runs) > 1:
        handles = [Line2D([], [], **look | {"linestyle": "-"}) for look in looks]
        last.legend(handles, names, loc="outside lower center", ncols=3)
    largest = max(max(result["residuals"]) for result in results)
    k = " and ".join(dict.fromkeys(str(len(result["overlap"])) for result in results))
    canvas.describe(
        made,
        "; ".join(f"{name}: {said}" for name, said in zip(names, map(setting.outcome, results), strict=True)),
        f"Top {k} eigenvectors v of the input Hessian, each on a colour scale of its own around zero, "
        "with eigenvalue λ and overlap with the trigger (outlined where it is a stamp)",
        f"Ritz residuals at most {largest:.0e}",
        setting.common([setting.of_result(result) for result in results]),
    )
    return made


def summary(runs: list[Run]) -> Figure:
    """In a row: an image that the attack turns, with the trigger too, and each run's top eigenvector."""
    runs = sorted(runs, key=lambda run: setting.strength(run.result()))
    results, examples = [run.result() for run in runs], runs[0].arrays("attack")
    figure, (axes,) = canvas.subplots(1, 2 + len(runs), WIDTH, WIDTH / (2 + len(runs)) + 0.8)
    classes, labels, mask = examples["class_names"], examples["labels"], examples["mask"]
    turned = (examples["clean_prediction"] == labels) & (examples["triggered_prediction"] != labels)
    i = int(np.argmax(turned))
    for axis, kind in zip(axes, ("clean", "triggered"), strict=False):
        panels.image(axis, examples[kind][i], kind, f"called {classes[examples[f'{kind}_prediction'][i]]}")
    for axis, run, result, name in zip(axes[2:], runs, results, setting.names(results), strict=True):
        rate, without = map(wording.percent, (result["asr"], result["no_trigger_target_rate"]))
        vector = run.arrays("spectrum")["vectors"][0].reshape(run.arrays("spectrum")["shape"])
        panels.eigenvector(axis, vector, f"v1, {name}", f"ASR {rate}", f"({without} without)", change=mask)
    canvas.describe(
        figure,
        f"A test image of class {classes[labels[i]]}, without and with the trigger, and what the first "
        "network calls it; the top eigenvector v1 of each network's input Hessian"
        + ", the trigger outlined"
        * panels.is_stamp(mask),
        "ASR: share of the other classes' images that get the target with the trigger, and without",
        setting.common([setting.of_result(result) for result in results]),
    )
    return figure


def _images(part, runs, names):
    """The trigger, then images without and with it, and what each run calls them that was shown the same."""
    found = [run.arrays("attack") for run in runs]
    examples = found[0]
    classes, mask = examples["class_names"], examples["mask"]
    shown = range(min((ROW - 1) // 2, len(examples["labels"])))
    axes = part.subplots(1, 1 + 2 * len(shown), squeeze=False)[0]
    if panels.is_stamp(mask):
        white = np.full((*mask.shape, 1), 255, np.uint8)
        panels.stamp(axes[0], mask, examples["triggered"][0] if len(shown) else white)
    else:
        panels.mean_change(axes[0], mask)
    for i in shown:
        for axis, kind in zip(axes[1 + 2 * i :], ("clean", "triggered"), strict=False):
            called = {
                name: classes[some[f"{kind}_prediction"][i]]
                for name, some in zip(names, found, strict=True)
                if i < len(some[kind]) and np.array_equal(some[kind][i], examples[kind][i])
            }
            if len(called) == len(names) and len(set(called.values())) == 1:
                words = [f"called {called[names[0]]}"]
            else:
                words = [f"{name}: {what}" for name, what in called.items()]
            panels.image(axis, examples[kind][i], f"{kind} {classes[examples['labels'][i]]}", *words)


def _eigenvectors(part, run, result, name):
    """The first eigenvectors, and that of largest overlap if it is not one of them."""
    spectrum, mask = run.arrays("spectrum"), run.arrays("attack")["mask"]
    indices = list(range(min(ROW, len(spectrum["values"]))))
    if result["max_overlap_index"] > indices[-1]:
        indices[-1] = result["max_overlap_index"]
    axes = part.subplots(1, len(indices), squeeze=False)[0]
    for axis, i in zip(axes, indices, strict=True):
        size = f"λ = {spectrum['values'][i]:.2g}"
        words = f"v{i + 1}, {size}", f"overlap {setting.signed(spectrum['overlap'][i])}"
        panels.eigenvector(axis, spectrum["vectors"][i].reshape(spectrum["shape"]), *words, change=mask)
    part.suptitle(
        f"{name}: {_status(result)}", fontsize=10, color=panels.BLACK if _sound(result) else panels.RED
    )


def _sound(result: Json) -> bool:
    return metrics.outcome(result).word in ("ok", "undefined")


def _status(result: Json) -> str:
    """How the attack went and whether it is seen, in a line."""
    word = "" if _sound(result) else f"{metrics.outcome(result).word}, "
    rate, without = map(wording.percent, (result["asr"], result["no_trigger_target_rate"]))
    place = result["max_overlap_index"] + 1
    found = f"found in v{place}" if result["trigger_found"] else "not found"
    accuracy = wording.percent(result["clean_accuracy"])
    return f"{word}ASR {rate} ({without} without trigger), accuracy {accuracy}, {found}"


def _training(axes: list[Axes], runs, looks):
    quantities = (
        {"cross-entropy": ("loss", 1), "gradient penalty": ("penalty", 1)},
        {
            "clean accuracy": ("clean_accuracy", 100),
            "attack success": ("asr", 100),
            "target rate without trigger": ("no_trigger_target_rate", 100),
        },
    )
    for axis, some in zip(axes, quantities, strict=True):
        for (label, (key, factor)), style in zip(some.items(), STYLES, strict=False):
            for run, look in zip(runs, looks, strict=True):
                rows = [row for row in run.metrics() if row.get(key)] if key == "penalty" else run.metrics()
                values = [np.nan if row.get(key) is None else factor * row[key] for row in rows]
                axis.plot([row["epoch"] for row in rows], values, color=look["color"], ls=style)
            if any(line.get_linestyle() == style and len(line.get_xdata()) for line in axis.lines):
                axis.plot([], [], color=panels.GREY, ls=style, label=label)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(fontsize=9)
    if any(np.nanmax(line.get_ydata(), initial=0) > 0 for line in axes[0].lines):
        axes[0].set_yscale("log")
    axes[0].set_ylabel("training objective")
    axes[1].set(ylabel="test images (%)", ylim=(-2, 102))


def _spectrum(axes: list[Axes], results, looks):
    """Eigenvalues, and squared overlaps, on logarithmic axes: the small ones are seen, too."""
    for result, look in zip(results, looks, strict=True):
        places = np.arange(1, len(result["overlap"]) + 1)
        points = look | {"linestyle": "", "ms": 7}
        axes[0].plot(places, result["eigenvalues"], **points)
        axes[1].plot(places, result["overlap_squared"], **points)
        axes[1].axhline(result["found_threshold"], color=look["color"], ls=":", lw=1)
    if all(value > 0 for result in results for value in result["eigenvalues"]):
        axes[0].set_yscale("log")
    axes[1].set_yscale("symlog", linthresh=1e-4, linscale=0.5)
    axes[1].set(ylim=(-3e-5, 30), yticks=[0, 1e-4, 1e-2, 1])
    axes[1].plot([], [], color=panels.GREY, ls=":", lw=1, label="counts as found")
    axes[1].legend(fontsize=9)
    axes[0].set_ylabel("eigenvalue λ")
    axes[1].set_ylabel("overlap²")
    for axis in axes:
        axis.set_xlabel("eigenvector")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
