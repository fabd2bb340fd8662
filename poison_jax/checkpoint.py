"""Checkpoints of a pytree through orbax, each with digests that say whether it is whole."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

PyTree = Any
SEAL = "digests.json"


class Checkpoints:
    """The last two checkpoints of a run; the older one is there in case the newer is damaged.

    Args:
        directory: made if it is not there.
        warn: called with a line of text when a damaged checkpoint is passed over.
    """

    def __init__(self, directory: Path, *, warn: Callable[[str], None] = print):
        self._directory = Path(directory).resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
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
                    note=ocp.args.JsonSave({"digest": digest(state), "layout": _layout(state), **note}),
                ),
            )
            self._manager.wait_until_finished()
            _seal(self._directory / str(step))
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
                _check_seal(self._directory / str(step))
                note = self._read(step, note=ocp.args.JsonRestore()).note
                if note["layout"] != _layout(like):
                    raise ValueError("its arrays have other names, shapes or types")
                wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
                restored = self._read(step, state=ocp.args.StandardRestore(wanted)).state
                if note["digest"] != digest(restored):
                    raise ValueError("its content does not match its digest")
                return restored, note
            except Exception as error:  # whatever a damaged file makes orbax raise
                reason = " ".join(str(error).split())[:160]
                self._warn(f"checkpoint {step} is damaged ({reason}): set aside in {self._aside}")
                self._set_aside(step)
        if steps:
            self._warn(f"no checkpoint in {self._directory} is whole: starting again")
        return None

    def close(self) -> None:
        """Releases orbax's threads."""
        self._manager.close()

    def _read(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _set_aside(self, step: int) -> None:
        """Out of orbax's way, so that the step can be written again; kept for whoever wants to look."""
        self._aside.mkdir(exist_ok=True)
        shutil.rmtree(self._aside / str(step), ignore_errors=True)
        shutil.move(self._directory / str(step), self._aside / str(step))
        self._manager.close()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            enable_async_checkpointing=False,
            create=False,
            # Of several processes one writes, and the others know nothing of it (`shared`).
            multiprocessing_options=ocp.options.MultiprocessingOptions(active_processes={0}),
        )
        return ocp.CheckpointManager(self._directory, options=options)


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


def _seal(checkpoint: Path) -> None:
    """Puts the digest of every file of a written checkpoint beside them."""
    draft = checkpoint / f".{SEAL}"
    with open(draft, "w") as file:
        json.dump(_files(checkpoint), file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(checkpoint / SEAL)


def _check_seal(checkpoint: Path) -> None:
    """Raises ValueError where a file is not as it was written.

    Orbax would notice most damage as well, but it says so in many lines, from reads that nobody awaits.
    A checkpoint without digests was complete when its process was killed, an instant before they were
    written: what it holds is compared with its note alone.
    """
    if not (checkpoint / SEAL).exists():
        return
    written, found = json.loads((checkpoint / SEAL).read_text()), _files(checkpoint)
    changed = [name for name in written if found.get(name) != written[name]]
    if changed:
        raise ValueError(f"{changed[0]} is {'changed' if changed[0] in found else 'gone'}")


def _files(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of every file under a checkpoint, by its relative path; not of the digests themselves."""
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file() and SEAL not in file.name)
    return {
        str(file.relative_to(checkpoint)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }
