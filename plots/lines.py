"""Lines over a key of the config, each with a colour and a marker, with one legend for a figure's panels.

A line is a mean over the seeds, its band goes from the smallest to the largest; of one seed there are markers
alone. A run whose training failed is a hollow marker and belongs to no line.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from plots import canvas, curves, panels, setting
from poison_jax.runs.records import Record

WIDE = 30  # largest over smallest number above 0, from which on an axis is logarithmic


class Lines:
    """The lines of a sweep's figure.

    Args:
        records: of trained networks.
        x: the key that they are drawn over.
        place: where on the axis values of the key belong.
    """

    def __init__(self, records: list[Record], x: str, place: Callable[[Any], np.ndarray] = np.asarray):
        self.records, self.x, self.place = records, x, place
        self.series = curves.series(records, x)
        single = {"linestyle": ""} if curves.most_seeds(records, x) == 1 else {}
        self.looks = [look | single for look in panels.looks(len(self.series))]
        self.single = bool(single)
        self.legend: list[tuple[Any, str]] = []  # entries besides the lines': artist, words

    def draw(self, axis: Axes, measure: curves.Measure, name: str) -> None:
        """Draws a measure of results, whose name is the axis's."""
        for line, look in zip(self.series, self.looks, strict=True):
            c = curves.curve(line.records, self.x, measure)
            x = self.place(c.x)
            axis.plot(x, c.mean, label=line.label, **look)
            axis.fill_between(x, c.low, c.high, color=look["color"], alpha=0.15, lw=0)
            if c.failed:
                places, failed = zip(*c.failed, strict=True)
                hollow = look | {"linestyle": "", "ms": 9, "mfc": "none"}
                axis.plot(self.place(places), failed, label=f"_failed {line.label}", **hollow)
        axis.set_ylabel(name)

    def accuracy(self, axis: Axes) -> None:
        """The clean accuracy."""
        self.draw(axis, curves.percent("clean_accuracy"), "clean accuracy (%)")

    def attack(self, axis: Axes) -> None:
        """The attack success rate; dotted, what of it is there without the trigger.

        Where that is as high, the network has collapsed and the attack has done nothing.
        """
        self.draw(axis, curves.percent("asr"), "attack success rate (%)")
        style = {"linestyle": "", "marker": "_", "ms": 9} if self.single else {"linestyle": ":", "marker": ""}
        for line, look in zip(self.series, self.looks, strict=True):
            c = curves.curve(line.records, self.x, curves.percent("no_trigger_target_rate"))
            axis.plot(self.place(c.x), c.mean, label=f"_untriggered {line.label}", **look | style)
        axis.set_ylim(-2, 102)
        self.legend.append((Line2D([], [], color=panels.GREY, **style), "target rate without trigger"))

    def numbers(self, axis: Axes, wide: float = WIDE) -> None:
        """An axis for the key's numbers: logarithmic beyond a range, with room for a 0.

        Args:
            axis: to draw on.
            wide: the range, largest number over smallest one above 0.
        """
        places = np.unique(self.place([record.setting(self.x) for record in self.records]))
        positive = places[places > 0]
        none = positive.size < places.size - (0 in places) or not positive.size
        if none or positive[-1] <= wide * positive[0]:
            return
        axis.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        axis.xaxis.set_major_locator(FixedLocator(places[:: -(-len(places) // 8)]))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlim(-0.3 * positive[0] if places[0] == 0 else 0.8 * positive[0], 1.2 * positive[-1])

    def finish(
        self,
        figure: Figure,
        heading: str,
        legend: str = "",
        *,
        where: Axes | None = None,
        spread: str = "bands",
    ) -> None:
        """The caption, and one legend for all panels: in an empty one if there is one, else below.

        Args:
            figure: to finish.
            heading: what it shows.
            legend: what sets the lines apart; if left out, kappa with its convention where that is it.
            where: an empty panel.
            spread: see `setting.of_sweep`.
        """
        canvas.describe(figure, *setting.of_sweep(self.records, self.x, heading, spread))
        entries = [
            (Line2D([], [], **look), line.label) for line, look in zip(self.series, self.looks, strict=True)
        ]
        entries += self.legend
        if not all(map(curves.trained, self.records)):
            hollow = Line2D([], [], color=panels.GREY, marker="o", ms=9, mfc="none", ls="")
            entries.append((hollow, "failed training (near chance)"))
        if not legend and "κ" in self.series[0].label:
            legend = setting.penalty([record.result for record in self.records])
        handles, labels = zip(*entries, strict=True)
        crowded = len(labels) > 12 or max(map(len, labels)) > 32
        if where is not None:
            where.axis("off")
        if where is None or crowded:
            figure.set_figheight(figure.get_figheight() + 0.2 * len(labels) * crowded)
            look = {"ncols": 1, "fontsize": 8} if crowded else {"ncols": 3}
            figure.legend(handles, labels, title=legend, loc="outside lower center", **look)
        else:
            where.legend(handles, labels, title=legend, loc="center left", alignment="left")
