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
    "d*/d (median)": lambda record: median_ratio(record, "distance_ratio"),
    "σ*/σ (median)": lambda record: median_ratio(record, "std_ratio"),
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
    groups = curves.by(records, "train.epochs", "train.weight_decay")
    epochs = sorted({epochs for (epochs, _), _ in groups})
    looks = dict(zip(epochs, panels.looks(len(epochs)), strict=True))
    shown = [name for name, of in MEASURES.items() if np.isfinite([of(record) for record in records]).any()]
    figure, axes = canvas.subplots(-(-max(len(shown), 1) // 2), 2, canvas.WIDTH, 5.6)
    panels.hide(axes.flat[len(shown) :])
    for axis, name in zip(axes.flat, shown, strict=False):
        measure = MEASURES[name]
        for count in epochs:
            points = []
            for _, group in groups:
                values = np.array([measure(record) for record in group])
                if group[0].setting("train.epochs") == count and np.isfinite(values).any():
                    time = group[0].result["decay_time"]
                    points.append((time, np.nanmean(values), np.nanmin(values), np.nanmax(values)))
            if points:
                x, mean, low, high = map(np.array, zip(*sorted(points), strict=True))
                bars = np.abs(np.stack([mean - low, high - mean]))
                panels.points(axis, x, mean, bars, label=f"{count} epochs", **looks[count])
        axis.set(xscale="log", xlabel="decay time T", ylabel=name, ylim=(0, None))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    scale = setting.common([setting.of_result(record.result) for record in records])
    bars = "Points: means over the seeds, bars: smallest to largest; medians: over the classes but the target"
    canvas.describe(figure, title, setting.outcomes([record.result for record in records]), scale, bars)
    return [figure]
