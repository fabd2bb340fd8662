"""What the figures over a key of the config share: panels, a title that names the scale, one legend.

A line is a mean over the seeds, its band goes from the smallest to the largest. A run whose training
failed is a hollow marker and belongs to no line.
"""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np

from plots import curves, setting
from plots.curves import Measure, Series
from poison_jax.runs.records import Record

Place = Callable[[np.ndarray], np.ndarray]  # where on the axis a value of the key belongs
DOTTED = plt.Line2D([], [], color="0.4", ls=":", lw=1.2), "target rate\nwithout trigger"  # of the legend


def colours(count: int, name: str = "viridis") -> np.ndarray:
    """A colour for each line, from a sequential map without its palest end."""
    return plt.get_cmap(name)(np.linspace(0, 0.88, count))


def draw(
    axis: plt.Axes,
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
        place: where on the axis a value of the key belongs.
        size: of lines and markers.
    """
    for line, colour in zip(lines, palette, strict=True):
        c = curves.curve(line.records, x, measure)
        where = place(c.x)
        axis.plot(where, c.mean, "o-", color=colour, ms=4 * size, lw=1.5 * size, label=line.label)
        axis.fill_between(where, c.low, c.high, color=colour, alpha=0.18, lw=0)
        if len(c.failed):
            hollow = {
                "ls": "",
                "marker": "o",
                "ms": 8 * size,
                "mfc": "none",
                "label": f"_failed {line.label}",
            }
            axis.plot(place(c.failed[:, 0]), c.failed[:, 1], color=colour, **hollow)
    axis.grid(alpha=0.3)


def attack(axis: plt.Axes, lines: list[Series], palette: np.ndarray, x: str, *, place: Place) -> None:
    """The attack success rate; dotted, what of it is there without the trigger."""
    draw(axis, lines, palette, x, curves.percent("asr"), place=place)
    for line, colour in zip(lines, palette, strict=True):
        c = curves.curve(line.records, x, curves.percent("no_trigger_target_rate"))
        dotted = {"ls": ":", "lw": 1.2, "alpha": 0.7, "label": f"_untriggered {line.label}"}
        axis.plot(place(c.x), c.mean, color=colour, **dotted)
    axis.set(ylabel="attack success rate (%)", ylim=(-2, 102))


def title(records: list[Record], x: str, heading: str, width: int = 10**6) -> str:
    """What is shown, at which scale, over how many seeds; in lines of `width` letters."""
    scale = setting.common([record.result for record in records], width)
    return f"{heading}\n{scale}\n{_seeds(records, x)}"


def finish(
    figure: plt.Figure,
    lines: list[Series],
    palette: np.ndarray,
    x: str,
    *,
    heading: str,
    legend: str,
    extra: list[tuple[plt.Artist, str]],
) -> None:
    """The title, and one legend for all panels at the right.

    Args:
        figure: to finish.
        lines: all series.
        palette: their colours.
        x: the key that they are drawn over.
        heading: what the figure shows.
        legend: what sets the lines apart.
        extra: further entries of the legend.
    """
    records = [record for line in lines for record in line.records]
    figure.suptitle(title(records, x, heading, int(12 * figure.get_figwidth())), fontsize=10)
    entries = [
        (plt.Line2D([], [], color=colour, marker="o", ms=4), line.label)
        for line, colour in zip(lines, palette, strict=True)
    ]
    entries += extra
    if not all(map(curves.trained, records)):
        hollow = plt.Line2D([], [], color="0.3", marker="o", ms=8, mfc="none", ls="")
        entries.append((hollow, "failed training\n(near chance)"))
    handles, labels = zip(*entries, strict=True)
    options = {"fontsize": 8, "title_fontsize": 8, "labelspacing": 0.7}
    figure.legend(handles, labels, title=legend, loc="outside right center", **options)


def _seeds(records, x):
    """How many seeds a point stands for, and what its range is."""
    counts: dict[tuple, int] = {}
    for line in curves.series(records, x):
        for record in line.records:
            place = line.label, record.setting(x)
            counts[place] = counts.get(place, 0) + 1
    low, high = min(counts.values()), max(counts.values())
    if high == 1:
        return "one seed"
    return f"mean over {low if low == high else f'{low} to {high}'} seeds, range: smallest to largest"
