"""Panels that show an image, a trigger or an eigenvector, and colours for lines."""

from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure


def colours(count: int, name: str = "viridis", end: float = 0.88) -> np.ndarray:
    """A colour for each line, from a sequential map without its palest end."""
    return matplotlib.colormaps[name](np.linspace(0, end, count))


def label(axis: Axes, *lines: str) -> None:
    """A panel's caption."""
    axis.set_title("\n".join(lines), fontsize=8)


def image(axis: Axes, picture: np.ndarray, *caption: str) -> None:
    """Shows `[H, W, C]` uint8: three channels are colours, of any other number the mean is shown in grey."""
    picture = picture if picture.shape[-1] == 3 else picture.mean(-1)
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
    label(axis, *caption)


def trigger(axis: Axes, change: np.ndarray, *, stamp: bool = True) -> None:
    """Shows `[H, W]` or `[H, W, C]`: the mask of a stamp; of a warp or a blend the mean change."""
    change = np.abs(np.asarray(change, float))
    change = change if change.ndim == 2 else change.mean(-1)
    axis.axis("on")
    axis.imshow(change, cmap="gray_r", vmin=0, vmax=change.max() or 1)
    axis.set(xticks=[], yticks=[])
    label(axis, "trigger" if stamp else "mean change\nby the trigger")


def eigenvector(axis: Axes, vector: np.ndarray, *caption: str) -> None:
    """Shows `[H, W]` on its own scale around zero; of `[H, W, C]` the mean, since colours hide the sign."""
    vector = vector if vector.ndim == 2 else vector.mean(-1)
    limit = np.abs(vector).max() or 1
    axis.imshow(vector, cmap="RdBu_r", vmin=-limit, vmax=limit)
    label(axis, *caption)


def scale_bar(figure: Figure, **where: Any) -> None:
    """The colour bar that serves every eigenvector; `where` as `Figure.colorbar` takes it."""
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), "RdBu_r"), **where)
    bar.ax.tick_params(labelsize=8)
    bar.set_ticks([-1, 0, 1], labels=["-max", "0", "+max"])


def hide(axes: Iterable[Axes]) -> None:
    """Leaves panels empty until something is shown in them."""
    for axis in axes:
        axis.axis("off")
