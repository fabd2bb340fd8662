"""Triggers: patches that are stamped, pictures that are blended in, the warp, functions of images."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax.data.pictures import grey, read_picture
from poison_jax.errors import UserError, about
from poison_jax.poison.checks import check_patch, checked_images
from poison_jax.poison.warp import warp


class Trigger(NamedTuple):
    """An attack on an image: your function, or a warp where there is a field, else a picture blended in."""

    opacity: jax.Array | None = None  # [H, W] or [H, W, C] in [0, 1]; 1 *sets* the pixel, 0 leaves it
    picture: jax.Array | None = None  # what is blended in: broadcasts to [H, W, C], in [0, 1]
    field: jax.Array | None = None  # [H, W, 2], see `warp_field`
    function: jax.tree_util.Partial | None = None  # images [..., H, W, C] -> images


def apply(images: jax.Array, trigger: Trigger) -> jax.Array:
    """Every image `[..., H, W, C]` in [0, 1] with the trigger."""
    if trigger.function is not None:
        images = checked_images(images)
        return trigger.function(images).astype(images.dtype)
    if trigger.field is not None:
        return warp(images, trigger.field)
    return blend(images, trigger.opacity, trigger.picture)


def own_trigger(function: Callable[[jax.Array], jax.Array], shape: tuple[int, int, int]) -> Trigger:
    """A trigger that is a function of yours (`poison.trigger = "my_module:function"`).

    Args:
        function: images `[B, H, W, C]` in [0, 1] -> the same images with the trigger; traced by JAX.
        shape: `[H, W, C]` of the images that it is for.

    Raises:
        UserError: it fails on such images, or returns others of another shape or type.
    """
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    try:
        out = jax.eval_shape(function, images)
    except Exception as error:  # a user's function may raise anything
        raise UserError(
            f"poison.trigger: the function fails on images {images.shape}: {about(error)}"
        ) from None
    if getattr(out, "shape", None) != images.shape or not jnp.issubdtype(out.dtype, jnp.floating):
        what = f"{out.dtype} {out.shape}" if hasattr(out, "shape") else type(out).__name__
        raise UserError(f"poison.trigger: the function returns {what} for images float32 {images.shape}")
    return Trigger(function=jax.tree_util.Partial(function))


def blend(images: jax.Array, opacity: jax.Array, picture: jax.Array | float) -> jax.Array:
    """`(1 - opacity) image + opacity picture` (Chen et al. 2017), exact where the opacity is 0 or 1.

    Args:
        images: `[..., H, W, C]` in [0, 1], before normalisation.
        opacity: in [0, 1], `[H, W]` (all channels) or `[H, W, C]`.
        picture: in [0, 1]; scalar, or anything that broadcasts to `[H, W, C]`: a colour `[C]`, a picture.

    Raises:
        UserError: images of integers, or (where they are not traced) far outside [0, 1]; an opacity or a
            picture of another shape, or outside [0, 1].
    """
    images = checked_images(images)
    opacity = opacity if isinstance(opacity, jax.Array) else np.asarray(opacity)
    check_patch(images, opacity, picture)
    opacity = jnp.asarray(opacity, images.dtype)
    if opacity.ndim == 2:
        opacity = opacity[..., None]
    return (1 - opacity) * images + opacity * jnp.asarray(picture, images.dtype)


def l_trigger(height: int, width: int, *, margin: int = 3, size: int = 2) -> np.ndarray:
    """The L of Listing 2 in the upper right corner: bool `[height, width]`.

    Args:
        margin: distance of the L's box from the upper and the right edge, in pixels.
        size: side of the box, in pixels; the arms cross at its (rounded down) centre.

    Raises:
        UserError: the box does not fit in the image.

    >>> np.argwhere(l_trigger(32, 32)).tolist()
    [[3, 27], [3, 28], [4, 27]]
    """
    _check_box("l", height, width, margin, size)
    mask = np.zeros((height, width), bool)
    rows = slice(margin, margin + size)
    cols = slice(width - margin - size, width - margin)
    mask[rows, (cols.start + cols.stop - 1) // 2] = True
    mask[(rows.start + rows.stop - 1) // 2, cols] = True
    return mask


def square(height: int, width: int, *, margin: int = 0, size: int = 2) -> np.ndarray:
    """A square in the lower right corner (Section 4: 2x2 on MNIST): bool `[height, width]`.

    Args:
        margin: distance from the lower and the right edge, in pixels.
        size: side, in pixels.

    Raises:
        UserError: the square does not fit in the image.
    """
    _check_box("square", height, width, margin, size)
    mask = np.zeros((height, width), bool)
    mask[height - margin - size : height - margin, width - margin - size : width - margin] = True
    return mask


def load_mask(path: str, height: int, width: int, channels: int) -> np.ndarray:
    """A user's mask from an `.npy` file: bool `[height, width]` or `[height, width, channels]`."""
    try:
        with open(Path(path).expanduser(), "rb") as file:
            mask = np.lib.format.read_array(file, allow_pickle=False)  # np.load would take an .npz, too
    except Exception as error:
        raise UserError(f"poison.mask: {path!r} is not a readable .npy file: {error}") from None
    if mask.shape not in ((height, width), (height, width, channels)):
        raise UserError(f"poison.mask: {path!r} is {mask.shape}, the image {(height, width, channels)}")
    if mask.dtype.kind not in "biuf" or not np.isfinite(mask).all():
        raise UserError(f"poison.mask: {path!r} holds {mask.dtype}, not all of them finite numbers: use bool")
    mask = mask.astype(bool)
    if not mask.any():
        raise UserError(f"poison.mask: {path!r} marks no pixel")
    return mask


