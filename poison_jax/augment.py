"""Augmentation and normalisation of images on the device, inside the train step."""

import jax
import jax.numpy as jnp
import numpy as np


def normalise(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """`(images - mean) / std`, channel by channel; images in [0, 1], `[..., C]`."""
    return (images - mean) / std


def output_size(size: int, augment: str, crop: str) -> int:
    """Side of the network's input for images of side `size`: 28 of 32 for `crop28`."""
    return size - 4 if augment == "crop_flip" and crop == "crop28" else size


def crop_and_flip(key: jax.Array, image: jax.Array, crop: str) -> jax.Array:
    """Random crop and horizontal flip of one image `[H, W, C]`.

    `pad4`: the image padded by 4 zero pixels, a window of its own size (RandomCrop(32, padding=4) of
    Listing 3). `crop28`: a window 4 pixels smaller (28x28 of 32x32, Section 5).
    """
    crop_key, flip_key = jax.random.split(key)
    height, width, channels = image.shape
    if crop == "pad4":
        image = jnp.pad(image, ((4, 4), (4, 4), (0, 0)))
        window, freedom = (height, width, channels), 8
    else:
        window, freedom = (height - 4, width - 4, channels), 4
    row, col = jax.random.randint(crop_key, (2,), 0, freedom + 1, jnp.int32)
    image = jax.lax.dynamic_slice(image, (row, col, np.int32(0)), window)
    return jnp.where(jax.random.bernoulli(flip_key, jnp.float32(0.5)), image[:, ::-1], image)


def centre(images: jax.Array, augment: str, crop: str) -> jax.Array:
    """The evaluation view of `[..., H, W, C]`: the central window where training sees random ones."""
    if output_size(images.shape[-3], augment, crop) == images.shape[-3]:
        return images
    return images[..., 2:-2, 2:-2, :]
