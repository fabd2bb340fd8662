"""Reading a picture file as numbers in [0, 1], whatever its mode, depth and orientation."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps

from poison_jax.errors import UserError

_GREY = ("1", "L", "LA", "La", "I", "F")  # beside the 16-bit modes "I;16", "I;16B", ...
_RANGED = ("PNG", "PPM")  # formats in which Pillow's 32-bit mode "I" holds 16-bit values
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, as Pillow's "L"


class Picture(NamedTuple):
    """A picture's values, and how opaque each pixel is."""

    pixels: np.ndarray  # float64 [H, W, 1] (grey) or [H, W, 3], in [0, 1]
    opacity: np.ndarray  # float64 [H, W], in [0, 1]; 1 where the file has no transparency


def read_picture(path: str | os.PathLike) -> Picture:
    """Read the first frame of a picture file, turned as its EXIF orientation says.

    | stored values                              | value in [0, 1]                                   |
    | ------------------------------------------ | ------------------------------------------------- |
    | 1 bit, 8 bits                              | v, v / 255                                        |
    | 16 bits, grey                              | v / 65535                                         |
    | 16 bits, colour                            | floor(v / 256) / 255: Pillow reads the upper byte |
    | floating point                             | v, refused outside [0, 1]                         |
    | 32-bit integers (no range is agreed on)    | refused                                           |
    | palette; CMYK, YCbCr, LAB, HSV             | its RGB colour / 255                              |

    Args:
        path: any file that Pillow can read; `~` is the home directory.

    Returns:
        `Picture`. Colours are not multiplied by the opacity. `np.rint(255 * pixels).astype(np.uint8)` gives
        the values of an 8-bit file back.

    Raises:
        UserError: not readable as a picture, or values without a known range.
    """
    try:
        with PIL.Image.open(Path(path).expanduser()) as file:
            ranged = file.format in _RANGED
            image = PIL.ImageOps.exif_transpose(file)
            grey = image.mode in _GREY or image.mode.startswith("I;16")
            if image.mode.startswith("I;16") or image.mode in ("I", "F"):
                pixels, opacity = _deep(image, ranged)
            else:
                values = np.asarray(image.convert("LA" if image.mode == "La" else "RGBA")) / 255
                pixels, opacity = values[..., : 1 if grey else 3], values[..., -1]
    except Exception as error:  # of what a broken file makes Pillow raise, only a part is documented
        raise UserError(f"{str(path)!r} cannot be read as a picture: {error}") from None
    return Picture(pixels, opacity)


def grey(pixels: np.ndarray) -> np.ndarray:
    """Luminance `[H, W, 1]` of pixels `[H, W, 1]` or `[H, W, 3]`: 0.299 R + 0.587 G + 0.114 B.

    >>> grey(np.ones((1, 1, 3))).round(6).tolist()
    [[[1.0]]]
    """
    return pixels if pixels.shape[-1] == 1 else pixels @ _LUMA[:, None]


def _deep(image: PIL.Image.Image, ranged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Values and opacity of a grey image of more than 8 bits; `ranged`: its integers are of 16 bits."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        if not ((values >= 0) & (values <= 1)).all():  # also of NaN
            raise ValueError(
                f"floating-point values from {values.min():g} to {values.max():g}: scale them to [0, 1]"
            )
        top = 1
    elif image.mode == "I" and not ranged:
        raise ValueError("32-bit integers have no agreed range: save it with 8 or 16 bits a channel")
    else:
        top = 65535
    clear = image.info.get("transparency")  # the one grey value that is transparent
    opacity = np.ones(values.shape) if clear is None else (values != clear).astype(np.float64)
    return values[..., None] / top, opacity
