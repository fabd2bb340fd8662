"""Checks of images, triggers and labels before an attack: shapes always, values where they are not traced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax.errors import UserError

SLACK = 0.5  # how far outside [0, 1] images may be: normalised ones and those in 0..255 are farther


def checked_images(images: Any) -> Any:
    """Return images as an array, or refuse those that are not in [0, 1]: pixels of 0 to 255, normalised ones.

    Args:
        images: `[..., H, W, C]`.

    Raises:
        UserError: integers; fewer than three axes; values more than 0.5 outside [0, 1], or NaN.
    """
    images = images if isinstance(images, jax.Array) else np.asarray(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images are {images.dtype}: an attack takes images in [0, 1], divide them by 255")
    if images.ndim < 3:
        raise UserError(f"images are {images.shape}: give [..., height, width, channels]")
    outside = _outside(images, SLACK)
    if outside:
        raise UserError(
            f"images run from {outside}: an attack takes images in [0, 1], before normalisation; "
            "divide by 255, or attack first and normalise then"
        )
    return images


def check_patch(images: Any, opacity: Any, picture: Any) -> None:
    """Refuse an opacity or a picture that does not fit images `[..., H, W, C]`, or that is not in [0, 1].

    Raises:
        UserError: it says which of them, and what it has to be.
    """
    *size, channels = shape = images.shape[-3:]
    if opacity.shape not in (tuple(size), (*size, 1), shape):
        raise UserError(
            f"a mask {opacity.shape} does not fit images {images.shape}: give {tuple(size)} or {tuple(shape)}"
        )
    try:
        fits = np.broadcast_shapes(np.shape(picture), shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise UserError(
            f"a value {np.shape(picture)} does not fit images {images.shape}: give a number, a colour "
            f"({channels},) or a picture {tuple(shape)}"
        )
    for name, values in (("a mask's opacity", opacity), ("a trigger's value", picture)):
        outside = _outside(values, 1e-3)
        if outside:
            raise UserError(f"{name} runs from {outside}: it has to be in [0, 1]")


def check_selection(labels: Any, shape: tuple[int, ...], fraction: Any) -> None:
    """Refuse labels that are not one for each example, and an impossible poison fraction.

    Args:
        labels: an array of integers; `[N, 1]` would broadcast to N x N choices.
        shape: `(N,)`.
        fraction: theta, refused outside [0, 1] and where it is NaN, unless it is traced.

    Raises:
        UserError: it says which of them, and what it has to be.
    """
    if _outside(fraction, 0):
        raise UserError(f"poison fraction {fraction} is not in [0, 1]")
    if labels.shape != shape or len(shape) != 1:
        raise UserError(f"labels are {labels.shape}, examples {shape}: give [N] of both (labels.reshape(-1))")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserError(f"labels are {labels.dtype}: give integers")


def _outside(values: Any, slack: float) -> str:
    """The range of values that leave [0, 1] by more than `slack`, in words; else, or where traced, ""."""
    if isinstance(values, jax.core.Tracer) or (
        isinstance(values, jax.Array) and not values.is_fully_addressable
    ):
        return ""
    values = values if isinstance(values, jax.Array) else np.asarray(values)
    if not values.size or values.dtype == bool:
        return ""
    low, high = float(values.min()), float(values.max())
    return "" if -slack <= low and high <= 1 + slack else f"{low:.4g} to {high:.4g}"
