"""A network's logits on images without and with the trigger."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from poison_jax import augment, batches, poison
from poison_jax.errors import UserError
from poison_jax.mesh import put
from poison_jax.train import Knobs, Program, at_precision

AT_ONCE = 2**30  # bytes of images on the devices, beside the training set


def views(images: jax.Array, knobs: Knobs, program: Program) -> tuple[jax.Array, jax.Array]:
    """Network inputs for uint8 images `[B, H, W, C]`: without the trigger, and with it on every one."""
    images = jnp.asarray(images, knobs.mean.dtype) / 255
    clean = augment.centre(images, program.augment, program.crop)
    if program.when == "after_augment":
        triggered = poison.apply(clean, knobs.trigger)
    else:
        attacked = poison.apply(images, knobs.trigger)
        triggered = augment.centre(attacked, program.augment, program.crop)
    return tuple(augment.normalise(view, knobs.mean, knobs.std) for view in (clean, triggered))


@partial(jax.jit, static_argnames="program")
def _logits(variables, images, knobs, program):
    """Of uint8 `[M, B, H, W, C]`, one batch after another: `[M, B, K]` without and with the trigger."""

    def of_batch(images):
        with at_precision(program):
            return [program.model.apply(variables, view)[0] for view in views(images, knobs, program)]

    everywhere = NamedSharding(program.mesh, PartitionSpec())
    return jax.lax.with_sharding_constraint(jax.lax.map(of_batch, images), everywhere)


def predict(
    variables: Any, images: np.ndarray, knobs: Knobs, program: Program, *, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits `[N, K]` of uint8 images `[N, H, W, C]`, without and with the trigger.

    Args:
        variables: of the network.
        images: uint8 `[N, H, W, C]`, N >= 1.
        knobs, program: as `train` takes them; the images are spread over the program's mesh.
        batch_size: images at once, a multiple of the mesh's devices; changes memory, not the result.

    All batches are one program, as long as the images take at most `AT_ONCE` bytes of the devices.

    Raises:
        UserError: no images, or images that are not uint8; a batch size that the mesh cannot spread.
    """
    images = np.asarray(images)
    if images.ndim != 4 or 0 in images.shape or images.dtype != np.uint8:
        raise UserError(f"images {images.dtype} {images.shape}: give uint8 [N, H, W, C], at least one")

    size = batches.size_of(batch_size, len(images), program.mesh)
    rows = size * max(AT_ONCE // (size * images[0].nbytes), 1)
    passes = [
        _pass(variables, images[start : start + rows], knobs, program, size)
        for start in range(0, len(images), rows)
    ]
    clean, triggered = (np.concatenate(parts) for parts in zip(*passes, strict=True))
    return clean, triggered


def _pass(variables, images, knobs, program, batch_size):
    stacked = np.stack([rows for (rows,), _ in batches.split(images, batch_size=batch_size)])
    stacked = put(stacked, NamedSharding(program.mesh, PartitionSpec(None, "data")))
    logits = jax.device_get(_logits(variables, stacked, knobs, program))
    return [part.reshape(-1, part.shape[-1])[: len(images)] for part in logits]
