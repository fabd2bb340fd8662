"""Folders of orbax checkpoints of Flax variables, as `files` has files: listed first, read when asked for."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp

from poison_jax.console import printable
from poison_jax.errors import UserError, one_line_of
from poison_jax.foreign import convert
from poison_jax.foreign.files import Contents, Entry

_SPARE = 2**26  # bytes that a checkpoint may take beside its arrays


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Contents]:
    """The arrays of a checkpoint, by PyTorch's names and in its layout.

    Raises:
        UserError: no checkpoint of variables, damaged, with links in it, or larger than its arrays.
    """
    with ocp.StandardCheckpointer() as reader:
        try:
            if any(file.is_symlink() for file in path.rglob("*")):
                raise ValueError("a file in it is a symbolic link")
            listed = reader.metadata(path.absolute()).item_metadata
            flat = flax.traverse_util.flatten_dict(dict(listed.tree))
            _check_sizes(path, list(flat.values()))
        except Exception as error:  # orbax and TensorStore raise whatever they like
            about = printable(one_line_of(error))
            raise UserError(f"{path} is no orbax checkpoint of Flax variables: {about}") from None
        restored: dict[tuple[str, ...], Any] = {}

        def read(key: tuple[str, ...]) -> np.ndarray:
            if not restored:  # all at once, as orbax does it
                like = {k: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for k, leaf in flat.items()}
                try:
                    tree = reader.restore(path.absolute(), flax.traverse_util.unflatten_dict(like))
                except Exception as error:
                    raise UserError(f"{path} cannot be read: {printable(one_line_of(error))}") from None
                restored.update(flax.traverse_util.flatten_dict(tree))
            return convert.torch_layout(key, np.asarray(restored[key]))

        yield Contents(
            {
                convert.torch_name(key): Entry(
                    convert.torch_shape(key, leaf.shape), np.dtype(leaf.dtype).name, lambda key=key: read(key)
                )
                for key, leaf in flat.items()
            }
        )


def _check_sizes(path: Path, leaves: list[Any]) -> None:
    """Raises ValueError where files, or the pieces that are unpacked whole, are larger than the arrays."""
    most = 2 * sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves) + _SPARE
    pieces = sum(math.prod(leaf.storage.chunk_shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    if max(pieces, sum(file.lstat().st_size for file in path.rglob("*"))) > most:
        raise ValueError("it is larger than its arrays")
