"""The picture of one run, drawn from its directory: `python plots/run.py runs/<run> ...`."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from plots import command, foreign
from poison_jax.runs.store import Run

EXAMPLES = 3  # clean and triggered, beside the trigger


def draw(run: Run) -> list[Path]:
    """Trigger, examples, top eigenvectors, training curves -> `figure.png` in the run's directory."""
    result, examples, spectrum = run.result(), run.arrays("attack"), run.arrays("spectrum")
    k = len(spectrum["values"])
    columns = max(1 + 2 * EXAMPLES, k)
    figure = plt.figure(figsize=(1.75 * columns, 8.4), layout="constrained")
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1, 1.15, 1.5])
    _title(figure, result)
    _examples(top.subplots(1, columns), examples)
    _eigenvectors(middle.subplots(1, columns), spectrum, result)
    _curves(bottom.subplots(1, 3), run.metrics(), result)
    file = run.path / "figure.png"
    return command.write(figure, file, dpi=110)


def _title(figure, result):
    c = result["config"]
    found = "found" if result["trigger_found"] else "not found"
    setting = (
        foreign.literal(c["data"]["name"]),
        f"PreResNet-{c['model']['depth']}, {c['poison']['mode']} poison",
        f"θ = {c['poison']['fraction']:g}",
        f"κ = {c['penalty']['kappa']:g} ({c['penalty']['reduction']})",
        f"{c['train']['epochs']} epochs",
        f"seed {c['seed']}",
    )
    outcome = (
        f"clean accuracy {_percent(result['clean_accuracy'])}",
        f"attack success rate {_percent(result['asr'])}",
        f"trigger {found} in the top {len(result['overlap'])} eigenvectors of the input Hessian",
    )
    figure.suptitle(", ".join(setting) + "\n" + ", ".join(outcome), fontsize=12)


def _examples(axes, examples):
    for axis in axes:
        axis.axis("off")
    mask = np.abs(examples["mask"].astype(float))  # of a stamp; of a warp or a blend the mean change
    mask = mask if mask.ndim == 2 else mask.mean(-1)
    axes[0].axis("on")
    axes[0].imshow(mask, cmap="gray_r", vmin=0, vmax=mask.max() or 1)
    axes[0].set(title="trigger", xticks=[], yticks=[])
    names = examples["class_names"]
    for i in range(min(EXAMPLES, len(examples["labels"]))):
        for j, kind in enumerate(("clean", "triggered")):
            axis = axes[1 + 2 * i + j]
            foreign.image(axis, examples[kind][i])
            says = foreign.literal(names[examples[f"{kind}_prediction"][i]])
            truth = foreign.literal(names[examples["labels"][i]])
            axis.set_title(f"{kind}: {truth}\nclassified {says}", fontsize=8)


def _eigenvectors(axes, spectrum, result):
    for axis in axes:
        axis.axis("off")
    for i, (value, vector) in enumerate(zip(spectrum["values"], spectrum["vectors"], strict=True)):
        image = vector.reshape(spectrum["shape"]).mean(-1)  # colours would hide the sign
        limit = np.abs(image).max()
        axes[i].imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
        residual, overlap = result["residuals"][i], result["overlap"][i]
        axes[i].set_title(
            f"eigenvector {i + 1}\nλ = {value:.3g}, residual {residual:.0e}\noverlap {overlap:+.2f}",
            fontsize=8,
        )


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


def _percent(value):
    return "-" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    command.of_each_run(draw, __doc__)
