"""What a network says of images without and with the trigger."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from poison_jax import augment, poison
from poison_jax.mesh import put
from poison_jax.train import Knobs, Program


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
def _predict_batch(variables, images, knobs, program):
    logits = [program.model.apply(variables, view)[0] for view in views(images, knobs, program)]
    return jax.lax.with_sharding_constraint(logits, NamedSharding(program.mesh, PartitionSpec()))


def predict(
    variables: Any, images: np.ndarray, knobs: Knobs, program: Program, *, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[N, K]` of uint8 images `[N, H, W, C]`, without and with the trigger."""
    clean, triggered = [], []
    sharding = NamedSharding(program.mesh, PartitionSpec("data"))
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        size = len(batch)
        if size < batch_size:  # one shape, one compilation
            batch = np.concatenate([batch, np.zeros((batch_size - size, *batch.shape[1:]), batch.dtype)])
        logits = _predict_batch(variables, put(batch, sharding), knobs, program)
        logits = jax.device_get(logits)
        clean.append(logits[0][:size])
        triggered.append(logits[1][:size])
    return np.concatenate(clean), np.concatenate(triggered)
