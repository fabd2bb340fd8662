"""The dataset-mean input Hessian of a network and its top eigenpairs (App. E.2)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from poison_jax import batches, environment
from poison_jax.arrays import class_labels
from poison_jax.autodiff import hvp, linearised_hvp
from poison_jax.lanczos import Eigenpairs, top_eigenpairs
from poison_jax.losses import cross_entropy
from poison_jax.mesh import put


@jax.default_matmul_precision("highest")
def input_hessian(
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
    python_loop: bool | None = None,
    on_product: Callable[[], None] = lambda: None,
    memory: float = 2 * 2**30,
    starts: int = 1,
) -> Eigenpairs:
    """Top eigenpairs of `H = mean_i Hess_x loss_i`, as Listings 5 and 6 mean it.

    H is the Hessian at 0 of `f(delta) = mean_i loss(x_i + delta, y_i)`, with softmax cross-entropy and
    whatever statistics `apply_fn` uses. It is never formed: a product with it is a sum over batches, a
    ragged last one weighted by its size. The images themselves stay on the devices, N * d * itemsize bytes.

    Batches change nothing only if `apply_fn` treats each image on its own: pass the network in inference
    mode, as the paper does. A train-mode `apply_fn` makes the result depend on the batch: batch norm takes
    its statistics from the images that happen to be in it, the copies that fill up a ragged one included, so
    that `batch_size` and the order of the images change the eigenvalues.

    Args:
        apply_fn: `(variables, images [B, ...]) -> logits [B, K]`, or a tuple that begins with them.
            A named function (or `model.apply`) is compiled once, a new lambda each time.
        variables: first argument of `apply_fn`, any pytree of arrays.
        images: `[N, ...]` in the network's own, normalised, input space.
        labels: int `[N]`, in 0 .. K - 1.
        k: eigenpairs wanted, at most `num_iters`.
        num_iters: Lanczos steps, at most the number of pixels d. One pass over the images each, and k + 1
            more for the residuals. None: 2 k + 20, or d if that is less; the residuals say whether it was
            enough.
        key: of the random start vector, a key or the integer seed of one.
        batch_size: images at once; changes memory, not the result. None: 128 (with a mesh, the next
            multiple of its devices).
        mesh: devices over which a batch is spread (`data` axis); `batch_size` is a multiple of them.
        python_loop: loop over batches and steps in Python, compiling one batch; None: on the CPU, whose
            compiler makes convolution gradients inside a loop 8 to 30 times slower.
        on_product: called after every Hessian-vector product of a Python loop.
        memory: bytes that a Python loop may keep of the batches' linearised gradients, which spare every
            product but the first their forward pass; batches beyond it are computed anew.
        starts: how many copies of a repeated eigenvalue can be found; `num_iters` steps each, d steps at most
            in all; see `top_eigenpairs` for what one start cannot see.

    Returns:
        `Eigenpairs`; `vectors` are `[k, d]` with d = H * W * C, to be reshaped as an image.

    Raises:
        UserError: shapes that do not fit, labels that are no classes, a leaf of `variables` that is no array,
            `k` or `num_iters` out of range, images or a Hessian that are not finite.
    """
    images, labels, batch_size = checked(apply_fn, variables, images, labels, batch_size, mesh)
    parts = _weighted(images, labels, batch_size)
    options = {"python_loop": python_loop, "on_product": on_product, "memory": memory, "starts": starts}
    return _eigenpairs(apply_fn, variables, parts, mesh, k=k, num_iters=num_iters, key=key, **options)


@jax.default_matmul_precision("highest")
def per_class(
    apply_fn: Callable[..., Any],
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    **options: Any,
) -> Eigenpairs:
    """`input_hessian` of each class's images alone: H is the mean of these, weighted by the classes' sizes.

    One compilation serves all classes: each goes in as many batches, of one shape, as the largest class
    needs, so that all together cost as many products as `num_classes` times the largest.

    Args:
        apply_fn, variables, images, labels, mesh: as for `input_hessian`.
        num_classes: labels are 0 to `num_classes - 1`.
        batch_size: images at once, at most; no larger than the largest class is used.
        **options: the others of `input_hessian`, `k`, `num_iters` and `key` among them.

    Returns:
        `Eigenpairs` whose every entry has a leading axis of classes: values `[num_classes, k]`, vectors
        `[num_classes, k, d]`, smallest value `[num_classes]`. NaN for a class without images.

    Raises:
        UserError: as `input_hessian`; labels that are no classes.
    """
    images, labels, _ = checked(apply_fn, variables, images, labels, batch_size, mesh)
    class_labels(labels, len(images), num_classes)
    largest = np.bincount(labels).max()
    batch_size = batches.size_of(batch_size, largest, mesh)
    count = -(-largest // batch_size)
    pairs_of = {}
    for label in np.unique(labels):
        of_class = labels == label
        parts = _weighted(images[of_class], labels[of_class], batch_size, count)
        pairs_of[label] = _eigenpairs(apply_fn, variables, parts, mesh, **options)
    nothing = jax.tree.map(lambda part: np.full_like(part, np.nan), next(iter(pairs_of.values())))
    pairs = [pairs_of.get(label, nothing) for label in range(num_classes)]
    return Eigenpairs(*(np.stack(part) for part in zip(*pairs, strict=True)))


def checked(
    apply_fn: Callable[..., Any],
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int | None,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Images, labels and the batch size, or the refusals that `input_hessian` names."""
    images = batches.checked_images(images)
    batch_size = batches.size_of(batch_size, len(images), mesh)
    (example_batch,), _ = next(batches.split(images, batch_size=batch_size))
    labels = class_labels(labels, len(images), batches.num_classes(apply_fn, variables, example_batch))
    return images, labels, batch_size


