"""Images in batches of one shape, and what has to be true of a network's inputs and outputs."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from poison_jax.errors import UserError
from poison_jax.losses import logits_of
from poison_jax.mesh import put

BATCH_SIZE = 128  # where none is given


def size_of(batch_size: int | None, count: int, mesh: Mesh | None = None) -> int:
    """Return the batch size as asked, or the smallest that holds all images and that the mesh can spread.

    Args:
        batch_size: images at once; None: 128, or the next multiple of the devices.
        count: images that there are.
        mesh: devices over which a batch is spread.

    Raises:
        UserError: below 1, or not a multiple of the devices.
    """
    devices = 1 if mesh is None else mesh.size
    if batch_size is None:
        batch_size = -(-BATCH_SIZE // devices) * devices
    if batch_size < 1:
        raise UserError(f"batch_size = {batch_size}: use at least 1")
    if batch_size % devices:
        raise UserError(f"batch_size {batch_size} is not a multiple of the mesh's {devices} devices")
    return min(batch_size, -(-count // devices) * devices)


def split(
    *arrays: np.ndarray, batch_size: int, count: int | None = None
) -> Iterator[tuple[tuple[np.ndarray, ...], int]]:
    """Yield batches of one shape (one compilation), each with the number of rows in it that count.

    A short batch is filled up with copies of the last row, not with zeros: what a network makes of a zero
    image need not be finite, and NaN times a weight of zero is NaN.

    Args:
        *arrays: `[N, ...]` each, N >= 1.
        batch_size: rows B of every batch.
        count: batches wanted, at least ceil(N / B), which is the default; the rest holds filling alone.

    Yields:
        `(the arrays' rows [B, ...], how many of them are not filling)`.

    >>> [(rows.tolist(), size) for (rows,), size in split(np.arange(5), batch_size=3)]
    [([0, 1, 2], 3), ([3, 4, 4], 2)]
    """
    total = len(arrays[0])
    for start in range(0, (count or -(-total // batch_size)) * batch_size, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), total - 1)
        yield tuple(array[rows] for array in arrays), min(max(total - start, 0), batch_size)


def outputs(
    function: Callable[..., Any], *arrays: np.ndarray, batch_size: int | None, mesh: Mesh | None = None
) -> Any:
    """Return `function(*arrays)` computed batch by batch, on the host.

    Args:
        function: `(rows [B, ...], ...) -> ` any pytree of arrays `[B, ...]`, row by row. With a mesh its
            result is whole on every device, so that any process can read it.
        *arrays: `[N, ...]` each, N >= 1.
        batch_size: see `size_of`; changes memory, not the result.
        mesh: devices over which a batch is spread (`data` axis).

    Returns:
        The pytree, of NumPy arrays `[N, ...]`.
    """
    sharding = None if mesh is None else NamedSharding(mesh, PartitionSpec("data"))
    # The device is never without work, and holds three batches at the most.
    parts, coming = [], []
    for rows, _ in split(*arrays, batch_size=size_of(batch_size, len(arrays[0]), mesh)):
        coming.append(function(*(rows if sharding is None else put(rows, sharding))))
        if len(coming) == 3:
            parts.append(jax.device_get(coming.pop(0)))
    parts += jax.device_get(coming)
    return jax.tree.map(lambda *part: np.concatenate(part)[: len(arrays[0])], *parts)


def checked_images(images: np.ndarray, name: str = "images") -> np.ndarray:
    """Return images as an array, or refuse them: one at least, floating-point and finite.

    Raises:
        UserError: none, integers (pixels that are not scaled yet), NaN or infinity.
    """
    images = np.asarray(images)
    if images.ndim < 2 or 0 in images.shape:
        raise UserError(f"{name} {images.shape} are not N images [N, ...]: give at least one")
    if not jax.numpy.issubdtype(images.dtype, np.floating):
        raise UserError(f"{name} are {images.dtype}: scale and normalise them as the network takes them")
    if not np.isfinite(images).all():
        raise UserError(f"{name} hold values that are not finite")
    return images


def num_classes(apply_fn: Callable[..., Any], variables: Any, images: np.ndarray) -> int:
    """Return K, the last axis of the network's logits; its shapes are evaluated, nothing is computed.

    Args:
        apply_fn: `(variables, images [B, ...]) -> logits [B, K]`, or a tuple that begins with them.
        variables: its first argument, any pytree of arrays.
        images: `[B, ...]` of the shape of the later batches, so that the network is traced once.

    Raises:
        UserError: a leaf of `variables` that is no array; logits that are not `[B, K]`.
    """
    check_variables(variables)
    made = jax.eval_shape(functools.partial(logits, apply_fn), variables, images)
    if getattr(made, "ndim", 0) != 2 or made.shape[0] != len(images) or made.shape[1] == 0:
        shape = getattr(made, "shape", type(made).__name__)
        raise UserError(
            f"apply_fn makes logits {shape} of {len(images)} images: it must return [{len(images)}, classes]"
        )
    return made.shape[1]


def check_variables(variables: Any) -> None:
    """Refuse a pytree with a leaf that is no array.

    Raises:
        UserError: it names the leaf.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        numeric = isinstance(leaf, jax.Array | bool | int | float | complex)
        if isinstance(leaf, np.ndarray | np.generic):
            numeric = leaf.dtype.kind not in "OSUMm"  # objects, text and dates; bfloat16 is of kind V
        if not numeric:
            raise UserError(
                f"variables{jax.tree_util.keystr(path)} is of type {type(leaf).__name__}, no array: bind it "
                "to apply_fn instead (functools.partial), and pass the arrays alone"
            )


@functools.partial(jax.jit, static_argnums=0)
def logits(apply_fn: Callable[..., Any], variables: Any, images: jax.Array) -> jax.Array:
    """Return the logits `[B, K]` of a batch, compiled once for each `apply_fn`."""
    return logits_of(apply_fn(variables, images))
