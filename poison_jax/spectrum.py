"""The dataset-mean input Hessian of a network and its top eigenpairs (App. E.2)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from poison_jax.autodiff import hvp, linearised_hvp
from poison_jax.errors import UserError
from poison_jax.lanczos import Eigenpairs, top_eigenpairs
from poison_jax.losses import cross_entropy


def input_hessian(
    apply_fn: Callable[..., Any],
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    k: int,
    num_iters: int,
    key: jax.Array,
    batch_size: int,
    mesh: Mesh | None = None,
    python_loop: bool | None = None,
    on_product: Callable[[], None] = lambda: None,
    memory: float = 2 * 2**30,
) -> Eigenpairs:
    """Top eigenpairs of `H = mean_i Hess_x loss_i`, as Listings 5 and 6 mean it.

    H is the Hessian at 0 of `f(delta) = mean_i loss(x_i + delta, y_i)`, with softmax cross-entropy and
    whatever statistics `apply_fn` uses (inference mode, for the paper). It is streamed over the images
    in batches, a ragged last one weighted by its size, and never formed.

    Args:
        apply_fn: `(variables, images [B, ...]) -> logits [B, K]`, or a tuple that begins with them.
            A named function (or `model.apply`) is compiled once, a new lambda each time.
        variables: first argument of `apply_fn`, any pytree.
        images: `[N, ...]` in the network's own, normalised, input space.
        labels: int `[N]`.
        k: eigenpairs wanted, at most `num_iters`.
        num_iters: Lanczos steps, at most the number of pixels. One pass over the images each, and k + 1
            more for the residuals.
        key: of the random start vector.
        batch_size: images at once; changes memory, not the result.
        mesh: devices over which a batch is spread (`data` axis); `batch_size` is a multiple of them.
        python_loop: loop over batches and steps in Python, compiling one batch; None: on the CPU, whose
            compiler makes convolution gradients inside a loop 8 to 30 times slower.
        on_product: called after every Hessian-vector product of a Python loop.
        memory: bytes that a Python loop may keep of the batches' linearised gradients, which spare every
            product but the first their forward pass; batches beyond it are computed anew.

    Returns:
        `Eigenpairs`; `vectors` are `[k, d]` with d = H * W * C, to be reshaped as an image.

    Raises:
        UserError: shapes that do not fit, `k` or `num_iters` out of range, images or a Hessian that are
            not finite.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if len(images) == 0 or labels.shape != images.shape[:1]:
        raise UserError(f"images {images.shape} and labels {labels.shape} are not N images and N labels")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images are {images.dtype}: scale and normalise them as the network takes them")
    if not np.isfinite(images).all():
        raise UserError("images hold values that are not finite")
    batch_size = min(batch_size, len(images)) if mesh is None else batch_size
    if mesh is not None and batch_size % mesh.size:
        raise UserError(f"batch_size {batch_size} is not a multiple of the mesh's {mesh.size} devices")
    if python_loop is None:
        python_loop = jax.default_backend() == "cpu"
    batches = _batches(images, labels, batch_size, mesh)
    start = jax.random.normal(key, (images[0].size,), images.dtype)
    if python_loop:
        products = _batch_products(apply_fn, variables, list(zip(*batches, strict=True)), memory)

        def matvec(v):
            total = sum(product(v) for product in products)
            on_product()
            return total

        arguments = ()
    else:
        matvec = _scanned(apply_fn)
        arguments = (variables, tuple(jnp.stack(part) for part in batches))
    return top_eigenpairs(matvec, start, k=k, num_iters=num_iters, args=arguments, python_loop=python_loop)


def _batches(images, labels, batch_size, mesh):
    """Lists of image batches, label batches and weights that sum to one; padding weighs nothing."""
    padding = -len(images) % batch_size
    weights = np.full(len(images), 1 / len(images), images.dtype)
    parts = []
    for array in (images, labels, weights):
        array = np.concatenate([array, np.zeros((padding, *array.shape[1:]), array.dtype)])
        array = np.split(array, len(array) // batch_size)
        sharding = NamedSharding(mesh, PartitionSpec("data")) if mesh is not None else None
        parts.append([jax.device_put(batch, sharding) for batch in array])
    return tuple(parts)


def _batch_products(apply_fn, variables, batches, memory):
    """`v -> H v` of every batch: from its linearised gradient as long as there is memory for it."""
    shapes = jax.eval_shape(functools.partial(_linearise, apply_fn), variables, batches[0])
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    kept = min(len(batches), int(memory // size))
    return [
        functools.partial(_apply, _linearise(apply_fn, variables, batch))
        if i < kept
        else functools.partial(_batch_product, apply_fn, variables, batch)
        for i, batch in enumerate(batches)
    ]


def _batch_loss(apply_fn, variables, batch):
    """`delta [d] -> sum_i w_i loss(x_i + delta)`, and the zero at which its Hessian is wanted."""
    images, labels, weights = batch

    def f(delta):
        return weights @ cross_entropy(apply_fn)(variables, images + delta.reshape(images.shape[1:]), labels)

    return f, jnp.zeros(images[0].size, images.dtype)


@functools.partial(jax.jit, static_argnums=0)
def _linearise(apply_fn, variables, batch):
    return linearised_hvp(*_batch_loss(apply_fn, variables, batch))


@jax.jit
def _apply(product, v):
    return product(v)[0]


@functools.partial(jax.jit, static_argnums=0)
def _batch_product(apply_fn, variables, batch, v):
    f, zero = _batch_loss(apply_fn, variables, batch)
    return hvp(f, zero, v)


@functools.cache
def _scanned(apply_fn):
    def matvec(v, variables, batches):
        def add(total, batch):
            return total + _batch_product(apply_fn, variables, batch, v), None

        return jax.lax.scan(add, jnp.zeros_like(v), batches)[0]

    return matvec
