"""The input Fisher F = E[g g'], g the input gradient of an example's loss (Section 3.5.2, App. A.6)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from poison_jax import batches
from poison_jax.autodiff import value_and_input_gradient
from poison_jax.errors import UserError
from poison_jax.lanczos import Eigenpairs, top_eigenpairs
from poison_jax.losses import cross_entropy
from poison_jax.spectrum import checked, random_start


@jax.default_matmul_precision("highest")
def input_gradients(
    apply_fn: Callable[..., Any],
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Every example's own input gradient `g_i = grad_x loss_i` of the softmax cross-entropy (eq. 29).

    Takes N * d * itemsize bytes on the host and as many on the first device, whatever the batch size: for
    CIFAR 12 kB an image, 12 MiB for 1,024. F is a mean over examples: for less, give fewer of them.

    Args:
        apply_fn: `(variables, images [B, ...]) -> logits [B, K]`, or a tuple that begins with them, in
            inference mode, where examples do not see each other. A named function (or `model.apply`) is
            compiled once, a new lambda each time.
        variables: first argument of `apply_fn`, any pytree.
        images: `[N, ...]` in the network's own, normalised, input space.
        labels: int `[N]`.
        batch_size: images at once, as for `spectrum.input_hessian`; changes memory, not the result.
        mesh: devices over which a batch is spread (`data` axis); `batch_size` is a multiple of them.

    Returns:
        `[N, d]` of the images' dtype, d = H * W * C, in the order of the images.

    Raises:
        UserError: as `spectrum.input_hessian`.
    """
    images, labels, batch_size = checked(apply_fn, variables, images, labels, batch_size, mesh)
    of_batch = functools.partial(_batch_gradients, apply_fn, mesh, variables)
    return jnp.asarray(batches.outputs(of_batch, images, labels, batch_size=batch_size, mesh=mesh))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _batch_gradients(apply_fn, mesh, variables, images, labels):
    loss = cross_entropy(apply_fn)
    _, gradient = value_and_input_gradient(loss.with_aux, variables, images, labels)
    gradient = gradient.reshape(len(images), -1)
    if mesh is not None:  # whole on every device, so that any process can read it
        gradient = jax.lax.with_sharding_constraint(gradient, NamedSharding(mesh, PartitionSpec()))
    return gradient


def input_fisher(
    apply_fn: Callable[..., Any],
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    k: int,
    num_iters: int | None = None,
    key: jax.Array | int = 0,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Eigenpairs:
    """Top eigenpairs of `F = mean_i g_i g_i'` (eq. 29), to be compared with `spectrum.input_hessian`.

    The gradients are computed once, `input_gradients` says in how much memory; a Lanczos step is then two
    products with them and costs 4 N d operations. The rank of F is at most N: pairs beyond it have value 0.

    Args:
        apply_fn, variables, images, labels, batch_size, mesh: as for `input_gradients`.
        k: eigenpairs wanted, at most `num_iters`.
        num_iters, key: as for `spectrum.input_hessian`.

    Returns:
        `Eigenpairs`; `vectors` are `[k, d]`, to be reshaped as an image.

    Raises:
        UserError: shapes that do not fit, `k` or `num_iters` out of range, values that are not finite.
    """
    gradients = input_gradients(apply_fn, variables, images, labels, batch_size=batch_size, mesh=mesh)
    start = random_start(key, gradients.shape[1], gradients.dtype)
    return top_eigenpairs(_product, start, k=k, num_iters=num_iters, args=(gradients,))


def _product(v, gradients):
    """F v. In full precision: GPUs and TPUs round a float32 matrix product to fewer bits unless told."""
    along = jnp.matmul(gradients, v, precision="highest")
    return jnp.matmul(along, gradients, precision="highest") / len(gradients)


def energies(gradients: jax.Array, directions: np.ndarray) -> np.ndarray:
    """`E_v = v'F v` (eq. 30) of every direction, scaled to unit length: the mean of `(v'g_i)^2`.

    Args:
        gradients: `[N, d]`, of `input_gradients`.
        directions: `[m, d]`, of any length: eigenvectors, or a trigger. Listing 7's overlap centres its
            vectors; whoever compares with it centres the trigger first.

    Returns:
        `[m]`, in squared loss per squared (normalised) pixel; NaN for a direction of zeros, which is none.

    Raises:
        UserError: shapes that do not fit.

    >>> print(energies(np.array([[3.0, 0.0], [1.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 1.0]])))
    [5. 0.]
    """
    directions = np.asarray(directions)
    if np.ndim(gradients) != 2 or directions.ndim != 2 or directions.shape[1] != gradients.shape[1]:
        raise UserError(f"gradients {np.shape(gradients)} and directions {directions.shape} do not fit")
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    unit = directions / np.where(length == 0, np.nan, length)
    gradients = jnp.asarray(gradients)
    return np.asarray(_energies(gradients, jnp.asarray(unit, gradients.dtype)))


@jax.jit
def _energies(gradients, unit):
    return jnp.mean(jnp.matmul(gradients, unit.T, precision="highest") ** 2, axis=0)


def trace(gradients: jax.Array) -> float:
    """`tr F = mean_i |g_i|^2` (eq. 34), the energy of all directions together.

    It is what training penalises: kappa * tr F with the reduction `per_example` of
    `losses.gradient_penalised`, kappa / 2 of it with `eq25`, kappa / N of it with `listing`.
    """
    return float(jnp.sum(jnp.square(gradients)) / len(gradients))
