"""Checkpoints of a pytree through orbax, each with digests that say whether it is whole.

Of several processes the first reads and writes them, and all get the same answers. One that comes from
somebody else runs nothing, is read without following a link, and is no larger in memory than the state that
it is to replace: that is looked up before an array is read.
"""

import contextlib
import copy
import errno
import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from poison_jax.errors import UserError, one_line_of
from poison_jax.mesh import put
from poison_jax.runs import files
from poison_jax.runs.distributed import broadcast, is_multiprocess, on_first

PyTree = Any
Restored = tuple[PyTree, dict[str, Any]] | None  # a state and the note beside it
_SPARE = 2**26  # bytes that the files of a checkpoint may take beside the arrays


class Checkpoints:
    """The last two checkpoints of a run; the older one is there in case the newer is damaged.

    They are written in the background, one after the other, from copies: whoever saves goes on at once.

    Args:
        directory: made if it is not there.
        warn: called with a line of text when a damaged checkpoint is passed over.
    """

    def __init__(self, directory: Path, *, warn: Callable[[str], None] = print):
        self._directory, self._warn = Path(directory), warn
        self._open = contextlib.ExitStack()
        self._written: Future | None = None
        on_first(self._begin)

    def _begin(self) -> None:
        self._directory = files.within(self._directory).resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._for_orbax = self._open.enter_context(_named_plainly(self._directory))
        self._manager = _manager(self._for_orbax)
        self._open.callback(lambda: self._manager.close())
        self._writer = self._open.enter_context(ThreadPoolExecutor(1))

    def save(self, step: int, state: PyTree, note: dict[str, Any]) -> None:
        """Begins to write a checkpoint, visible only when complete; `wait` returns when it is on the disk.

        Args:
            step: its number, rising.
            state: pytree of arrays; copied, so that the next step may take its memory.
            note: plain JSON beside it; copied.

        Raises:
            OSError: the one before could not be written; those before that are untouched.
        """
        state, note = jax.tree.map(np.array, jax.device_get(state)), copy.deepcopy(note)

        def begin() -> None:
            self._wait()
            self._written = self._writer.submit(self._save, step, state, note)

        on_first(begin)

    def wait(self) -> None:
        """Returns when the last checkpoint is on the disk.

        Raises:
            OSError: it could not be written; those before are untouched.
        """
        on_first(self._wait)

    def _wait(self) -> None:
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def _save(self, step: int, state: PyTree, note: dict[str, Any]) -> None:
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
            where = f"checkpoint {step} could not be written to {self._directory}"
            raise OSError(f"{where}: {one_line_of(error)[:300]}") from error

    def restore(self, like: PyTree) -> Restored:
        """The newest checkpoint that is whole, and its note; None where there is none.

        Args:
            like: a state of the same structure, shapes and shardings.

        Raises:
            OSError, MemoryError: one cannot be read as the disk and the machine are now; it stays.
        """
        return _from_first(self._restore, like)

    def _restore(self, like: PyTree) -> Restored:
        """As `restore`; damaged ones are set aside, so that their steps can be written again."""
        self._wait()
        found, damaged = _newest(self._manager, self._directory, like)
        aside = self._directory.with_name("damaged")
        for step, reason in damaged.items():
            self._warn(f"checkpoint {step} is damaged ({reason}): set aside in {aside}")
            aside.mkdir(exist_ok=True)
            shutil.rmtree(aside / str(step), ignore_errors=True)
            shutil.move(self._directory / str(step), aside / str(step))
        if damaged:
            self._manager.close()
            self._manager = _manager(self._for_orbax)
            if found is None:
                self._warn(f"no checkpoint in {self._directory} is whole: starting again")
        return found

    def close(self) -> None:
        """Lets what is being written be finished; releases the threads and the directory."""
        self._open.close()


def newest(directory: Path, like: PyTree, *, warn: Callable[[str], None] = print) -> Restored:
    """As `Checkpoints.restore`, of a run that is only looked at: damaged ones stay where they are."""

    def read(like: PyTree) -> Restored:
        if not Path(directory).is_dir():
            return None
        folder = files.within(Path(directory)).resolve()
        with _named_plainly(folder) as name, contextlib.closing(_manager(name)) as manager:
            found, damaged = _newest(manager, folder, like)
        for step, reason in damaged.items():
            warn(f"checkpoint {step} is damaged ({reason}): passed over")
        return found

    return _from_first(read, like)


def _from_first(read: Callable[[PyTree], Restored], like: PyTree) -> Restored:
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


def _newest(manager: ocp.CheckpointManager, directory: Path, like: PyTree) -> tuple[Restored, dict[int, str]]:
    """The newest checkpoint that is whole, and step -> reason of those newer than it, which are not.

    Raises:
        OSError, MemoryError: it may be whole: what failed is the disk or the machine, not what it holds.
    """
    damaged: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            return _read(manager, directory, step, like), damaged
        except MemoryError:
            raise
        except Exception as error:  # whatever a damaged file makes orbax raise
            if files.passing(error):
                now = f"cannot be read now ({one_line_of(error)[:200]}), and is left as it is"
                raise OSError(f"checkpoint {step} in {directory} {now}") from error
            damaged[step] = one_line_of(error)[:200]
    return None, damaged


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
        # Of several processes one writes, and the others know nothing of it.
        multiprocessing_options=ocp.options.MultiprocessingOptions(active_processes={0}),
    )
    handlers = {"state": ocp.StandardCheckpointHandler(), "note": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)


def _read(manager: ocp.CheckpointManager, directory: Path, step: int, like: PyTree) -> Restored:
    """The state and the note of a checkpoint.

    Raises:
        Exception: it is not whole, or none of `like`.
    """
    checkpoint = files.within(directory / str(step))
    size, most = sum(file.lstat().st_size for file in checkpoint.rglob("*")), 2 * _bytes(like) + _SPARE
    if size > most:
        raise ValueError(f"has {size:,} bytes, more than {most:,}")
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
