"""Checks of the images and labels that detectors are given; random numbers from a key."""

import jax
import numpy as np

from poison_jax import batches, environment
from poison_jax.arrays import class_labels
from poison_jax.errors import UserError, about
from poison_jax.subject import Subject


def checked_pixels(images: np.ndarray, name: str = "images") -> np.ndarray:
    """Return images as float32, or refuse what is not `[N, H, W, C]`, finite and in [0, 1]."""
    images = batches.checked_images(images, name)
    if images.ndim != 4:
        raise UserError(f"{name} {images.shape} are not [N, H, W, C]")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        hint = "divide them by 255" if low >= 0 and high <= 255 else "they are normalised already"
        raise UserError(f"{name} lie in [{low:.3g}, {high:.3g}], not in [0, 1]: {hint}?")
    return images.astype(np.float32)


def checked(
    subject: Subject,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    least: int = 2,
    size: tuple[int, ...] | None = None,
    name: str = "images",
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return images, labels and the number of classes, or refuse them.

    Args:
        subject: the network, which says how many classes there are.
        images: float `[N, H, W, C]` in [0, 1].
        labels: int `[N]`; None where a detector needs none.
        least: classes that the statistic needs.
        size: H, W, C, where they are given already.
        name: what the images are called in a refusal.

    Returns:
        Images as float32, labels, K.

    Raises:
        UserError: images that are not finite, not `[N, H, W, C]` or of another size, pixels outside [0, 1],
            fewer than `least` classes, labels outside the logits.
    """
    images = checked_pixels(images, name)
    if size is not None and images.shape[1:] != size:
        raise UserError(f"{name} {images.shape[1:]} and images {size} differ in size")
    num_classes = batches.num_classes(subject.of_pixels, subject.variables, images[:1])
    if num_classes < least:
        raise UserError(f"the network has {num_classes} logits, this detector needs at least {least} classes")
    if labels is not None:
        labels = class_labels(labels, len(images), num_classes)
    return images, labels, num_classes


def checked_logits(
    subject: Subject, images: np.ndarray, *, batch_size: int | None = None, name: str = "the network"
) -> np.ndarray:
    """Return the logits `[N, K]` of a network, or refuse it.

    Args:
        subject: the network.
        images: float `[N, H, W, C]` in [0, 1].
        batch_size: images at once; changes memory, not the result.
        name: what the network is called in a refusal.

    Raises:
        UserError: it does not take these images, or gives what is no `[N, K]`, not finite, or probabilities.
    """
    try:
        logits = subject.logits(images, batch_size=batch_size)
    except Exception as error:  # anybody's function may raise anything
        raise UserError(f"{name} does not take images {images.shape[1:]}: {about(error)}") from None
    if logits.ndim != 2 or not np.isfinite(logits).all():
        raise UserError(f"{name} gives {logits.shape}, not finite logits [N, classes]")
    if logits.shape[1] > 1 and (logits >= 0).all() and np.allclose(logits.sum(-1), 1, atol=1e-4):
        raise UserError(f"{name} gives probabilities: give their logarithm, or the logits themselves")
    return logits


def as_key(key: jax.Array | int) -> jax.Array:
    """Return a key, or the key of an integer seed."""
    return environment.key(key) if isinstance(key, int | np.integer) else key


def generator(key: jax.Array | int) -> np.random.Generator:
    """Return NumPy's random numbers for a key: equal keys, equal numbers."""
    return np.random.default_rng(np.asarray(jax.random.key_data(as_key(key))))
