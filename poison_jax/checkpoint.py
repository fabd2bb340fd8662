"""Checkpoints of a pytree through orbax, each with a digest that says whether it is whole."""

import errno
import hashlib
import inspect
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

PyTree = Any


class Checkpoints:
    """The last two checkpoints of a run; the older one is there in case the newer is damaged.

    Args:
        directory: made if it is not there.
        warn: called with a line of text when a damaged checkpoint is passed over.
    """

    def __init__(self, directory: Path, *, warn: Callable[[str], None] = print):
        self._directory = Path(directory).resolve()
        self._aside = self._directory.with_name("damaged")
        self._warn = warn
        self._manager = self._open()

    def save(self, step: int, state: PyTree, note: dict[str, Any]) -> None:
        """Writes a checkpoint; on the disk when this returns, and visible only when complete.

        Args:
            step: its number, rising.
            state: pytree of arrays.
            note: plain JSON beside it.

        Raises:
            OSError: it could not be written; those before are untouched.
        """
        # Orbax says a full disk in a hundred lines from many threads: better not to begin.
        needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**20
        if shutil.disk_usage(self._directory).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._directory))
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    note=ocp.args.JsonSave({"digest": digest(state), **note}),
                ),
            )
            self._manager.wait_until_finished()
        except Exception as error:  # orbax and tensorstore wrap what the system said in many ways
            text = " ".join(str(error).split())
            raise OSError(
                f"checkpoint {step} could not be written to {self._directory}: {text[:300]}"
            ) from error

    def restore(self, like: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and its note; None where there is none.

        Args:
            like: a state of the same structure, shapes and shardings.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, like)),
                        note=ocp.args.JsonRestore(),
                    ),
                )
                if restored.note["digest"] != digest(restored.state):
                    raise ValueError("its content does not match its digest")
                return restored.state, restored.note
            except Exception as error:  # whatever a damaged file makes orbax raise
                _silence_other_reads()
                reason = " ".join(str(error).split())[:160]
                self._warn(f"checkpoint {step} is damaged ({reason}): set aside in {self._aside}")
                self._set_aside(step)
        if steps:
            self._warn(f"no checkpoint in {self._directory} is whole: starting again")
        return None

    def close(self) -> None:
        """Releases orbax's threads."""
        self._manager.close()

    def _set_aside(self, step: int) -> None:
        """Out of orbax's way, so that the step can be written again; kept for whoever wants to look."""
        self._aside.mkdir(exist_ok=True)
        shutil.rmtree(self._aside / str(step), ignore_errors=True)
        shutil.move(self._directory / str(step), self._aside / str(step))
        self._manager.close()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self._directory, options=options)


def digest(state: PyTree) -> str:
    """SHA-256 of the leaves' paths, shapes, dtypes and bytes."""
    result = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(state)):
        leaf = np.ascontiguousarray(leaf)
        result.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
        result.update(leaf.tobytes())
    return result.hexdigest()


def _silence_other_reads() -> None:
    """Of a damaged checkpoint orbax reports one array; Python would print the other reads' errors as well.

    They die in coroutines that nobody awaits, whenever those are collected: not to be told apart from
    other coroutines' errors, which nothing else in this package has.
    """
    report = sys.unraisablehook

    def hook(unraisable):
        if not inspect.iscoroutine(unraisable.object):
            report(unraisable)

    sys.unraisablehook = hook
