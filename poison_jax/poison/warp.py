"""WaNet (Nguyen & Tran 2021, Section 5.2): images warped by a smooth field too weak to be seen."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax.errors import UserError
from poison_jax.poison.checks import checked_images

CUBIC = -0.75  # the kernel's parameter a in PyTorch; `jax.image.resize` has -0.5 and other corners


def warp_field(
    key: jax.Array,
    height: int,
    width: int,
    *,
    k: int = 4,
    s: float = 0.5,
    grid_rescale: float = 1.0,
    dtype: Any = np.float32,
) -> jax.Array:
    """Where each pixel of a warped image is taken from: the original's own steps.

    Noise U[-1, 1] on k x k points, divided by its mean absolute value, is upsampled by bicubic
    interpolation (a = -0.75, corners aligned) and added to the identity:
    `clip((identity + s noise / height) grid_rescale, -1, 1)`.

    Args:
        key: of the noise.
        height, width: of the images, in pixels.
        k: points of noise along each side, at least 1.
        s: strength; the mean displacement at the points is s / 2 pixels (a grid of 2 spans the image).
        grid_rescale: factor on the grid; below 1 it keeps the border from being clipped.
        dtype: of the field; the noise is the same numbers in each.

    Returns:
        `[height, width, 2]` in [-1, 1], corners aligned: -1 is the centre of the first column
        (or row), 1 of the last. Entry 0 of the last axis is the column, entry 1 the row.

    Raises:
        UserError: k below 1.
    """
    if k < 1:
        raise UserError(f"warp field of k = {k} points: use at least 1")
    noise = jax.random.uniform(key, (k, k, 2), np.float32, -1, 1).astype(dtype)
    noise = noise / jnp.mean(jnp.abs(noise))
    rows, columns = (_bicubic(k, size).astype(dtype) for size in (height, width))
    smooth = jnp.einsum("hi,wj,ijc->hwc", rows, columns, noise, precision="highest")
    y, x = jnp.meshgrid(*(np.linspace(-1, 1, size, dtype=dtype) for size in (height, width)), indexing="ij")
    return jnp.clip((jnp.stack([x, y], -1) + s * smooth / height) * grid_rescale, -1, 1)


def noise_field(key: jax.Array, field: jax.Array) -> jax.Array:
    """The field with U[-1, 1] / height added at every pixel: what WaNet's noise mode shows with true labels.

    Args:
        key: one for each image.
        field: `[H, W, 2]`.
    """
    noise = jax.random.uniform(key, field.shape, np.float32, -1, 1).astype(field.dtype)
    return jnp.clip(field + noise / field.shape[0], -1, 1)


def warp(images: jax.Array, field: jax.Array) -> jax.Array:
    """Images sampled at the field's points, bilinearly, corners aligned, zero outside.

    Args:
        images: `[..., H, W, C]` in [0, 1], before normalisation.
        field: `[h, w, 2]` in [-1, 1], column first; the same for all images.

    Returns:
        `[..., h, w, C]`.

    Raises:
        UserError: images of integers, or (where they are not traced) far outside [0, 1]; a field of another
            shape.
    """
    images = checked_images(images)
    if field.ndim != 3 or field.shape[-1] != 2:
        raise UserError(f"a warp field {field.shape}: give [height, width, 2], of warp_field")
    height, width, channels = images.shape[-3:]
    column, row = ((field[..., i] + 1) / 2 * (size - 1) for i, size in enumerate((width, height)))
    left, top = jnp.floor(column), jnp.floor(row)
    flat = images.reshape(*images.shape[:-3], height * width, channels)
    total = 0
    for y, x in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        weight = (1 - jnp.abs(row - y)) * (1 - jnp.abs(column - x))
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        y, x = (jnp.clip(at, 0, size - 1).astype(jnp.int32) for at, size in ((y, height), (x, width)))
        pixels = jnp.take(flat, y * width + x, axis=-2)
        total = total + jnp.where(inside, weight, 0).astype(images.dtype)[..., None] * pixels
    return total


def _bicubic(points: int, size: int) -> np.ndarray:
    """The matrix `[size, points]` of cubic convolution, corners aligned, the border repeated."""
    matrix = np.zeros((size, points))
    for i, at in enumerate(np.linspace(0, points - 1, size)):
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            d, a = abs(at - j), CUBIC
            if d <= 1:
                weight = (a + 2) * d**3 - (a + 3) * d**2 + 1
            else:
                weight = a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0
            matrix[i, min(max(j, 0), points - 1)] += weight
    return matrix
