"""Attack, accuracy and overlap over a key: the poison fraction (Figures 6, 7, 9, 13), kappa (11), any."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import canvas, curves, lag, setting, tables
from plots.curves import KAPPA, THETA
from plots.lag import UNIT, V1, Overlap
from plots.lines import Lines
from poison_jax.runs.records import Record

INSET = 0.4, 0.28  # width and height of the clean accuracy's, of its panel
AROUND = 0.07  # it, for its ticks and title
LEFT, RIGHT = 0.09, 0.97 - INSET[0]  # where it begins
BOTTOM, TOP = 0.1, 0.93 - INSET[1]


def with_overlap(
    records: list[Record], title: str, *, overlap: Overlap = V1, inset: str = "overlap", index: bool = False
) -> list[Figure | str]:
    """ASR at the left, overlap^2 at the right, clean accuracy in an inset; the lag below and as a table.

    Args:
        records: of trained networks.
        title: what the figure shows.
        overlap: which one.
        inset: panel of the clean accuracy, `asr` or `overlap`.
        index: a third panel, with the index of the eigenvector of largest overlap.
    """
    lines, null = _lines(records), lag.nulls(records, overlap)
    heights = [3.2, 1.6] if index else [4.2]
    heights.append(0.15 * (len(lines.series) + 4))  # inches for words
    figure = canvas.blank(12, sum(heights) + 1.1)
    names = [["asr", "overlap"], *[["asr", "index"]] * index, ["lag", "lag"]]
    axes = figure.subplot_mosaic(names, height_ratios=heights)
    lines.attack(axes["asr"])
    lines.draw(axes["overlap"], overlap.of, overlap.label)
    axes["overlap"].set_ylim(-0.02, 1.02)
    if index:
        lines.draw(axes["index"], _argmax, "its index (0: top)")
        best = max(len(record.result["overlap"]) for record in records) - 1
        axes["index"].set(ylim=(-0.2, best + 0.2), yticks=range(best + 1))
    for name in axes.keys() - {"lag"}:
        _theta_axis(axes[name], lines)
    if index:
        axes["overlap"].set_xlabel("")
    for level, style, label in (  # the overlaps without an attack
        (null.random, "--", "random directions,\n99.9 % quantile"),
        (null.clean, "-.", "clean networks,\nlargest"),
    ):
        if np.isfinite(level):
            drawn = axes["overlap"].axhline(level, color="tab:red", ls=style, lw=1, alpha=0.8)
            lines.legend.append((drawn, label))
    _inset(axes[inset], lines)
    says = tables.aligned(lag.HEADER, lag.rows(lag.lags(records, overlap, null)))
    says += "\n\n" + textwrap.fill(lag.explained(overlap, null), 150)
    axes["lag"].axis("off")
    options = {"va": "top", "fontsize": 7, "family": "monospace", "transform": axes["lag"].transAxes}
    axes["lag"].text(0, 1, says, **options).set_in_layout(False)
    lines.finish(figure, title)
    return [figure, lag.report(records, title, overlap)]


def with_accuracy(records: list[Record], title: str) -> list[Figure]:
    """ASR at the left, clean accuracy at the right."""
    lines = _lines(records)
    figure, (axes,) = canvas.subplots(1, 2, 12, 5)
    lines.attack(axes[0])
    lines.accuracy(axes[1])
    for axis in axes:
        _theta_axis(axis, lines)
    lines.finish(figure, title)
    return [figure]


def fig11(records: list[Record], title: str) -> list[Figure]:
    """Accuracy and ASR over kappa, on a logarithmic axis with 0 at its left end; a line for each theta."""
    kappas = np.unique([record.setting(KAPPA) for record in records])
    left = kappas[kappas > 0].min(initial=100) / 10  # of kappa = 0: at 10 in the paper, whose next is 100
    lines = Lines(records, KAPPA, lambda kappa: np.where(np.asarray(kappa) > 0, kappa, left), "plasma")
    figure, (axes,) = canvas.subplots(1, 2, 12, 5)
    lines.accuracy(axes[0])
    lines.attack(axes[1])
    for axis in axes:
        penalty = setting.penalty([record.result for record in records])
        axis.set(xscale="log", xlabel=f"{penalty}, 0 at the left end")
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
    figure, (axes,) = canvas.subplots(1, 3, 15, 4.8)
    lines.attack(axes[0])
    lines.accuracy(axes[1])
    lines.draw(axes[2], V1.of, V1.label)
    axes[2].set_ylim(-0.02, 1.02)
    for axis in axes:
        axis.set_xlabel(f"{x} ({curves.SYMBOLS[x]})" if x in curves.SYMBOLS else x)
        if numeric:
            lines.numbers(axis)
        else:
            axis.set_xticks(range(len(names)), names, rotation=0 if len(names) < 5 else 30)
    lines.finish(figure, f"{title}, over {x}")
    return [figure]


def _lines(records: list[Record]) -> Lines:
    return Lines(records, THETA, lambda theta: np.asarray(theta) / UNIT)


def _theta_axis(axis: Axes, lines: Lines) -> None:
    axis.set_xlabel("poison fraction θ (10⁻³)")
    lines.numbers(axis)


def _argmax(result):
    return int(np.argmax(np.array(result["overlap"], float) ** 2))


def _numeric(values: list) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _inset(axis: Axes, lines: Lines) -> None:
    """The clean accuracy where the panel is emptiest; where no corner is empty, above what is there."""
    axis.autoscale_view()  # places are those of the limits to come
    corners = [(RIGHT, BOTTOM), (RIGHT, TOP), (LEFT, TOP), (LEFT, BOTTOM)]  # the paper's first
    points = np.concatenate([_points(axis, line) for line in axis.lines])

    def covered(corner):
        low, high = np.array(corner) - AROUND, np.array(corner) + INSET + AROUND
        return int(((points > low) & (points < high)).all(1).sum())

    corner = min(corners, key=covered)
    if covered(corner):
        low, high = axis.get_ylim()
        ticks = [tick for tick in axis.get_yticks() if low <= tick <= high]
        corner = corner[0], TOP
        axis.set(ylim=(low, low + (high - low) / (TOP - AROUND)), yticks=ticks)
    inset = axis.inset_axes((*corner, *INSET))
    lines.draw(inset, curves.percent("clean_accuracy"), "", size=0.6)
    lines.numbers(inset)
    inset.set_title("clean accuracy (%)", fontsize=7, pad=2)
    inset.tick_params(labelsize=6, pad=1.5)


def _points(axis, line):
    """A line of data as many points, in fractions of the panel."""
    if line.get_transform() != axis.transData or not len(line.get_xdata()):
        return np.zeros((0, 2))
    places = axis.transAxes.inverted().transform(axis.transData.transform(line.get_xydata()))
    at = np.arange(len(places))
    fine = np.linspace(0, at[-1], 40 * len(at))
    return np.stack([np.interp(fine, at, coordinate) for coordinate in places.T], axis=1)
