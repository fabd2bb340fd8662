"""Checkpoints of a pytree through orbax, each with digests that say whether it is whole.

One that comes from somebody else runs nothing, is read without following a link, and is no larger in memory
than the state that it is to replace: that is looked up before an array is read.
"""

import contextlib
import errno
import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from poison_jax.errors import UserError
from poison_jax.runs import files

PyTree = Any
_SPARE = 2**26  # bytes that the files of a checkpoint may take beside the arrays


class Checkpoints:
    """The last two checkpoints of a run; the older one is there in case the newer is damaged.

    Args:
        directory: made if it is not there.
        warn: called with a line of text when a damaged checkpoint is passed over.
    """

    def __init__(self, directory: Path, *, warn: Callable[[str], None] = print):
        self._directory = files.within(Path(directory)).resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._aside = self._directory.with_name("damaged")
        self._warn = warn
        self._open = contextlib.ExitStack()
        self._for_orbax = self._open.enter_context(_named_plainly(self._directory))
        self._manager = _manager(self._for_orbax)

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
        needed = 2 * _bytes(state) + 2**20
        if shutil.disk_usage(self._directory).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._directory))
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    note=ocp.args.JsonSave({"digest": digest(state), "layout": _layout(state), **note}),
                ),
            )
            self._manager.wait_until_finished()
            checkpoint = self._directory / str(step)
            files.seal(checkpoint, checkpoint.rglob("*"))
        except Exception as error:  # orbax and tensorstore wrap what the system said in many ways
            reason = _reason(error, 300)
            raise OSError(f"checkpoint {step} could not be written to {self._directory}: {reason}") from error

    def restore(self, like: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and its note; None where there is none.

        Args:
            like: a state of the same structure, shapes and shardings.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return _read(self._manager, self._directory, step, like)
            except Exception as error:  # whatever a damaged file makes orbax raise
                self._warn(f"checkpoint {step} is damaged ({_reason(error)}): set aside in {self._aside}")
                self._set_aside(step)
        if steps:
            self._warn(f"no checkpoint in {self._directory} is whole: starting again")
        return None

    def close(self) -> None:
        """Releases orbax's threads and the directory."""
        self._manager.close()
        self._open.close()

    def _set_aside(self, step: int) -> None:
        """Out of orbax's way, so that the step can be written again; kept for whoever wants to look."""
        self._aside.mkdir(exist_ok=True)
        shutil.rmtree(self._aside / str(step), ignore_errors=True)
        shutil.move(self._directory / str(step), self._aside / str(step))
        self._manager.close()
        self._manager = _manager(self._for_orbax)


def newest(
    directory: Path, like: PyTree, *, warn: Callable[[str], None] = print
) -> tuple[PyTree, dict[str, Any]] | None:
    """As `Checkpoints.restore`, of a run that is only looked at: damaged ones stay where they are."""
    directory = files.within(Path(directory)).resolve()
    with _named_plainly(directory) as name, contextlib.closing(_manager(name)) as manager:
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                return _read(manager, directory, step, like)
            except Exception as error:
                warn(f"checkpoint {step} is damaged ({_reason(error)}): passed over")
    return None


_PLAIN = re.compile(r"[\w /.,+=@~-]+")
_OPEN_FILES = Path("/proc/self/fd")


@contextlib.contextmanager
def _named_plainly(directory: Path) -> Iterator[Path]:
    """Yields a path of a directory that orbax and TensorStore read as one.

    They take `[x]` and `**` in a path for patterns, a backslash for `/` and `gs:` for a scheme: what they
    write there is not found again, or lies in another folder. Such a directory is kept open and named by
    its number in `/proc`.

    Raises:
        UserError: the system has no such names.
    """
    if _PLAIN.fullmatch(str(directory)):
        yield directory
        return
    if not _OPEN_FILES.is_dir():
        strange = "".join(sorted(set(re.sub(_PLAIN, "", str(directory)))))
        raise UserError(f"checkpoints cannot be kept in {directory}, for its {strange}: name another folder")
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _OPEN_FILES / str(number)
    finally:
        os.close(number)


def _manager(directory: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2,
        enable_async_checkpointing=False,
        create=False,
        # Of several processes one writes, and the others know nothing of it (`shared`).
        multiprocessing_options=ocp.options.MultiprocessingOptions(active_processes={0}),
    )
    handlers = {"state": ocp.StandardCheckpointHandler(), "note": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)


def _read(
    manager: ocp.CheckpointManager, directory: Path, step: int, like: PyTree
) -> tuple[PyTree, dict[str, Any]]:
    """The state and the note of a checkpoint.

    Raises:
        Exception: it is not whole, or none of `like`.
    """
    checkpoint = files.within(directory / str(step))
    files.check_size(checkpoint, most=2 * _bytes(like) + _SPARE)
    # Orbax would notice most damage as well, but it says so in many lines, from reads that nobody awaits.
    # A checkpoint without digests was complete when its process was killed, an instant before they were
    # written: what it holds is compared with its note alone.
    if changed := files.broken(checkpoint, checkpoint.rglob("*")):
        name, how = next(iter(changed.items()))
        raise ValueError(f"{name} {how}")
    note = manager.restore(step, args=ocp.args.Composite(note=ocp.args.JsonRestore())).note
    if note["layout"] != _layout(like):
        raise ValueError("its arrays have other names, shapes or types")
    _check_chunks(manager.item_metadata(step).state, like)
    wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted))).state
    if note["digest"] != digest(restored):
        raise ValueError("its content does not match its digest")
    return restored, note


def _check_chunks(metadata: PyTree, like: PyTree) -> None:
    """Raises ValueError where an array is stored in pieces larger than itself: they are unpacked whole."""
    stored = jax.tree.leaves(metadata, is_leaf=lambda leaf: hasattr(leaf, "storage"))
    pieces = sum(math.prod(leaf.storage.chunk_shape) * np.dtype(leaf.dtype).itemsize for leaf in stored)
    if pieces > 2 * _bytes(like) + _SPARE:
        raise ValueError(f"its arrays are stored in pieces of {pieces:,} bytes")


def _bytes(state: PyTree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


def _reason(error: Exception, most: int = 160) -> str:
    return " ".join(str(error).split())[:most]


def digest(state: PyTree) -> str:
    """SHA-256 of the leaves' paths, shapes, dtypes and bytes."""
    result = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(state)):
        leaf = np.ascontiguousarray(leaf)
        result.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
        result.update(leaf.tobytes())
    return result.hexdigest()


def _layout(state: PyTree) -> str:
    """SHA-256 of the leaves' paths, shapes and dtypes: orbax reads them before it finds that they differ."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    lines = [f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}" for path, leaf in leaves]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
