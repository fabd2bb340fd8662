"""Arrays from files that may be damaged or foreign; class labels that are what they should be; digests."""

import contextlib
import hashlib
import os
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from poison_jax.errors import UserError


def read_npz(source: str | os.PathLike | BinaryIO, *, most: int | None = None) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file; nothing is unpickled, and every member's CRC is checked.

    Args:
        source: a file, by name or open.
        most: bytes that all arrays may take together, known before any is read; None: what memory this
            machine has.

    Raises:
        Exception: the file is absent, damaged, too large, or no archive of plain arrays. NumPy and zipfile
            raise half a dozen unrelated types for that, so callers catch them all.
    """
    with contextlib.ExitStack() as stack:
        # np.load leaves a file that it has opened itself open where the archive is damaged.
        stream = source if hasattr(source, "read") else stack.enter_context(open(source, "rb"))
        archive = np.load(stream, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        size, most = sum(member.file_size for member in archive.zip.infolist()), most or memory()
        if size > most:
            raise ValueError(f"its arrays take {size / 2**30:,.1f} GiB, more than {most / 2**30:,.1f} GiB")
        arrays = {key: archive[key] for key in archive.files}
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy hands out other members' bytes
            raise ValueError(f"{key!r} is no array")
    return arrays


def memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def class_labels(labels: np.ndarray, count: int, num_classes: int, *, what: str = "images") -> np.ndarray:
    """Return the labels as an array, or refuse them: integers `[count]`, each in 0 .. num_classes - 1.

    A label outside this range has no logit: indexing wraps it or fills in NaN, and what is computed from it
    is finite and wrong.

    Args:
        labels: int `[count]`.
        count: N, of the images, features or logits that are labelled.
        num_classes: K.
        what: what is labelled, for the message.

    Raises:
        UserError: another shape (`[N, 1]` and one-hot rows among them), no integers, no classes.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        raise UserError(f"labels are {list(labels.shape)}: flatten them to [N], with labels.reshape(-1)")
    if labels.ndim == 2 and labels.shape == (count, num_classes):
        raise UserError(f"labels are {list(labels.shape)}: of one-hot rows take labels.argmax(-1)")
    if labels.shape != (count,):
        raise UserError(f"{count} {what} and labels {labels.shape} are not N {what} and N labels")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels are {labels.dtype}: give the integers 0 to {num_classes - 1}")
    if count and not 0 <= labels.min() <= labels.max() < num_classes:
        raise UserError(
            f"labels run from {labels.min()} to {labels.max()}, the {num_classes} classes from 0 to "
            f"{num_classes - 1}: number the classes from 0"
        )
    return labels


def finite(name: str, values: np.ndarray, *ndim: int) -> np.ndarray:
    """Return values as float64, or refuse them where one is NaN or infinite: comparisons would miscount it.

    Args:
        name: what they are, for the message.
        values: real numbers.
        ndim: how many dimensions they may have; then they must not be empty either.

    Raises:
        UserError: it says how many are not finite, or what else is wrong with the array.
    """
    try:
        values = np.asarray(values)
    except ValueError:  # rows of different lengths
        raise UserError(f"{name} is not a rectangular array of numbers") from None
    if values.dtype.kind in "cOSU":
        raise UserError(f"{name} must be real numbers, not {values.dtype}")
    if ndim and (values.ndim not in ndim or 0 in values.shape):
        wanted = " or ".join(f"{n}-dimensional" for n in ndim)
        raise UserError(f"{name} is {list(values.shape)}, must be {wanted} and not empty")
    values = values.astype(np.float64, copy=False)
    bad = np.count_nonzero(~np.isfinite(values))
    if bad:
        raise UserError(f"{name}: {bad} of {values.size} values are not finite")
    return values


def digest(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 of the arrays' contents, in hexadecimal.

    >>> digest([np.arange(3)]) == digest([np.arange(3)]) != digest([np.arange(4)])
    True
    """
    result = hashlib.sha256()
    for array in arrays:
        result.update(np.ascontiguousarray(array))
    return result.hexdigest()
