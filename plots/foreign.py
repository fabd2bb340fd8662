"""Other people's images and names as figures take them."""

import matplotlib.pyplot as plt
import numpy as np


def image(axis: plt.Axes, picture: np.ndarray) -> None:
    """Shows `[H, W, C]` uint8: three channels are colours, of any other number the mean is shown in grey."""
    picture = picture if picture.shape[-1] == 3 else picture.mean(-1)
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255)


def literal(text: object) -> str:
    """A name that stands in a text as it is: matplotlib takes what is between two `$` for mathematics.

    >>> literal("a$b$")
    'a\\\\$b\\\\$'
    """
    return str(text).replace("$", r"\$")
