"""The common gradient of a class's log-odds: a linearised universal trigger, by one backward pass a class.

    g_t = grad_delta mean over images not of class t of [z_t - logsumexp_{k != t} z_k](x + delta), at 0

It is the mean, over where the trigger may be stamped, of the gradient in Theorem 3.4: what a backdoor adds to
it is the same for every image and adds up, what the images themselves add points everywhere and cancels. The
class whose common gradient stands out names the target; the gradient is a picture of the trigger.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import batches
from poison_jax.arrays import class_labels
from poison_jax.audit.detector import Detector, NetworkScore
from poison_jax.errors import UserError
from poison_jax.losses import log_odds, logits_of
from poison_jax.subject import Subject

STRONGEST = 4  # pixels that localisation is the share of
STEP = 0.2  # of the images' norm, along a common gradient


@jax.default_matmul_precision("highest")
def common_gradients(
    apply_fn: Callable[..., Any],
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int | None = None,
) -> np.ndarray:
    """The common gradient of every class's log-odds.

    Args:
        apply_fn: `(variables, images [B, ...]) -> logits [B, K]`, or a tuple that begins with them; in
            inference mode. A named function (or `model.apply`) is compiled once, a new lambda each time.
        variables: its first argument, any pytree of arrays.
        images: float `[N, ...]` in the network's own, normalised, input space.
        labels: int `[N]`, in 0 .. K - 1.
        batch_size: images at once; changes memory, not the result.

    Returns:
        `[K, ...]`: g_t for every class t, in the dtype of the images; NaN where every image is of class t.

    Raises:
        UserError: fewer than two classes, labels that are no classes, images that are not finite.
    """
    images = batches.checked_images(images)
    batch_size = batches.size_of(batch_size, len(images))
    (example,), _ = next(batches.split(images, batch_size=batch_size))
    num_classes = batches.num_classes(apply_fn, variables, example)
    if num_classes < 2:
        raise UserError("the network has one class: there is nothing to be taken for something else")
    labels = class_labels(labels, len(images), num_classes)
    others = len(images) - np.bincount(labels, minlength=num_classes)
    totals = np.zeros((num_classes, *images.shape[1:]), images.dtype)
    for (rows, row_labels), size in batches.split(images, labels, batch_size=batch_size):
        counted = np.arange(batch_size) < size
        for t in range(num_classes):
            weights = (counted & (row_labels != t)).astype(images.dtype)
            totals[t] += np.asarray(_batch_gradient(apply_fn, variables, rows, weights, t))
    with np.errstate(invalid="ignore"):
        return totals / others.astype(images.dtype).reshape(-1, *[1] * (images.ndim - 1))


@functools.partial(jax.jit, static_argnums=0)
def _batch_gradient(apply_fn, variables, images, weights, target):
    def total(delta):
        return weights @ log_odds(logits_of(apply_fn(variables, images + delta)), target)

    return jax.grad(total)(jnp.zeros_like(images[0]))


def norms(gradients: np.ndarray) -> np.ndarray:
    """`|g_t|` of gradients `[K, ...]`."""
    return np.linalg.norm(gradients.reshape(len(gradients), -1), axis=1)


def localisations(gradients: np.ndarray) -> np.ndarray:
    """Share of `|g_t|` in its four strongest pixels, `[K]` in [0, 1]; channels are put together.

    Args:
        gradients: `[K, H, W, C]`; or `[K, d]`, where every entry is a pixel. A zero gradient has NaN.
    """
    gradients = gradients if gradients.ndim == 4 else gradients.reshape(len(gradients), -1, 1, 1)
    energy = np.sum(np.square(gradients, dtype=float), axis=-1).reshape(len(gradients), -1)
    strongest = np.sort(energy, axis=1)[:, -STRONGEST:].sum(1)
    with np.errstate(invalid="ignore"):
        return np.sqrt(strongest / energy.sum(1))


def ratio(values: np.ndarray) -> tuple[float, int]:
    """The largest of the classes' values over their median, and whose it is; NaN is left out.

    Raises:
        UserError: no class has a value, or the median is zero: the network does not depend on its input.
    """
    median = np.nanmedian(values) if np.isfinite(values).any() else 0.0
    if not median > 0:
        raise UserError(
            "the common gradient of half of the classes is zero: do the logits depend on the image?"
        )
    return float(np.nanmax(values) / median), int(np.nanargmax(values))


def flip_rate(
    subject: Subject,
    images: np.ndarray,
    labels: np.ndarray,
    direction: np.ndarray,
    target: int,
    *,
    length: float = STEP,
    batch_size: int | None = None,
) -> float:
    """Share of the images of other classes that one step along a direction sends to the target.

    Args:
        subject: the network.
        images, labels: float `[N, H, W, C]` in [0, 1], int `[N]`.
        direction: `[H, W, C]` in the normalised input space, of whatever length.
        target: the class.
        length: of the step, over the root mean square norm of the normalised images.
        batch_size: images at once; changes memory, not the result.

    Returns:
        A share in [0, 1]; NaN where every image is of the target's class, or the direction is zero.
    """
    inputs = subject.normalise(images)[labels != target]
    norm = np.linalg.norm(direction)
    if not len(inputs) or not norm > 0:
        return float("nan")
    size = np.sqrt(np.mean(np.sum(np.square(inputs, dtype=float), axis=(1, 2, 3))))
    moved = (inputs + length * size * direction / norm).astype(np.float32)
    compute = functools.partial(batches.logits, subject.apply_fn, subject.variables)
    return float(np.mean(batches.outputs(compute, moved, batch_size=batch_size).argmax(-1) == target))


def flip_rates(
    subject: Subject,
    images: np.ndarray,
    labels: np.ndarray,
    gradients: np.ndarray,
    *,
    batch_size: int | None = None,
) -> np.ndarray:
    """`flip_rate` along each class's common gradient, of `[K, H, W, C]`, to that class: `[K]`."""
    options = {"batch_size": batch_size}
    return np.array([flip_rate(subject, images, labels, g, t, **options) for t, g in enumerate(gradients)])


