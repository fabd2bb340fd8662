"""Panels that show an image, a trigger or an eigenvector, and how lines and points are told apart."""

import itertools
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy import ndimage

from plots import canvas

COLOURS = matplotlib.rc_params_from_file(canvas.STYLE, use_default_template=False)["axes.prop_cycle"]
COLOURS = [f"#{colour.lstrip('#')}" for colour in COLOURS.by_key()["color"]]
BLACK, BLUE, RED, GREEN, PURPLE, SKY, ORANGE = COLOURS
GREY = "#777777"  # what others are compared with
_MARKERS, _STYLES = (
    "os^DvPX",
    ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)), (0, (1, 1))),
)  # in grey print lines differ by these


def looks(count: int) -> list[dict[str, Any]]:
    """A colour, a marker and a line style for each line; of many the colours of a sequential map."""
    many = list(matplotlib.colormaps["viridis"](np.linspace(0, 0.88, count)))
    colours = COLOURS if count <= len(COLOURS) else many
    cycle = zip(colours, itertools.cycle(_MARKERS), itertools.cycle(_STYLES), strict=False)
    found = itertools.islice(cycle, count)
    return [{"color": colour, "marker": marker, "linestyle": style} for colour, marker, style in found]


def points(
    axis: Axes, x: np.ndarray, y: np.ndarray, up: np.ndarray, across: np.ndarray | None = None, **look: Any
) -> None:
    """A line over its error bars; `up` and `across` as `Axes.errorbar` takes them."""
    axis.errorbar(x, y, up, across, fmt="none", ecolor=look["color"], elinewidth=0.9, capsize=2)
    axis.plot(x, y, **look)


def legend(figure: Figure, axes: Iterable[Axes], **look: Any) -> None:
    """One legend below, with an entry for each label that any panel has."""
    figure.legend(**labels(axes), loc="outside lower center", **look)


def labels(axes: Iterable[Axes]) -> dict[str, Iterable[Any]]:
    """`handles` and `labels` of a legend, each label once."""
    found = {}
    for axis in axes:
        handles, words = axis.get_legend_handles_labels()
        found |= dict(zip(words, handles, strict=True))
    return {"handles": found.values(), "labels": found.keys()}


def positive(values: Any) -> np.ndarray:
    """What a logarithmic axis can show."""
    return np.where(np.asarray(values) > 0, values, np.nan)


def kappa_axis(axis: Axes, kappas: np.ndarray) -> None:
    """Logarithmic, with room for kappa = 0."""
    smallest = kappas[kappas > 0].min()
    axis.set_xscale("symlog", linthresh=smallest, linscale=0.6)
    axis.set(xlim=(-smallest / 3, 2 * kappas.max()), xlabel="gradient penalty κ")


def label(axis: Axes, *lines: str) -> None:
    """A panel's words, above it."""
    axis.set_title("\n".join(lines), fontsize=9)


def image(axis: Axes, picture: np.ndarray, *words: str) -> None:
    """Shows `[H, W, C]` uint8: three channels are colours, of any other number the mean is shown in grey."""
    picture = picture if picture.shape[-1] == 3 else picture.mean(-1)
    _show(axis, picture, cmap="gray", vmin=0, vmax=255)
    label(axis, *words)


def stamp(axis: Axes, mask: np.ndarray, triggered: np.ndarray) -> None:
    """Shows a stamp as it is stamped: on grey the pixels of its mask `[H, W]` in a triggered image."""
    image(axis, np.where(mask[..., None], triggered, np.uint8(153)), "trigger")
    outline(axis, mask)


def mean_change(axis: Axes, change: np.ndarray) -> None:
    """Shows the mean change `[H, W]` or `[H, W, C]` by a warp or a blend."""
    change = np.abs(np.asarray(change, float))
    change = change if change.ndim == 2 else change.mean(-1)
    _show(axis, change, cmap="gray_r", vmin=0, vmax=change.max() or 1)
    label(axis, "mean change", "by the trigger")


def is_stamp(change: np.ndarray) -> bool:
    """Whether a trigger is a mask, whose pixels are set: it can be outlined."""
    return np.ndim(change) == 2 and bool(np.isin(change, (0, 1)).all())


def eigenvector(axis: Axes, vector: np.ndarray, *words: str, change: np.ndarray | None = None) -> None:
    """Shows `[H, W]` on its own scale around zero; of `[H, W, C]` the mean, since colours hide the sign.

    Args:
        axis: to draw on.
        vector: to show.
        words: above it.
        change: the trigger, outlined where it is a stamp.
    """
    vector = vector if vector.ndim == 2 else vector.mean(-1)
    limit = np.abs(vector).max() or 1
    _show(axis, vector, cmap="RdBu_r", vmin=-limit, vmax=limit)
    if change is not None and is_stamp(change):
        outline(axis, change)
    label(axis, *words)


def outline(axis: Axes, mask: np.ndarray) -> None:
    """Draws a line around the pixels of a mask `[H, W]`; in large images a pixel off, to hide none."""
    padded = np.pad(np.asarray(mask) > 0, 1)
    if len(mask) > 16:
        padded = ndimage.binary_dilation(padded, np.ones((3, 3)))
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    edges = [[(x - 1.5, y - 0.5), (x - 0.5, y - 0.5)] for y, x in zip(rows, columns, strict=True)]
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    edges += [[(x - 0.5, y - 1.5), (x - 0.5, y - 0.5)] for y, x in zip(rows, columns, strict=True)]
    for colour, width in (("w", 2.0), (BLACK, 1.0)):  # seen on dark and on light
        axis.add_collection(LineCollection(edges, colors=colour, linewidths=width, capstyle="projecting"))


def frame(axis: Axes) -> None:
    """A thin frame in the place of axes, for what has none."""
    axis.axis("on")
    axis.grid(False)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color="0.7", linewidth=0.6)


def scale_bar(figure: Figure, **where: Any) -> None:
    """The colour bar that serves every eigenvector; `where` as `Figure.colorbar` takes it."""
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), "RdBu_r"), **where)
    bar.set_ticks([-1, 0, 1], labels=["−max", "0", "+max"])


def hide(axes: Iterable[Axes]) -> None:
    """Leaves panels empty until something is shown in them."""
    for axis in axes:
        axis.axis("off")


def _show(axis, values, **scale):
    axis.imshow(values, **scale)
    frame(axis)
