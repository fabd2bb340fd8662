"""Reading arrays from files that may be damaged, or come from someone else; telling arrays apart."""

import hashlib
import os
from collections.abc import Iterable

import numpy as np


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file; nothing is unpickled, and every member's CRC is checked.

    Raises:
        Exception: the file is absent, damaged, or no archive of plain arrays. NumPy and zipfile raise
            half a dozen unrelated types for that, so callers catch them all.
    """
    with open(path, "rb") as file:  # np.load leaves its own open where the archive is damaged
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        arrays = {key: archive[key] for key in archive.files}
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy hands out other members' bytes
            raise ValueError(f"{key!r} is no array")
    return arrays


def digest(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 of the arrays' contents, in hexadecimal.

    >>> digest([np.arange(3)]) == digest([np.arange(3)]) != digest([np.arange(4)])
    True
    """
    result = hashlib.sha256()
    for array in arrays:
        result.update(np.ascontiguousarray(array))
    return result.hexdigest()
