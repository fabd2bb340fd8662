"""Figure 10: clean accuracy against attack success, and the gap between the attack and its detection."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from plots import canvas, curves, lag, panels
from plots.canvas import WIDTH
from plots.curves import KAPPA, THETA
from plots.lag import UNIT, V1
from plots.lines import Lines
from poison_jax.runs.records import Record

ONSETS = {  # of a lag: marker, meaning
    "attack": ("o", "ASR exceeds 50 %"),
    "random": ("^", "overlap² exceeds random's"),
    "clean": ("s", "overlap² exceeds clean's"),
}


def fig10(records: list[Record], title: str) -> list[Figure | str]:
    """Clean accuracy against ASR, a line for each theta; for each kappa where ASR and overlap rise."""
    lines = Lines(records, KAPPA)
    figure, (axes,) = canvas.subplots(1, 2, WIDTH, 4.6)
    _trade_off(axes[0], lines)
    _gap(axes[1], records)
    for marker, says in ONSETS.values():
        lines.legend.append((Line2D([], [], color=panels.GREY, marker=marker, ls="", ms=6), says))
    lines.finish(
        figure, f"{title}. Left: along each line κ rises. Right: between its onsets the attack works unseen"
    )
    return [figure, lag.table(records, title)]


def _trade_off(axis: Axes, lines: Lines) -> None:
    """Means with their ranges; hollow, the networks whose training failed."""

    def reach(line):
        asr = curves.curve(line.records, KAPPA, curves.percent("asr")).mean
        return np.ptp(asr[np.isfinite(asr)]) if np.isfinite(asr).any() else -1

    widest = max(lines.series, key=reach)
    for line, look in zip(lines.series, lines.looks, strict=True):
        asr = curves.curve(line.records, KAPPA, curves.percent("asr"))
        accuracy = curves.curve(line.records, KAPPA, curves.percent("clean_accuracy"))
        across, up = ((c.mean - c.low, c.high - c.mean) for c in (asr, accuracy))
        panels.points(axis, asr.mean, accuracy.mean, up, across, label=line.label, **look)
        for x, y, kappa in zip(asr.mean, accuracy.mean, asr.x, strict=True):
            if line is widest and np.isfinite(x):
                axis.annotate(f"κ = {kappa:g}", (x, y), (5, 5), textcoords="offset points", fontsize=9)
        for (_, x), (_, y) in zip(asr.failed, accuracy.failed, strict=True):
            axis.plot(x, y, label=f"_failed {line.label}", **look | {"mfc": "none", "ms": 9})
    axis.set(xlabel="attack success rate (%)", ylabel="clean accuracy (%)")


def _gap(axis: Axes, records: list[Record]) -> None:
    """A row for each kappa: the onsets over theta; one that is not reached is said to be so at the right."""
    found = lag.lags(records, V1, lag.nulls(records, V1))
    right = max(record.setting(THETA) for record in records) / UNIT
    smallest = min((t for r in records if (t := r.setting(THETA)) > 0), default=UNIT) / UNIT
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    for row, (delay, look) in enumerate(zip(found, panels.looks(len(found)), strict=True)):
        colour = look["color"]
        places = []
        for (name, (marker, _)), shift in zip(ONSETS.items(), (0, 0.13, -0.13), strict=True):
            onset = getattr(delay, name)
            if onset is None:
                continue
            reached = np.isfinite(onset.theta)
            # What clean networks show already stands left of all poison fractions.
            x = (onset.theta / UNIT or smallest / 1.6) if reached else right * 1.6
            places.append(x)
            fill = colour if reached else "none"
            axis.plot(x, row + shift, marker, color=colour, mfc=fill, ms=7, label=f"{name} {delay.label}")
        axis.plot([min(places), max(places)], [row, row], color=colour, lw=1, alpha=0.5, zorder=0)
    axis.axvspan(right * 1.2, right * 2.2, color="0.93", zorder=-1)
    axis.text(right * 1.6, len(found) + 0.15, "not\nreached", ha="center", va="top", fontsize=9)
    axis.set(
        xlim=(smallest / 2.2, right * 2.2),
        ylim=(-0.6, len(found) + 0.2),
        xlabel="poison fraction θ (10⁻³)",
    )
    axis.set_yticks(range(len(found)), [delay.label for delay in found])
