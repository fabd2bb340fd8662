"""Checkpoints that several processes share: process 0 reads and writes them, and all get the same answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax

from poison_jax.mesh import put
from poison_jax.runs import checkpoint
from poison_jax.runs.distributed import broadcast, first, several

T = TypeVar("T")


class Checkpoints:
    """`checkpoint.Checkpoints` of process 0; what they hold comes to all, to the bit.

    Args:
        directory, warn: as there.
    """

    def __init__(self, directory: Path, *, warn: Callable[[str], None] = print):
        self._own: list[checkpoint.Checkpoints] = []  # on process 0: one
        first(lambda: self._own.append(checkpoint.Checkpoints(directory, warn=warn)))

    def save(self, step: int, state: checkpoint.PyTree, note: dict[str, Any]) -> None:
        """As there."""
        # Orbax takes an array of several processes for something that all of them write.
        state = jax.device_get(state) if several() else state
        first(lambda: self._own[0].save(step, state, note))

    def restore(self, like: checkpoint.PyTree) -> tuple[checkpoint.PyTree, dict[str, Any]] | None:
        """As there."""
        if not several():
            return self._own[0].restore(like)
        state = jax.device_get(like)

        def read() -> dict[str, Any] | None:
            nonlocal state
            state, note = self._own[0].restore(state) or (state, None)
            return note

        note = first(read)
        if note is None:
            return None
        return jax.tree.map(lambda array, old: put(array, old.sharding), broadcast(state), like), note

    def close(self) -> None:
        """As there."""
        for own in self._own:
            own.close()