def random_start(key: jax.Array | int, dimension: int, dtype: Any) -> jax.Array:
    """Return a random start vector `[dimension]` for Lanczos; `key` is a key or the integer seed of one."""
    key = environment.key(key) if isinstance(key, int | np.integer) else key
    return jax.random.normal(key, (dimension,), np.float32).astype(dtype)


def _weighted(images, labels, batch_size, count=None):
    """Images `[M, B, ...]`, labels and weights of M batches, on the host; the weights sum to one over all."""
    count = count or -(-len(images) // batch_size)
    ((rows, size),) = batches.split(images, labels, batch_size=count * batch_size)
    weights = np.where(np.arange(count * batch_size) < size, 1 / size, 0).astype(images.dtype)
    return tuple(array.reshape(count, batch_size, *array.shape[1:]) for array in (*rows, weights))


def _eigenpairs(
    apply_fn,
    variables,
    parts,
    mesh,
    *,
    k,
    num_iters=None,
    key=0,
    python_loop=None,
    on_product=lambda: None,
    memory=2 * 2**30,
    starts=1,
):
    image = parts[0][0, 0]
    start = random_start(key, image.size, jax.dtypes.canonicalize_dtype(image.dtype))
    if python_loop is None:
        python_loop = jax.default_backend() == "cpu"
    spread = PartitionSpec("data") if python_loop else PartitionSpec(None, "data")
    sharding = NamedSharding(mesh, spread) if mesh is not None else None
    if python_loop:
        on_devices = [put(batch, sharding) for batch in zip(*parts, strict=True)]
        products = _batch_products(apply_fn, variables, on_devices, memory)

        def matvec(v):
            total = sum(product(v) for product in products)
            on_product()
            return total

        arguments = ()
    else:
        matvec = _scanned(apply_fn)
        arguments = (variables, put(parts, sharding))
    options = {"starts": starts, "args": arguments, "python_loop": python_loop, "check_symmetry": False}
    return top_eigenpairs(matvec, start, k=k, num_iters=num_iters, **options)


def _batch_products(apply_fn, variables, parts, memory):
    """`v -> H v` of every batch: from its linearised gradient as long as there is memory for it."""
    shapes = jax.eval_shape(functools.partial(_linearise, apply_fn), variables, parts[0])
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    kept = min(len(parts), int(memory // max(size, 1)))
    return [
        functools.partial(_apply, _linearise(apply_fn, variables, batch))
        if i < kept
        else functools.partial(_batch_product, apply_fn, variables, batch)
        for i, batch in enumerate(parts)
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
    def matvec(v, variables, parts):
        def add(total, batch):
            return total + _batch_product(apply_fn, variables, batch, v), None

        return jax.lax.scan(add, jnp.zeros_like(v), parts)[0]

    return matvec
