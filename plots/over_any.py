"""A sweep of one's own, over whatever key it varies: attack, clean accuracy and overlap."""

import numpy as np
from matplotlib.figure import Figure

from plots import canvas, curves, lag, over_theta, panels
from poison_jax.runs.records import Record


def of_sweep(records: list[Record], title: str) -> list[Figure | str]:
    """ASR, clean accuracy and overlap^2 of the top eigenvector over the key that varies most.

    That is theta where it varies, else the number with the most values, else any other key, else the seed;
    there is a line for each combination of the others.
    """
    x = axis_of(records)
    if x == lag.THETA:
        return over_theta.with_overlap(records, title)
    values = curves.curve(records, x, curves.percent("asr")).x
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    names = [str(value) for value in values]

    def place(some):
        return np.asarray(some, float) if numeric else np.array([names.index(str(value)) for value in some])

    lines = curves.series(records, x)
    palette = panels.colours(len(lines))
    figure, (axes,) = canvas.subplots(1, 3, 15, 4.8)
    panels.attack(axes[0], lines, palette, x, place=place)
    panels.draw(axes[1], lines, palette, x, curves.percent("clean_accuracy"), place=place)
    panels.draw(axes[2], lines, palette, x, lag.V1.of, place=place)
    axes[1].set(ylabel="clean accuracy (%)")
    axes[2].set(ylabel=lag.V1.label, ylim=(-0.02, 1.02))
    for axis in axes:
        axis.set_xlabel(f"{x} ({curves.SYMBOLS[x]})" if x in curves.SYMBOLS else x)
        if numeric:
            panels.numbers(axis, place(values))
        else:
            axis.set_xticks(range(len(names)), names, rotation=0 if len(names) < 5 else 30)
    panels.finish(figure, lines, palette, x, heading=f"{title}, over {x}", extra=[panels.DOTTED])
    return [figure]


def axis_of(records: list[Record]) -> str:
    """The key that a sweep is drawn over."""
    varied = curves.varied(records)
    if not varied or lag.THETA in varied:
        return lag.THETA if varied or len({record.setting("seed") for record in records}) < 2 else "seed"

    def values(key):
        found = {str(record.setting(key)): record.setting(key) for record in records}.values()
        return all(isinstance(value, int | float) for value in found), len(found)

    return max(varied, key=values)
