"""Figures 8 and 12: the top eigenvector of each cell of a sweep, beside the trigger."""

import matplotlib.pyplot as plt
import numpy as np

from plots import curves, eigenvectors, setting
from poison_jax.runs.records import Record

WIDE = 6  # panels in a row, of one block
NARROW = 3  # of several


def of_blocks(blocks: dict[str, list[Record]], heading: str) -> plt.Figure:
    """Blocks side by side, each a trigger and the cells' eigenvectors by theta and kappa.

    Colours are averaged, every panel is on its own scale around zero. Of several seeds the first is shown.

    Args:
        blocks: title -> records of trained networks.
        heading: what the figure shows.
    """
    blocks = {title: _first_seeds(records) for title, records in blocks.items() if records}
    columns = {
        title: min(1 + len(shown), NARROW if len(blocks) > 1 else WIDE) for title, shown in blocks.items()
    }
    rows = max(-(-(1 + len(shown)) // columns[title]) for title, shown in blocks.items())
    size = 2.05 * sum(columns.values()) + 0.9, 2.75 * rows + 1.4
    figure = plt.figure(figsize=(max(size[0], 8), size[1]), layout="constrained")
    *parts, last = figure.subfigures(1, len(blocks) + 1, width_ratios=[*columns.values(), 0.4])
    for part, (title, shown) in zip(parts, blocks.items(), strict=True):
        if title:
            part.suptitle(title, fontsize=10)
        _fill(part.subplots(rows, columns[title], squeeze=False), shown)
    eigenvectors.scale_bar(last, cax=last.add_axes((0.1, 0.25, 0.2, 0.5)))
    everything = [record for shown in blocks.values() for record in shown]
    scale = setting.common([record.result for record in everything], int(12 * figure.get_figwidth()))
    figure.suptitle(f"{heading}\n{scale}\neach on a colour scale of its own around zero", fontsize=10)
    return figure


def _first_seeds(records):
    """The records by theta and kappa; of those that differ in the seed alone, the smallest."""

    def place(record):
        return record.setting("poison.fraction"), record.setting("penalty.kappa")

    first: dict[tuple, Record] = {}
    for record in sorted(records, key=lambda record: (*place(record), record.setting("seed"))):
        others = {key: value for key, value in record.overrides.items() if key != "seed"}
        first.setdefault((place(record), str(sorted(others.items()))), record)
    return list(first.values())


def _fill(axes, records):
    for axis in axes.flat:
        axis.axis("off")
    trigger = records[0].arrays["trigger"]
    axes[0, 0].axis("on")
    axes[0, 0].imshow(trigger, cmap="gray_r", vmin=0, vmax=trigger.max() or 1)
    axes[0, 0].set(xticks=[], yticks=[])
    stamped = records[0].setting("poison.trigger") in ("l", "square", "mask")
    eigenvectors.label(axes[0, 0], "trigger" if stamped else "mean change\nby the trigger")
    for axis, record in zip(axes.flat[1:], records, strict=False):
        result = record.result
        theta, kappa = record.setting("poison.fraction"), record.setting("penalty.kappa")
        attack = f"ASR {_percent(result['asr'])}" if curves.trained(record) else "failed training"
        eigenvectors.label(
            axis,
            f"θ = {1e3 * theta:g}·10⁻³, κ = {kappa:g}",
            f"λ₁ = {result['eigenvalues'][0]:.2g}, residual {result['residuals'][0]:.0e}",
            f"overlap {result['overlap'][0]:+.2f}, {attack}",
        )
        if not curves.trained(record):
            axis.title.set_color("tab:red")
        eigenvectors.show(axis, np.asarray(record.arrays["top_eigenvector"]))


def _percent(value):
    return "–" if value is None else f"{value:.1%}"
