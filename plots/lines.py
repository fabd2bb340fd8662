"""Lines over a key of the config, a colour for each, with one legend for all panels of a figure.

A line is a mean over the seeds, its band goes from the smallest to the largest. A run whose training
failed is a hollow marker and belongs to no line.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from plots import curves, setting
from plots.panels import colours
from poison_jax.runs.records import Record

WIDE = 30  # largest over smallest number above 0, from which on an axis is logarithmic


class Lines:
    """The lines of a sweep's figure.

    Args:
        records: of trained networks.
        x: the key that they are drawn over.
        place: where on the axis values of the key belong.
        palette: a sequential colour map.
    """

    def __init__(
        self,
        records: list[Record],
        x: str,
        place: Callable[[Any], np.ndarray] = np.asarray,
        palette: str = "viridis",
    ):
        self.records, self.x, self.place = records, x, place
        self.series = curves.series(records, x)
        self.palette = colours(len(self.series), palette)
        self.legend: list[tuple[Any, str]] = []  # entries besides the lines': artist, words

    def draw(self, axis: Axes, measure: curves.Measure, name: str, *, size: float = 1.0) -> None:
        """Draws a measure of results, whose name is the axis's, with lines and markers of a size."""
        for line, colour in zip(self.series, self.palette, strict=True):
            c = curves.curve(line.records, self.x, measure)
            x = self.place(c.x)
            axis.plot(x, c.mean, "o-", color=colour, ms=4 * size, lw=1.5 * size, label=line.label)
            axis.fill_between(x, c.low, c.high, color=colour, alpha=0.18, lw=0)
            if c.failed:
                places, failed = zip(*c.failed, strict=True)
                hollow = {"ls": "", "marker": "o", "ms": 8 * size, "mfc": "none"}
                label = f"_failed {line.label}"
                axis.plot(self.place(places), failed, color=colour, label=label, **hollow)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)

    def accuracy(self, axis: Axes) -> None:
        """The clean accuracy."""
        self.draw(axis, curves.percent("clean_accuracy"), "clean accuracy (%)")

    def attack(self, axis: Axes) -> None:
        """The attack success rate; dotted, what of it is there without the trigger.

        Where that is as high, the network has collapsed and the attack has done nothing.
        """
        self.draw(axis, curves.percent("asr"), "attack success rate (%)")
        for line, colour in zip(self.series, self.palette, strict=True):
            c = curves.curve(line.records, self.x, curves.percent("no_trigger_target_rate"))
            dotted = {"ls": ":", "lw": 1.2, "alpha": 0.7, "label": f"_untriggered {line.label}"}
            axis.plot(self.place(c.x), c.mean, color=colour, **dotted)
        axis.set_ylim(-2, 102)
        dotted = Line2D([], [], color="0.4", ls=":", lw=1.2)
        self.legend.append((dotted, "target rate\nwithout trigger"))

    def numbers(self, axis: Axes) -> None:
        """An axis for the key's numbers: logarithmic from a certain range on, with room for a 0."""
        places = np.unique(self.place([record.setting(self.x) for record in self.records]))
        positive = places[places > 0]
        none = positive.size < places.size - (0 in places) or not positive.size
        if none or positive[-1] <= WIDE * positive[0]:
            return
        axis.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        axis.xaxis.set_major_locator(FixedLocator(places[:: -(-len(places) // 10)]))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlim(-0.3 * positive[0] if places[0] == 0 else 0.8 * positive[0], 1.2 * positive[-1])

    def finish(self, figure: Figure, heading: str, legend: str = "") -> None:
        """The title, and one legend for all panels at the right.

        Args:
            figure: to finish.
            heading: what it shows.
            legend: what sets the lines apart; if left out, kappa with its convention where that is it.
        """
        title = setting.of_sweep(self.records, self.x, heading, 12 * figure.get_figwidth())
        figure.suptitle(title, fontsize=10)
        entries = [
            (Line2D([], [], color=colour, marker="o", ms=4), line.label)
            for line, colour in zip(self.series, self.palette, strict=True)
        ]
        entries += self.legend
        if not all(map(curves.trained, self.records)):
            hollow = Line2D([], [], color="0.3", marker="o", ms=8, mfc="none", ls="")
            entries.append((hollow, "failed training\n(near chance)"))
        if not legend and "κ" in self.series[0].label:
            legend = setting.penalty([record.result for record in self.records]).replace(" (", "\n(")
        handles, labels = zip(*entries, strict=True)
        options = {"fontsize": 8, "title_fontsize": 8, "labelspacing": 0.7}
        figure.legend(handles, labels, title=legend, loc="outside right center", **options)
