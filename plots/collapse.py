"""The law of collapse: how far triggered features have gone to the target's, over the decay time.

Decay time is T = sum_t lr_t * weight_decay. If it governs the collapse, networks trained for different
numbers of epochs lie on one curve over it, and epochs have the exponent 0 in a power law of both.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from plots import canvas, curves, panels, setting, tables
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

    A point is the mean over the seeds, its bar goes from the smallest to the largest. A table has the power
    laws.

    Raises:
        UserError: no network has a decay time.
    """
    records = decayed(records)
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
    results = [record.result for record in records]
    bars = "Points: means over the seeds, bars: smallest to largest; medians: over the classes but the target"
    canvas.describe(figure, title, setting.outcomes(results), setting.scale(results), bars)
    return [figure, law(records, title)]


def decayed(records: list[Record]) -> list[Record]:
    """The trained networks whose weights decayed.

    Raises:
        UserError: there is none.
    """
    found = [record for record in records if curves.trained(record) and record.result.get("decay_time")]
    if not found:
        raise UserError("no network of this sweep has a decay time above 0: choose another figure")
    return found


def law(records: list[Record], title: str) -> str:
    """A table of the power laws `measure ~ T^a epochs^b`, by least squares over the networks' logarithms."""
    rows = []
    for name, of in MEASURES.items():
        found = [
            (of(record), record.result["decay_time"], record.setting("train.epochs"))
            for record in decayed(records)
        ]
        logs = np.log(np.array([values for values in found if values[0] > 0], float).reshape(-1, 3))
        if (
            len(logs) > 4
            and np.ptp(logs[:, 0]) > 0
            and np.linalg.matrix_rank(np.insert(logs[:, 1:], 0, 1, axis=1)) == 3
        ):
            (_, *exponents), errors, both = _least_squares(logs[:, 1:], logs[:, 0])
            alone = _least_squares(logs[:, 1:2], logs[:, 0])[2]
            ends = stats.t.ppf(0.975, len(logs) - 3) * errors[1:]
            shown = [
                "{} [{}, {}]".format(*map(setting.signed, (x, x - end, x + end)))
                for x, end in zip(exponents, ends, strict=True)
            ]
            rows.append([name, *shown, f"{alone:.2f}", f"{both:.2f}", str(len(logs))])
    header = ["", "exponent of T", "of epochs at equal T", "R² of T alone", "of both", "networks"]
    note = "Power laws fitted to the networks' logarithms; in brackets 95 % intervals of least squares."
    return f"**{title}**\n\n{tables.table(header, rows)}\n\n{note}\n"


def _least_squares(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Coefficients (the intercept first), their standard errors, and the share of the variance explained."""
    design = np.insert(x, 0, 1, axis=1)
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ y
    residual = np.sum((y - design @ coefficients) ** 2)
    errors = np.sqrt(np.diag(inverse) * residual / (len(y) - design.shape[1]))
    return coefficients, errors, float(1 - residual / np.sum((y - y.mean()) ** 2))