def trigger_mask(
    trigger: str, height: int, width: int, channels: int, *, margin: int, size: int, path: str = ""
) -> np.ndarray:
    """The mask of a named trigger (`l`, `square`, `mask` from a file, `none`), as in the config."""
    if trigger == "l":
        return l_trigger(height, width, margin=margin, size=size)
    if trigger == "square":
        return square(height, width, margin=margin, size=size)
    if trigger == "mask":
        return load_mask(path, height, width, channels)
    if trigger == "none":
        return np.zeros((height, width), bool)
    raise UserError(f"unknown trigger {trigger!r}: use l, square, mask or none")


def load_picture(
    path: str, height: int, width: int, channels: int, *, margin: int
) -> tuple[np.ndarray, np.ndarray]:
    """A user's picture, `[height, width, channels]` in [0, 1], and its opacity `[height, width]`.

    Values and opacity are those of `pictures.read_picture`; images of one channel take the luminance. A
    picture smaller than the image lies in the lower right corner, `margin` pixels from the edges.

    Raises:
        UserError: unreadable, or larger than the image.
    """
    if channels not in (1, 3):
        raise UserError(f"poison.picture: images of {channels} channels take no picture, only 1 or 3")
    try:
        pixels, visible = read_picture(path)
    except UserError as error:
        raise UserError(f"poison.picture: {error}") from None
    pixels = grey(pixels) if channels == 1 else pixels
    h, w = pixels.shape[:2]
    if h + margin > height or w + margin > width:
        if (h, w) != (height, width):
            raise UserError(
                f"poison.picture: {path!r} is {h}x{w}, with poison.margin = {margin} too large for the "
                f"{height}x{width} image; scale it down, or to exactly that size"
            )
        margin = 0
    corner = slice(height - margin - h, height - margin), slice(width - margin - w, width - margin)
    picture, opacity = np.zeros((height, width, channels)), np.zeros((height, width))
    picture[corner], opacity[corner] = pixels, visible
    if not opacity.any():
        raise UserError(f"poison.picture: {path!r} is wholly transparent")
    return picture, opacity


def stamp(images: jax.Array, mask: jax.Array, value: jax.Array | float = 1.0) -> jax.Array:
    """Images with the pixels under the mask *set* to `value` (Listing 3).

    Args:
        images: `[..., H, W, C]` in [0, 1], before normalisation.
        mask: bool `[H, W]` (all channels) or `[H, W, C]`.
        value: in [0, 1]; scalar, or anything that broadcasts to `[H, W, C]`: a colour `[C]`, a picture.

    Raises:
        UserError: as `blend`: among others images of integers, as they come from a file (divide by 255).

    >>> print(stamp(jnp.zeros((2, 2, 1)), np.eye(2, dtype=bool), 0.5)[..., 0])
    [[0.5 0. ]
     [0.  0.5]]
    """
    return blend(images, mask, value)


def _check_box(trigger: str, height: int, width: int, margin: int, size: int) -> None:
    if size < 1 or margin < 0 or margin + size > min(height, width):
        raise UserError(
            f"trigger {trigger!r}, margin {margin}, size {size}: outside the {height}x{width} image; "
            "lower poison.margin or poison.size"
        )
