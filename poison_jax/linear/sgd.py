"""Linear models trained side by side by plain mini-batch SGD on the squared error (Section 4)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Weights(NamedTuple):
    """Of M models that are trained side by side."""

    rest: jax.Array  # [M, p, K]
    trigger: jax.Array  # [M, q, K]


class Regression(NamedTuple):
    """What the M models are trained on: the same images, each with its own poison and features."""

    rest: jax.Array  # float32 [n, p]: the features that poison does not change
    trigger: jax.Array  # float32 [n, q]: the trigger's pixels in the clean images
    labels: jax.Array  # int32 [n]
    poisoned: jax.Array  # bool [M, n]
    used: jax.Array  # float32 [M, p]: 0 for a feature that a model does without
    value: jax.Array  # of the trigger's pixels in poisoned images
    target: jax.Array  # label of poisoned images


def squared_error(weights: Weights, rest: jax.Array, trigger: jax.Array, labels: jax.Array) -> jax.Array:
    """Half the squared error against one-hot labels, summed over classes, mean over the batch."""
    error = rest @ weights.rest + trigger @ weights.trigger
    error -= jax.nn.one_hot(labels, error.shape[-1], dtype=error.dtype)
    return 0.5 * jnp.mean(jnp.sum(error**2, axis=-1))


@functools.partial(jax.jit, donate_argnums=0)
@jax.default_matmul_precision("highest")
def epoch(weights: Weights, data: Regression, order: jax.Array, learning_rate: jax.Array) -> Weights:
    """One epoch of plain SGD, `order` int `[steps, B]` being the images of each step, for all models.

    As poison changes the trigger's pixels only, the other features are one matrix product for all.
    """

    def update(weights, used, poisoned, rest, trigger, labels):
        trigger = jnp.where(poisoned[:, None], data.value, trigger)
        gradient = jax.grad(squared_error)(weights, rest, trigger, jnp.where(poisoned, data.target, labels))
        gradient = gradient._replace(rest=gradient.rest * used[:, None])
        return jax.tree.map(lambda w, g: w - learning_rate * g, weights, gradient)

    def step(weights, rows):
        batch = data.rest[rows], data.trigger[rows], data.labels[rows]
        over_models = jax.vmap(update, in_axes=(0, 0, 0, None, None, None))
        return over_models(weights, data.used, data.poisoned[:, rows], *batch), None

    return jax.lax.scan(step, weights, order)[0]
