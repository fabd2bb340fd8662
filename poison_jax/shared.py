"""A run that several processes train: process 0 alone has its directory, and all get the same answers.

The others need no common disk. What goes wrong on it (it is full, it holds another run) is raised on all of
them. With a single process these are `store.Run` and `checkpoint.Checkpoints`.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax

from poison_jax import checkpoint, store
from poison_jax.distributed import broadcast, first, put, same, several

T = TypeVar("T")


def _of_first(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method as process 0 alone calls it, for all."""

    @functools.wraps(method)
    def call(self, *args, **options):
        return first(lambda: method(self._own, *args, **options))

    return call


class Run:
    """A run's directory, as far as training needs it; every call must be made by all processes."""

    def __init__(self, own: store.Run):
        self._own = own  # not inherited from: its methods that call each other do so on process 0 alone
        self.path, self.checkpoints = own.path, own.checkpoints

    config = _of_first(store.Run.config)
    finished = _of_first(store.Run.finished)
    finish = _of_first(store.Run.finish)
    append_metrics = _of_first(store.Run.append_metrics)
    metrics = _of_first(store.Run.metrics)
    keep_metrics = _of_first(store.Run.keep_metrics)
    save_arrays = _of_first(store.Run.save_arrays)

    def pin_inputs(self, digest: str) -> None:
        """As of `store.Run`; all processes must have read the same."""
        same("the data or the trigger that they read", digest)
        first(lambda: self._own.pin_inputs(digest))

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """As of `store.Run`."""
        with held_by_first(self._own.claim):
            yield


def open_run(
    workdir: str | os.PathLike, name: str, config: store.Json, not_identity: tuple[str, ...] = ()
) -> Run:
    """As `store.open_run`."""
    path = first(lambda: str(store.open_run(workdir, name, config, not_identity).path))
    return Run(store.Run(path))


@contextlib.contextmanager
def held_by_first(make: Callable[[], contextlib.AbstractContextManager[T]]) -> Iterator[T | None]:
    """Enters a context on process 0 alone; yields what it yields there, None on the others."""
    entered = []
    with contextlib.ExitStack() as stack:
        first(lambda: entered.append(stack.enter_context(make())))
        yield entered[0] if entered else None


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
