"""Reading arrays from files that may be damaged, or come from someone else."""

import os

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
        return {key: archive[key] for key in archive.files}
