"""The dataset-mean input Hessian of a network, its top eigenpairs (App. E.2), and the grid in a picture."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from poison_jax import distributed
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
    starts: int = 1,
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
        starts: how many copies of a repeated eigenvalue can be found, `num_iters` steps each, at most as many
            as there are pixels in all; see `top_eigenpairs` for what one start cannot see.

    Returns:
        `Eigenpairs`; `vectors` are `[k, d]` with d = H * W * C, to be reshaped as an image.

    Raises:
        UserError: shapes that do not fit, `k` or `num_iters` out of range, images or a Hessian that are
            not finite.
    """
    options = {"python_loop": python_loop, "on_product": on_product, "memory": memory, "starts": starts}
    batches = in_batches(images, labels, batch_size, mesh)
    return _eigenpairs(apply_fn, variables, batches, k=k, num_iters=num_iters, key=key, **options)


def per_class(
    apply_fn: Callable[..., Any],
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    batch_size: int,
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
    images, labels = _checked(images, labels)
    if not 0 <= labels.min() <= labels.max() < num_classes:
        raise UserError(f"labels from {labels.min()} to {labels.max()} are not of {num_classes} classes")
    largest = np.bincount(labels).max()
    batch_size = _fitting(batch_size, largest, mesh)
    count = -(-largest // batch_size)
    found = {}
    for label in np.unique(labels):
        own = labels == label
        batches = _batches(images[own], labels[own], batch_size, mesh, count)
        found[label] = _eigenpairs(apply_fn, variables, batches, **options)
    nothing = jax.tree.map(lambda part: np.full_like(part, np.nan), next(iter(found.values())))
    pairs = [found.get(label, nothing) for label in range(num_classes)]
    return Eigenpairs(*(np.stack(part) for part in zip(*pairs, strict=True)))


def in_batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, mesh: Mesh | None = None
) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """Images, labels and weights in batches of one shape, on the devices, checked as `input_hessian` says.

    The weights sum to one over all batches. A ragged last batch is filled up with zeros that weigh nothing.
    """
    images, labels = _checked(images, labels)
    return _batches(images, labels, _fitting(batch_size, len(images), mesh), mesh)


def _checked(images, labels):
    images, labels = np.asarray(images), np.asarray(labels)
    if len(images) == 0 or labels.shape != images.shape[:1]:
        raise UserError(f"images {images.shape} and labels {labels.shape} are not N images and N labels")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images are {images.dtype}: scale and normalise them as the network takes them")
    if not np.isfinite(images).all():
        raise UserError("images hold values that are not finite")
    return images, labels


def _fitting(batch_size, count, mesh):
    """The batch size, or the smallest that the mesh can spread and that holds `count` images."""
    devices = 1 if mesh is None else mesh.size
    if batch_size % devices:
        raise UserError(f"batch_size {batch_size} is not a multiple of the mesh's {devices} devices")
    return min(batch_size, -(-count // devices) * devices)


def _batches(images, labels, batch_size, mesh, count=None):
    """As `in_batches`, and filled up to `count` batches."""
    padding = -len(images) % batch_size if count is None else count * batch_size - len(images)
    weights = np.full(len(images), 1 / len(images), images.dtype)
    sharding = NamedSharding(mesh, PartitionSpec("data")) if mesh is not None else None
    parts = []
    for array in (images, labels, weights):
        array = np.concatenate([array, np.zeros((padding, *array.shape[1:]), array.dtype)])
        array = np.split(array, len(array) // batch_size)
        parts.append([distributed.put(batch, sharding) for batch in array])
    return tuple(parts)


def _eigenpairs(
    apply_fn,
    variables,
    batches,
    *,
    k,
    num_iters,
    key,
    python_loop=None,
    on_product=lambda: None,
    memory=2 * 2**30,
    starts=1,
):
    image = batches[0][0][0]
    start = jax.random.normal(key, (image.size,), np.float32).astype(image.dtype)
    if python_loop is None:
        python_loop = jax.default_backend() == "cpu"
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
    options = {"starts": starts, "args": arguments, "python_loop": python_loop, "check_symmetry": False}
    return top_eigenpairs(matvec, start, k=k, num_iters=num_iters, **options)


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


class SpectralPeak(NamedTuple):
    """The strongest wave in an image."""

    frequency: np.ndarray  # [2]: cycles per image down the rows and along the columns
    share: float  # of the image's power, its mean taken off, that is at +-frequency
    prominence: float  # power at the peak over the median power of the waves as fine as it


def spectral_peak(image: np.ndarray) -> SpectralPeak:
    """The strongest wave in an image: the grid that a warp leaves in an eigenvector (Figure 12) is one.

    Power is that of the discrete Fourier transform, summed over the channels, so that a change of sign
    between channels does not hide a wave. The median is over the ring of frequencies whose radius, in
    cycles per longer side, is within 1/2 of the peak's. In white noise the largest of about H W / 2
    exponential variables stands over their median, about (ln(H W / 2) + 0.58) / ln 2: at 32x32 pixels 10,
    and over 23 in one of a hundred; with three channels 4, and over 6.6 in one of a hundred.

    A prominent wave is not yet a warp: a network's own strides leave a grid of their period (4 pixels, 8
    cycles in 32, for two stages of stride 2), so that a clean run of the same network is the baseline.

    Args:
        image: `[H, W]` or `[H, W, C]`, real and finite.

    Returns:
        `SpectralPeak`. Of the two frequencies f and -f of a wave the one with its last entry positive is
        given (or with that zero, the first positive). Prominence is at most 1 / the float64 epsilon, 4.5e15,
        which a pure wave reaches. An image of constant channels has frequency, share and prominence 0.

    Raises:
        UserError: another shape, or values that are not finite.
    """
    image = np.asarray(image, np.float64)
    if image.ndim not in (2, 3) or not image.size or not np.isfinite(image).all():
        raise UserError(f"an image of shape {image.shape}: give finite values [H, W] or [H, W, C]")
    height, width = image.shape[:2]
    image = image.reshape(height, width, -1)
    # Off with the first pixel, not the mean: the mean of equal numbers need not be that number.
    power = (np.abs(np.fft.fft2(image - image[:1, :1], axes=(0, 1))) ** 2).sum(-1)
    power[0, 0] = 0
    total = power.sum()
    if total == 0:
        return SpectralPeak(np.zeros(2, int), 0.0, 0.0)
    rows, columns = (np.rint(np.fft.fftfreq(n) * n).astype(int) for n in (height, width))
    radius = np.hypot(*np.meshgrid(rows / height, columns / width, indexing="ij")) * max(height, width)
    i, j = np.unravel_index(power.argmax(), power.shape)
    ring = power[np.abs(radius - radius[i, j]) <= 0.5]
    frequency = np.array([rows[i], columns[j]])
    if frequency[1] < 0 or (frequency[1] == 0 and frequency[0] < 0):
        frequency = -frequency
    if 2 * abs(frequency[0]) == height:  # the same wave with either sign
        frequency[0] = height // 2
    pair = {(i, j), (-i % height, -j % width)}  # one where the wave is the finest there is
    floor = np.finfo(np.float64).eps * power[i, j]  # the rounding of the transform
    return SpectralPeak(
        frequency,
        float(sum(power[index] for index in pair) / total),
        float(power[i, j] / max(np.median(ring), floor)),
    )
