"""Attack, accuracy and overlap over a key: the poison fraction (Figures 6, 7, 9, 13), kappa (11), any."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from plots import canvas, curves, lag, panels, setting
from plots.canvas import WIDTH
from plots.curves import KAPPA, THETA
from plots.lag import UNIT, V1, Overlap
from plots.lines import Lines
from poison_jax import wording
from poison_jax.runs.records import Record


def with_overlap(
    records: list[Record], title: str, *, overlap: Overlap = V1, index: bool = False
) -> list[Figure | str]:
    """ASR, overlap^2 on a logarithmic axis, clean accuracy; a table of the thresholds in theta.

    Args:
        records: of trained networks.
        title: what the figure shows.
        overlap: which one.
        index: a fourth panel, with the index of the eigenvector of largest overlap.
    """
    lines, null = _lines(records), lag.nulls(records, overlap)
    figure, axes = canvas.subplots(2, 2, WIDTH, 6.6 if index else 5.6)
    attack, seen, accuracy, last = axes.flat
    lines.attack(attack)
    _overlap(seen, lines, overlap, null)
    lines.accuracy(accuracy)
    if index:
        lines.draw(last, _argmax, "its index (0: top)")
        best = max(len(record.result["overlap"]) for record in records) - 1
        last.set(ylim=(-0.2, best + 0.2), yticks=range(best + 1))
    for axis in axes.flat[: 3 + index]:
        _theta_axis(axis, lines)
    for level, style, label in (  # the overlaps without an attack
        (null.random, "--", "random directions, 99.9 %"),
        (null.clean, "-.", "clean networks, largest"),
    ):
        if np.isfinite(level):
            drawn = seen.axhline(level, color=panels.GREY, ls=style, lw=1.2)
            lines.legend.append((drawn, label))
    lines.finish(figure, title, where=None if index else last)
    return [figure, lag.table(records, title, overlap)]


def with_accuracy(records: list[Record], title: str) -> list[Figure]:
    """ASR at the left, clean accuracy at the right."""
    lines = _lines(records)
    figure, (axes,) = canvas.subplots(1, 2, WIDTH, 3.8)
    lines.attack(axes[0])
    lines.accuracy(axes[1])
    for axis in axes:
        _theta_axis(axis, lines)
    lines.finish(figure, title)
    return [figure]


def fig11(records: list[Record], title: str) -> list[Figure]:
    """Accuracy, and the ASR above the rate without a trigger, over kappa; a line for each theta.

    The axis is logarithmic, with 0 at its left end.
    """
    kappas = np.unique([record.setting(KAPPA) for record in records])
    left = kappas[kappas > 0].min(initial=100) / 10  # of kappa = 0: at 10 in the paper, whose next is 100
    lines = Lines(records, KAPPA, lambda kappa: np.where(np.asarray(kappa) > 0, kappa, left))
    figure, (axes,) = canvas.subplots(1, 2, WIDTH, 3.8)
    lines.accuracy(axes[0])
    lines.draw(axes[1], _excess, "ASR − rate without trigger (points)")
    axes[1].axhline(0, color=panels.GREY, lw=0.8)
    for axis in axes:
        penalty = setting.penalty([record.result for record in records])
        axis.set(xscale="log", xlabel=penalty)
        axis.set_xticks(lines.place(kappas), [f"{kappa:g}" for kappa in kappas])
        axis.minorticks_off()
    lines.finish(figure, title, "poison fraction θ")
    return [figure]


def of_sweep(records: list[Record], title: str) -> list[Figure | str]:
    """ASR, clean accuracy and overlap^2 of the top eigenvector over the key that varies most.

    That is theta where it varies, else the number with the most values, else any other key, else the seed;
    there is a line for each combination of the others.
    """
    varied = {key: [value for (value,), _ in curves.by(records, key)] for key in curves.varied(records)}
    seeds = [seed for (seed,), _ in curves.by(records, "seed")]
    if THETA in varied or (not varied and len(seeds) < 2):
        return with_overlap(records, title)
    varied = varied or {"seed": seeds}
    x = max(varied, key=lambda key: (_numeric(varied[key]), len(varied[key])))
    numeric = _numeric(varied[x]) and not any(isinstance(value, bool) for value in varied[x])
    names = [str(value) for value in varied[x]]

    def place(some):
        return np.asarray(some) if numeric else np.array([names.index(str(value)) for value in some])

    lines = Lines(records, x, place)
    figure, axes = canvas.subplots(2, 2, WIDTH, 5.6)
    lines.attack(axes[0, 0])
    _overlap(axes[0, 1], lines, V1, lag.nulls(records, V1))
    lines.accuracy(axes[1, 0])
    for axis in axes.flat[:3]:
        axis.set_xlabel(f"{x} ({curves.SYMBOLS[x]})" if x in curves.SYMBOLS else x)
        if numeric:
            lines.numbers(axis)
        else:
            axis.set_xticks(range(len(names)), names, rotation=0 if len(names) < 5 else 30)
    lines.finish(figure, f"{title}, over {x}", where=axes[1, 1])
    return [figure]


def _lines(records: list[Record]) -> Lines:
    return Lines(records, THETA, lambda theta: np.asarray(theta) / UNIT)


def _theta_axis(axis: Axes, lines: Lines) -> None:
    axis.set_xlabel("poison fraction θ (10⁻³)")
    lines.numbers(axis, wide=1)


def _overlap(axis: Axes, lines: Lines, overlap: Overlap, null: lag.Nulls) -> None:
    """Overlap^2, logarithmic above the decade of what random directions have, linear below it."""
    lines.draw(axis, overlap.of, overlap.label)
    decade = int(np.floor(np.log10(null.random)))
    ticks = [0.0, *10.0 ** np.arange(decade, 1)]
    axis.set_yscale("symlog", linthresh=10.0**decade, linscale=0.6)
    axis.set_ylim(-0.1 * 10.0**decade, 1.1)
    axis.yaxis.set_major_locator(FixedLocator(sorted([*ticks, *[0.2, 0.5] * (decade > -2)])))
    axis.yaxis.set_minor_locator(NullLocator())


def _excess(result):
    above = wording.excess(result)
    return None if above is None else 100 * above


def _argmax(result):
    return int(np.argmax(np.array(result["overlap"], float) ** 2))


def _numeric(values: list) -> bool:
    return all(isinstance(value, int | float) for value in values)