def _score(measure, subject: Subject, images, labels, *, key, batch_size) -> NetworkScore:
    gradients = common_gradients(
        subject.apply_fn, subject.variables, subject.normalise(images), labels, batch_size=batch_size
    )
    return score_of(gradients, measure)


def score_of(gradients: np.ndarray, measure: Callable[[np.ndarray], np.ndarray]) -> NetworkScore:
    """The score that gradients `[K, H, W, C]` amount to by `norms` or `localisations`."""
    largest, target = ratio(measure(gradients))
    return NetworkScore(float(np.log(largest)), target, gradients[target].copy())


NORM = Detector(
    "common gradient",
    "log of the largest |g_t| over the classes' median",
    "images with labels",
    functools.partial(_score, norms),
)
LOCALISATION = Detector(
    "its localisation",
    f"log of the largest share in {STRONGEST} pixels over the classes' median",
    "images with labels",
    functools.partial(_score, localisations),
)


def _flip_score(subject: Subject, images, labels, *, key, batch_size) -> NetworkScore:
    options = {"batch_size": batch_size}
    gradients = common_gradients(
        subject.apply_fn, subject.variables, subject.normalise(images), labels, **options
    )
    return flips_score_of(flip_rates(subject, images, labels, gradients, **options), gradients)


def flips_score_of(rates: np.ndarray, gradients: np.ndarray) -> NetworkScore:
    """The score that flip rates `[K]` amount to: the largest, and whose it is."""
    target = int(np.nanargmax(rates))
    return NetworkScore(float(rates[target]), target, gradients[target].copy())


FLIPS = Detector(
    "common gradient's flips",
    f"largest share of the other images that a step of {STEP} of their norm along it sends to its class",
    "images with labels",
    _flip_score,
)
