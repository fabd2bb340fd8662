"""Figure 10: clean accuracy against attack success, and the gap between the attack and its detection."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

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
        lines.legend.append((Line2D([], [], color=panels.BLACK, marker=marker, ls="", ms=6), says))
    lines.finish(
        figure,
        f"{title}. Left: along each line κ rises. Right: θ at which the attack works and at which the "
        "overlap of v₁ exceeds its nulls; it works unseen where its circle lies left of them, and a null "
        "that clean networks exceed already (strip θ = 0) says nothing",
        spread="bars",
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
    """A row for each kappa: the onsets over theta; at the right what is not reached, at the left a 0."""
    found = lag.lags(records, V1, lag.nulls(records, V1))
    right = max(record.setting(THETA) for record in records) / UNIT
    smallest = min((t for r in records if (t := r.setting(THETA)) > 0), default=UNIT) / UNIT
    axis.set_xscale("log")
    ticks = (digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5))
    axis.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if smallest <= tick <= right]))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    zero = smallest / 1.6  # the place of what clean networks show already
    for row, delay in enumerate(found):
        places = []
        for (name, (marker, _)), shift in zip(ONSETS.items(), (0, 0.13, -0.13), strict=True):
            onset = getattr(delay, name)
            if onset is None:
                continue
            reached = np.isfinite(onset.theta)
            x = (onset.theta / UNIT or zero) if reached else right * 1.6
            places.append(x)
            look = {"color": panels.BLACK, "mfc": panels.BLACK if reached else "none", "ms": 7}
            axis.plot(x, row + shift, marker, **look, label=f"{name} {delay.label}")
            if onset.at_most:
                axis.annotate(
                    "≤", (x, row + shift), (-6, 0), textcoords="offset points", ha="right", va="center"
                )
        axis.plot([min(places), max(places)], [row, row], color=panels.BLACK, lw=1, alpha=0.5, zorder=0)
    for low, middle, high, says in (
        (smallest / 2.2, zero, smallest / 1.2, "θ = 0"),
        (right * 1.2, right * 1.6, right * 2.2, "not\nreached"),
    ):
        axis.axvspan(low, high, color="0.93", zorder=-1)
        axis.text(middle, len(found) + 0.15, says, ha="center", va="top", fontsize=9)
    axis.set(
        xlim=(smallest / 2.2, right * 2.2),
        ylim=(-0.6, len(found) + 0.2),
        xlabel="poison fraction θ (10⁻³)",
    )
    axis.set_yticks(range(len(found)), [delay.label for delay in found])
