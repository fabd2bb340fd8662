"""A trained network as a subject of study: pure function, arrays, and how it wants its images."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import batches
from poison_jax.errors import UserError
from poison_jax.losses import logits_of


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained network of anybody's.

    Attributes:
        apply_fn: `(variables, images [B, H, W, C]) -> logits [B, K]`, or a tuple that begins with them (and
            may go on with `models.Features`), on *normalised* images, each on its own (inference mode). A
            named function (or `model.apply`) is compiled once for all subjects that share it.
        variables: its first argument, any pytree of arrays.
        normalisation: `(mean, std)`, numbers or `[C]` each, that `apply_fn` expects to have been subtracted
            and divided by; None: it takes images in [0, 1] as they are.
        classes: names of the classes, if known.
        recipe: names how it was trained, where that is known: subjects of one recipe can be compared.

    Raises:
        UserError: a leaf of `variables` that is no array, a standard deviation that is not positive.
    """

    apply_fn: Callable[..., Any]
    variables: Any
    normalisation: tuple[Any, Any] | None = None
    classes: tuple[str, ...] | None = None
    recipe: str = ""

    def __post_init__(self):
        batches.check_variables(self.variables)
        if self.normalisation is not None:
            mean, std = (np.atleast_1d(np.asarray(part, float)) for part in self.normalisation)
            if mean.ndim > 1 or std.ndim > 1 or not np.isfinite(mean).all() or not (std > 0).all():
                raise UserError(
                    f"normalisation {self.normalisation}: give (mean, std), one number or one for each "
                    "channel, std above 0"
                )

    @property
    def of_pixels(self) -> Callable[..., jax.Array]:
        """`(variables, images [B, H, W, C] in [0, 1]) -> logits [B, K]`, one function for equal subjects."""
        constants = self.normalisation and tuple(
            tuple(np.atleast_1d(np.asarray(part, float)).tolist()) for part in self.normalisation
        )
        return _of_pixels(self.apply_fn, constants)

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """Images in [0, 1] as `apply_fn` takes them, float32 `[N, H, W, C]`.

        Raises:
            UserError: images of another number of channels than the normalisation.
        """
        images = np.asarray(images, np.float32)
        if self.normalisation is None:
            return images
        mean, std = (np.asarray(part, np.float32) for part in self.normalisation)
        _check_channels(mean, std, images)
        return (images - mean) / std

    def logits(self, images: np.ndarray, *, batch_size: int | None = None) -> np.ndarray:
        """Logits `[N, K]` of images in [0, 1].

        Args:
            images: float `[N, H, W, C]`, N >= 1.
            batch_size: images at once; changes memory, not the result.

        Raises:
            UserError: as `normalise`.
        """
        compute = functools.partial(batches.logits, self.of_pixels, self.variables)
        return batches.outputs(compute, np.asarray(images, np.float32), batch_size=batch_size)


def _check_channels(mean, std, images):
    """One number or one for each channel: three would make three channels of one."""
    sizes, channels = {mean.size, std.size} - {1}, images.shape[-1]
    if sizes - {channels}:
        raise UserError(
            f"images of {channels} channels, normalisation of {max(sizes)}: give one or {channels}"
        )


@functools.cache
def _of_pixels(apply_fn, constants):
    def apply(variables, images):
        if constants is not None:
            mean, std = (jnp.asarray(part, images.dtype) for part in constants)
            _check_channels(mean, std, images)
            images = (images - mean) / std
        return logits_of(apply_fn(variables, images))

    return apply
