"""Shared panels: pictures of images and eigenvectors, and curves over a key with one legend.

A line is a mean over the seeds, its band goes from the smallest to the largest. A run whose training
failed is a hollow marker and belongs to no line.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from plots import curves, setting
from plots.curves import Measure, Series
from poison_jax.runs.records import Record

WIDE = 30  # largest over smallest number above 0, from which on an axis is logarithmic
Place = Callable[[Any], np.ndarray]  # where on the axis values of the key belong
DOTTED = Line2D([], [], color="0.4", ls=":", lw=1.2), "target rate\nwithout trigger"  # of the legend


def colours(count: int, name: str = "viridis", end: float = 0.88) -> np.ndarray:
    """A colour for each line, from a sequential map without its palest end."""
    return matplotlib.colormaps[name](np.linspace(0, end, count))


# --- pictures -------------------------------------------------------------------------------------


def image(axis: Axes, picture: np.ndarray) -> None:
    """Shows `[H, W, C]` uint8: three channels are colours, of any other number the mean is shown in grey."""
    picture = picture if picture.shape[-1] == 3 else picture.mean(-1)
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255)


def trigger(axis: Axes, change: np.ndarray, *, stamp: bool = True) -> None:
    """Shows `[H, W]` or `[H, W, C]`: the mask of a stamp; of a warp or a blend the mean change."""
    change = np.abs(np.asarray(change, float))
    change = change if change.ndim == 2 else change.mean(-1)
    axis.axis("on")
    axis.imshow(change, cmap="gray_r", vmin=0, vmax=change.max() or 1)
    axis.set(xticks=[], yticks=[])
    label(axis, "trigger" if stamp else "mean change\nby the trigger")


def eigenvector(axis: Axes, vector: np.ndarray) -> None:
    """Shows `[H, W]` on its own scale around zero; colours are averaged before, they would hide the sign."""
    limit = np.abs(vector).max() or 1
    axis.imshow(vector, cmap="RdBu_r", vmin=-limit, vmax=limit)


def scale_bar(figure: Figure, **where: Any) -> None:
    """The colour bar that serves every eigenvector; `where` as `Figure.colorbar` takes it."""
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), "RdBu_r"), **where)
    bar.ax.tick_params(labelsize=8)
    bar.set_ticks([-1, 0, 1], labels=["-max", "0", "+max"])


def label(axis: Axes, *lines: str) -> None:
    """A panel's caption."""
    axis.set_title("\n".join(lines), fontsize=8)


def hide(axes: Iterable[Axes]) -> None:
    """Leaves panels empty until something is shown in them."""
    for axis in axes:
        axis.axis("off")


# --- curves ---------------------------------------------------------------------------------------


def draw(
    axis: Axes,
    lines: list[Series],
    palette: np.ndarray,
    x: str,
    measure: Measure,
    *,
    place: Place,
    size: float = 1.0,
) -> None:
    """Draws a measure over the key `x`.

    Args:
        axis: to draw on.
        lines: the series.
        palette: their colours.
        x: the key.
        measure: of a result.
        place: where on the axis values of the key belong.
        size: of lines and markers.
    """
    for line, colour in zip(lines, palette, strict=True):
        c = curves.curve(line.records, x, measure)
        where = place(c.x)
        axis.plot(where, c.mean, "o-", color=colour, ms=4 * size, lw=1.5 * size, label=line.label)
        axis.fill_between(where, c.low, c.high, color=colour, alpha=0.18, lw=0)
        if c.failed:
            hollow = {"ls": "", "marker": "o", "ms": 8 * size, "mfc": "none"}
            where, failed = place([x for x, _ in c.failed]), [value for _, value in c.failed]
            axis.plot(where, failed, color=colour, label=f"_failed {line.label}", **hollow)
    axis.grid(alpha=0.3)


def attack(axis: Axes, lines: list[Series], palette: np.ndarray, x: str, *, place: Place) -> None:
    """The attack success rate; dotted, what of it is there without the trigger."""
    draw(axis, lines, palette, x, curves.percent("asr"), place=place)
    for line, colour in zip(lines, palette, strict=True):
        c = curves.curve(line.records, x, curves.percent("no_trigger_target_rate"))
        dotted = {"ls": ":", "lw": 1.2, "alpha": 0.7, "label": f"_untriggered {line.label}"}
        axis.plot(place(c.x), c.mean, color=colour, **dotted)
    axis.set(ylabel="attack success rate (%)", ylim=(-2, 102))


def numbers(axis: Axes, places: np.ndarray) -> None:
    """An axis for these numbers: logarithmic from a certain range on, with room for a 0."""
    places = np.unique(places)
    positive = places[places > 0]
    if positive.size < places.size - (0 in places) or not positive.size or positive[-1] <= WIDE * positive[0]:
        return
    axis.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    axis.xaxis.set_major_locator(FixedLocator(places[:: -(-len(places) // 10)]))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(-0.3 * positive[0] if places[0] == 0 else 0.8 * positive[0], 1.2 * positive[-1])


def title(records: list[Record], x: str, heading: str, width: float = 10**6) -> str:
    """What is shown, how the attacks went, at which scale, over how many seeds; lines of `width` letters."""
    results = [record.result for record in records]
    scale = setting.common([setting.of_result(result) for result in results], width)
    trained = [record.result for record in records if curves.trained(record)]
    return f"{heading}\n{setting.outcomes(trained)}\n{scale}\n{_seeds(records, x)}"


def finish(
    figure: Figure,
    lines: list[Series],
    palette: np.ndarray,
    x: str,
    *,
    heading: str,
    legend: str = "",
    extra: Iterable[tuple[Artist, str]] = (),
) -> None:
    """The title, and one legend for all panels at the right.

    Args:
        figure: to finish.
        lines: all series.
        palette: their colours.
        x: the key that they are drawn over.
        heading: what the figure shows.
        legend: what sets the lines apart; if left out, kappa with its convention where that is it.
        extra: further entries of the legend.
    """
    records = [record for line in lines for record in line.records]
    figure.suptitle(title(records, x, heading, 12 * figure.get_figwidth()), fontsize=10)
    entries = [
        (Line2D([], [], color=colour, marker="o", ms=4), line.label)
        for line, colour in zip(lines, palette, strict=True)
    ]
    entries += extra
    if not all(map(curves.trained, records)):
        hollow = Line2D([], [], color="0.3", marker="o", ms=8, mfc="none", ls="")
        entries.append((hollow, "failed training\n(near chance)"))
    if not legend and "κ" in lines[0].label:
        legend = setting.penalty([record.result for record in records]).replace(" (", "\n(")
    handles, labels = zip(*entries, strict=True)
    options = {"fontsize": 8, "title_fontsize": 8, "labelspacing": 0.7}
    figure.legend(handles, labels, title=legend, loc="outside right center", **options)


def _seeds(records, x):
    """How many seeds a point stands for, and what its range is."""
    places = [(line.label, r.setting(x)) for line in curves.series(records, x) for r in line.records]
    counts = Counter(map(str, places)).values()
    low, high = min(counts), max(counts)
    if high == 1:
        return "one seed"
    return f"mean over {low if low == high else f'{low} to {high}'} seeds, range: smallest to largest"
