"""Figures over the poison fraction theta, a line for each kappa: Figures 6, 7, 9 and 13.

ASR, clean accuracy and overlap^2 with the trigger, from records alone. In the panel of the ASR a dotted
line is the rate at which images *without* the trigger are taken for the target: where it is as high as the
ASR, the network has collapsed and the attack has done nothing.
"""

import textwrap

import numpy as np
from matplotlib.figure import Figure

from plots import canvas, curves, lag, panels, tables
from plots.lag import THETA, UNIT, V1, Overlap
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
    lines, null = curves.series(records, THETA), lag.nulls(records, overlap)
    palette = panels.colours(len(lines))
    figure, axes = _mosaic(index, 0.15 * (len(lines) + 4))
    panels.attack(axes["asr"], lines, palette, THETA, place=_place)
    panels.draw(axes["overlap"], lines, palette, THETA, overlap.of, place=_place)
    axes["overlap"].set(ylabel=overlap.label, ylim=(-0.02, 1.02))
    if index:
        panels.draw(axes["index"], lines, palette, THETA, _argmax, place=_place)
        best = max(len(record.result["overlap"]) for record in records) - 1
        axes["index"].set(ylabel="its index (0: top)", ylim=(-0.2, best + 0.2), yticks=range(best + 1))
    for name in axes.keys() - {"lag"}:
        _theta_axis(axes[name], records)
    if index:
        axes["overlap"].set_xlabel("")
    extra = [panels.DOTTED, *_null_lines(axes["overlap"], null)]
    _inset(axes[inset], lines, palette)
    _words(axes["lag"], records, overlap, null)
    panels.finish(figure, lines, palette, THETA, heading=title, extra=extra)
    return [figure, lag.report(records, panels.title(records, THETA, title), overlap)]


def with_accuracy(records: list[Record], title: str) -> list[Figure]:
    """ASR at the left, clean accuracy at the right."""
    lines = curves.series(records, THETA)
    palette = panels.colours(len(lines))
    figure, ((left, right),) = canvas.subplots(1, 2, 12, 5)
    panels.attack(left, lines, palette, THETA, place=_place)
    panels.draw(right, lines, palette, THETA, curves.percent("clean_accuracy"), place=_place)
    right.set(ylabel="clean accuracy (%)")
    for axis in (left, right):
        _theta_axis(axis, records)
    panels.finish(figure, lines, palette, THETA, heading=title, extra=[panels.DOTTED])
    return [figure]


def _mosaic(index, text):
    """ASR, overlap, perhaps the index below it, and room of `text` inches for words."""
    heights = [3.2, 1.6, text] if index else [4.2, text]
    names = [["asr", "overlap"], *[["asr", "index"]] * index, ["lag", "lag"]]
    figure = canvas.blank(12, sum(heights) + 1.1)
    return figure, figure.subplot_mosaic(names, height_ratios=heights)


def _words(axis, records, overlap, null):
    """The lag, below the panels."""
    says = tables.aligned(lag.HEADER, lag.rows(lag.lags(records, overlap, null)))
    says += "\n\n" + textwrap.fill(lag.explained(overlap, null), 150)
    axis.axis("off")
    text = axis.text(0, 1, says, va="top", fontsize=7, family="monospace", transform=axis.transAxes)
    text.set_in_layout(False)


def _place(theta):
    return np.asarray(theta) / UNIT


def _theta_axis(axis, records):
    axis.set_xlabel("poison fraction θ (10⁻³)")
    panels.numbers(axis, _place([record.setting(THETA) for record in records]))


def _null_lines(axis, null):
    """The overlaps without an attack, as lines; what the legend says of them."""
    entries = []
    known = (
        (null.random, "--", "random directions,\n99.9 % quantile"),
        (null.clean, "-.", "clean networks,\nlargest"),
    )
    for level, style, label in known:
        if np.isfinite(level):
            entries.append((axis.axhline(level, color="tab:red", ls=style, lw=1, alpha=0.8), label))
    return entries


def _argmax(result):
    return int(np.argmax(np.array(result["overlap"], float) ** 2))


# --- the inset ------------------------------------------------------------------------------------


def _inset(axis, lines, palette):
    """The clean accuracy where the panel is emptiest; where no corner is empty, above what is there."""
    corner, covered = _emptiest(axis)
    if covered:
        low, high = axis.get_ylim()
        ticks = [tick for tick in axis.get_yticks() if low <= tick <= high]
        corner = corner[0], TOP
        axis.set(ylim=(low, low + (high - low) / (TOP - AROUND)), yticks=ticks)
    inset = axis.inset_axes((*corner, *INSET))
    panels.draw(inset, lines, palette, THETA, curves.percent("clean_accuracy"), place=_place, size=0.6)
    _theta_axis(inset, [record for line in lines for record in line.records])
    inset.set_xlabel("")
    inset.set_title("clean accuracy (%)", fontsize=7, pad=2)
    inset.tick_params(labelsize=6, pad=1.5)


def _emptiest(axis):
    """The corner for the inset, and how much of the lines it would cover there."""
    axis.autoscale_view()  # places are those of the limits to come
    corners = [(RIGHT, BOTTOM), (RIGHT, TOP), (LEFT, TOP), (LEFT, BOTTOM)]  # the paper's first
    points = np.concatenate([_points(axis, line) for line in axis.lines])

    def covered(corner):
        low, high = np.array(corner) - AROUND, np.array(corner) + INSET + AROUND
        return int(((points > low) & (points < high)).all(1).sum())

    best = min(corners, key=covered)
    return best, covered(best)


def _points(axis, line):
    """A line of data as many points, in fractions of the panel."""
    if line.get_transform() != axis.transData or not len(line.get_xdata()):
        return np.zeros((0, 2))
    places = axis.transAxes.inverted().transform(axis.transData.transform(line.get_xydata()))
    at = np.arange(len(places))
    fine = np.linspace(0, at[-1], 40 * len(at))
    return np.stack([np.interp(fine, at, coordinate) for coordinate in places.T], axis=1)
