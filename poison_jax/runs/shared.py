"""Checkpoints that several processes share: process 0 reads and writes them, and all get the same answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from poison_jax.mesh import put
from poison_jax.runs import checkpoint
from poison_jax.runs.distributed import broadcast, is_multiprocess, on_first


class Checkpoints:
    """`checkpoint.Checkpoints` of process 0; what they hold comes to all, to the bit.

    Args:
        directory, warn: as there.
    """

    def __init__(self, directory: Path, *, warn: Callable[[str], None] = print):
        self._own: list[checkpoint.Checkpoints] = []  # on process 0: one
        on_first(lambda: self._own.append(checkpoint.Checkpoints(directory, warn=warn)))

    def save(self, step: int, state: checkpoint.PyTree, note: dict[str, Any]) -> None:
        """As there."""
        # Orbax takes an array of several processes for something that all of them write.
        state = jax.device_get(state) if is_multiprocess() else state
        on_first(lambda: self._own[0].save(step, state, note))

    def restore(self, like: checkpoint.PyTree) -> tuple[checkpoint.PyTree, dict[str, Any]] | None:
        """As there."""
        return _from_first(lambda like: self._own[0].restore(like), like)

    def close(self) -> None:
        """As there."""
        for own in self._own:
            own.close()


def newest(
    directory: Path, like: checkpoint.PyTree, *, warn: Callable[[str], None] = print
) -> tuple[checkpoint.PyTree, dict[str, Any]] | None:
    """`checkpoint.newest` of process 0, that comes to all; None where there is no such directory, too."""

    def read(like):
        return checkpoint.newest(directory, like, warn=warn) if directory.is_dir() else None

    return _from_first(read, like)


def _from_first(
    read: Callable[[checkpoint.PyTree], tuple[checkpoint.PyTree, dict[str, Any]] | None],
    like: checkpoint.PyTree,
) -> tuple[checkpoint.PyTree, dict[str, Any]] | None:
    """What `read(like)` returns on process 0, that alone calls it: with the shardings of `like`, on all."""
    if not is_multiprocess():
        return read(like)
    state = jax.device_get(like)

    def note_of() -> dict[str, Any] | None:
        nonlocal state
        state, note = read(state) or (state, None)
        return note

    note = on_first(note_of)
    if note is None:
        return None
    return jax.tree.map(lambda array, old: put(array, old.sharding), broadcast(state), like), note
