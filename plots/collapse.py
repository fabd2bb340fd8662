"""The law of collapse: how far triggered features have gone to the target's, over the decay time.

Decay time is T = sum_t lr_t * weight_decay. If it governs the collapse, networks trained for different
numbers of epochs lie on one curve over it.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from plots import canvas, curves, panels, setting
from poison_jax.errors import UserError
from poison_jax.runs.records import Record


def median_ratio(record: Record, column: str) -> float:
    """A ratio of Table 3, median over the classes but the target; NaN where it was not measured."""
    values = record.arrays.get(column)
    return float("nan") if values is None else float(np.median(np.delete(values, record.arrays["target"])))


MEASURES: dict[str, Callable[[Record], float]] = {
    "d*/d, median over the classes": lambda record: median_ratio(record, "distance_ratio"),
    "σ*/σ, median over the classes": lambda record: median_ratio(record, "std_ratio"),
    "r/ℓ to the nearest poison": lambda record: record.result.get("near_clone_r_over_l") or np.nan,
    "NC1 of training images": lambda record: record.result.get("nc1") or np.nan,
}


def of_sweep(records: list[Record], title: str) -> list[Figure | str]:
    """A panel for each measure, over T; a colour for each number of epochs, a point for each setting.

    A point is the mean over the seeds, its bar goes from the smallest to the largest.

    Raises:
        UserError: no network has a decay time.
    """
    records = [record for record in records if curves.trained(record) and record.result.get("decay_time")]
    if not records:
        raise UserError("no network of this sweep has a decay time above 0: choose another figure")
    groups = curves.by(records, ("train.epochs", "train.weight_decay"))
    epochs = sorted({epochs for epochs, _ in groups})
    palette = dict(zip(epochs, panels.colours(len(epochs)), strict=True))
    figure, (axes,) = canvas.subplots(1, len(MEASURES), 16, 4.4)
    for axis, (name, measure) in zip(axes, MEASURES.items(), strict=True):
        for count in epochs:
            points = []
            for (_, decay), group in sorted(groups.items()):
                values = np.array([measure(record) for record in group])
                if group[0].setting("train.epochs") == count and np.isfinite(values).any():
                    time = group[0].result["decay_time"]
                    points.append((time, np.nanmean(values), np.nanmin(values), np.nanmax(values), decay))
            if points:
                x, mean, low, high, _ = map(np.array, zip(*sorted(points), strict=True))
                bars = np.abs(np.stack([mean - low, high - mean]))
                axis.errorbar(
                    x, mean, bars, color=palette[count], marker="o", ms=4, lw=1, label=f"{count} epochs"
                )
        axis.set(xscale="log", xlabel="decay time T", ylabel=name, ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    scale = setting.common([setting.of_result(record.result) for record in records], 170)
    figure.suptitle(f"{title}\n{scale}", fontsize=11)
    return [figure]
