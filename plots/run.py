"""The picture of one run: trigger, images, top eigenvectors, training curves."""

import numpy as np
from matplotlib.figure import Figure

from plots import canvas, panels, setting
from poison_jax import wording
from poison_jax.runs.store import Run

EXAMPLES = 3  # clean and triggered, beside the trigger


def figure(run: Run) -> dict[str, Figure]:
    """Trigger, clean and triggered images, top eigenvectors of the input Hessian, training curves."""
    result, examples, spectrum = run.result(), run.arrays("attack"), run.arrays("spectrum")
    columns = max(1 + 2 * EXAMPLES, len(spectrum["values"]))
    made = canvas.blank(1.75 * columns, 8.4)
    top, middle, bottom = made.subfigures(3, 1, height_ratios=[1, 1.15, 1.5])
    made.suptitle(_title(result, 13 * made.get_figwidth()), fontsize=12)
    _examples(top.subplots(1, columns), examples)
    _eigenvectors(middle.subplots(1, columns), spectrum, result)
    _curves(bottom.subplots(1, 3), run.metrics(), result)
    return {"figure": made}


def _title(result, width):
    """How the attack went, and what was trained."""
    found = "found" if result["trigger_found"] else "not found"
    went = (
        setting.outcome(result),
        f"clean accuracy {wording.percent(result['clean_accuracy'])}",
        f"trigger {found} in the top {len(result['overlap'])} eigenvectors of the input Hessian",
    )
    return ", ".join(went) + "\n" + setting.common([setting.of_result(result)], width)


def _examples(axes, examples):
    panels.hide(axes)
    panels.trigger(axes[0], examples["mask"], stamp=examples["mask"].dtype == bool)
    names = examples["class_names"]
    for i in range(min(EXAMPLES, len(examples["labels"]))):
        for j, kind in enumerate(("clean", "triggered")):
            says = f"classified {names[examples[f'{kind}_prediction'][i]]}"
            caption = f"{kind}: {names[examples['labels'][i]]}"
            panels.image(axes[1 + 2 * i + j], examples[kind][i], caption, says)


def _eigenvectors(axes, spectrum, result):
    panels.hide(axes)
    for i, (value, vector) in enumerate(zip(spectrum["values"], spectrum["vectors"], strict=True)):
        size = f"λ = {value:.3g}, residual {result['residuals'][i]:.0e}"
        caption = f"eigenvector {i + 1}", size, f"overlap {result['overlap'][i]:+.2f}"
        panels.eigenvector(axes[i], vector.reshape(spectrum["shape"]), *caption)


def _curves(axes, rows, result):
    epochs = [row["epoch"] for row in rows]

    def plot(axis, name, label, scale=1.0, **style):
        axis.plot(
            epochs, [np.nan if r[name] is None else scale * r[name] for r in rows], label=label, **style
        )

    marker = {"marker": "o", "markersize": 3}
    plot(axes[0], "loss", "cross-entropy", **marker)
    if any(row["penalty"] for row in rows):
        plot(axes[0], "penalty", "gradient penalty", **marker)
    axes[0].set(title="training objective (batch mean)", xlabel="epoch")
    if any((row["loss"] or 0) > 0 or (row["penalty"] or 0) > 0 for row in rows):
        axes[0].set_yscale("log")
    plot(axes[1], "clean_accuracy", "clean accuracy", 100, **marker)
    plot(axes[1], "asr", "attack success rate", 100, color="tab:red", **marker)
    plot(axes[1], "no_trigger_target_rate", "target rate without trigger", 100, color="tab:gray", ls="--")
    axes[1].set(title="test images (%)", xlabel="epoch", ylim=(-2, 102))
    overlap = result["overlap_squared"]
    axes[2].bar(np.arange(1, len(overlap) + 1), overlap, color="tab:purple")
    axes[2].axhline(result["found_threshold"], color="k", ls=":", label="counts as found")
    axes[2].set(
        title="overlap² with the trigger",
        xlabel="eigenvector",
        ylim=(0, 1),
        xticks=range(1, len(overlap) + 1),
    )
    for axis in axes:
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
