"""Files that may be cut off, damaged or somebody else's: written whole, sealed with digests, read with care.

Reading follows no symbolic link, waits for no pipe, takes no more memory than the caller allows, and runs
nothing. Writing puts a file beside the old one and renames it: it is complete or absent.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from poison_jax.errors import Damaged, UserError

Json = dict[str, Any]
TEMPORARY = ".tmp"  # ends the name of a file that is being written
SEAL = "digests.json"  # of a folder: the SHA-256 of every file in it
CHECKSUM = "checksum"  # the key of a JSON object under which its own digest stands


# --- what may come from somebody else ---------------------------------------------------------------
# `arrays.read_npz` and `checkpoint` know the sizes of arrays before they unpack them, besides.

MOST_OF_A_RUN = 2**30  # bytes of a run's file, and of the arrays in it: a hostile one is not unpacked
MOST_JSON = 2**26  # bytes of a JSON object: more is none of ours
_MOST_SEALED = 2**34  # bytes of a file that is sealed


def read(file: Path, *, most: int = MOST_JSON) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        Damaged: it is a link, a folder, a pipe or larger.
        OSError: it is absent or cannot be read.
    """
    with _open(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            raise Damaged(file, f"has {size:,} bytes, more than {most:,}")
        return stream.read(most)


def lines(file: Path) -> Iterator[bytes]:
    """The lines of a regular file, one at a time.

    Raises:
        Damaged: it is a link, a folder or a pipe, or a line is too long to be one of ours.
        OSError: it is absent or cannot be read.
    """
    with _open(file) as stream:
        while line := stream.readline(MOST_JSON + 1):
            if len(line) > MOST_JSON:
                raise Damaged(file, f"has a line of more than {MOST_JSON:,} bytes")
            yield line


@contextlib.contextmanager
def _open(file: Path) -> Iterator[IO[bytes]]:
    if file.is_symlink():  # said so, instead of "too many levels of symbolic links"
        raise Damaged(file, "is a symbolic link, which is not followed")
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(file, "rb", opener=lambda path, _: os.open(path, flags)) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise Damaged(file, "is no regular file")
        yield stream


def within(file: Path) -> Path:
    """The same path, if it is no symbolic link: what is written or looked for there stays there.

    Raises:
        UserError: it is one.
    """
    if file.is_symlink():
        raise UserError(f"{file} is a symbolic link, which leads out of its folder: remove it")
    return file


def is_name(name: Any) -> bool:
    r"""Whether it is the name of a file or folder in the folder at hand: none that leads out of it.

    >>> [is_name(name) for name in ("run-1", "..", "a/b", "a\\b", "", 3)]
    [True, False, False, False, False, False]
    """
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


# --- JSON -------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A value as JSON has it: a number that is not finite becomes null, a tuple a list."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dumps(value: Json, *, indent: int | None = None) -> str:
    """A JSON object as text, its checksum the last key."""
    value = plain(value)
    return json.dumps(value | {CHECKSUM: _checksum(value)}, indent=indent)


def loads(text: bytes, where: str, *, version: int | None = None) -> Json:
    """The object that `dumps` made a text of, without its checksum.

    Args:
        text: UTF-8.
        where: it comes from, for the message.
        version: that its `format` has; None: it has no such key.

    Raises:
        Damaged: the text is another one.
        UserError: it is of another version, which may have another checksum.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise Damaged(where, "cannot be read (nested too deep)") from None
    except ValueError as error:  # also: not UTF-8, a number of too many digits
        raise Damaged(where, f"cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise Damaged(where, "is not a JSON object")
    if version is not None and (found := value.get("format")) != version:
        advice = "update poison_jax" if isinstance(found, int) and found > version else "move it away"
        raise UserError(f"{where} has format {found}, this version reads {version}: {advice}")
    given = value.pop(CHECKSUM, None)
    if given is None:
        raise Damaged(where, "has no checksum (it is damaged, or of an older version)")
    if given != _checksum(value):
        raise Damaged(where, "does not match its checksum")
    return value


def read_json(file: Path, *, version: int | None = None) -> Json:
    """The object that a file of `write_json` holds; its format as of `loads`.

    Raises:
        Damaged: it is absent or not as it was written.
    """
    return loads(read_text(file), str(file), version=version)


def read_text(file: Path) -> bytes:
    """The content of a file of text.

    Raises:
        Damaged: it is absent, cannot be read, or is too large to be one of ours.
    """
    try:
        return read(file)
    except OSError as error:
        raise Damaged(file, f"cannot be read ({error.strerror})") from error


_OF_FILES = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)  # what lies there, or does not


def passing(error: BaseException) -> bool:
    """Whether an error is of the disk or the machine as they are now, not of what a file holds.

    `MemoryError` is no such error by itself: a hostile shape asks for any size.
    """
    if isinstance(error, OSError) and error.errno not in _OF_FILES:
        return True
    exhausted = "RESOURCE_EXHAUSTED" in str(error)  # as TensorStore and XLA say it
    return exhausted or (error.__cause__ is not None and passing(error.__cause__))


def write_json(file: Path, value: Json) -> None:
    """Writes a JSON object with its checksum, whole or not at all."""
    write(file, (dumps(value, indent=2) + "\n").encode())


def _checksum(value: Json) -> str:
    """16 hexadecimal digits of the SHA-256 of an object, however its keys are ordered."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# --- writing ----------------------------------------------------------------------------------------


def write(file: Path, content: bytes) -> None:
    """Writes a file, whole or not at all; on the disk when this returns."""
    for attempt in range(3):
        try:
            with replacing(file) as stream:
                stream.write(content)
            return
        except FileNotFoundError:  # whoever claims a run removes what killed processes left, and this as well
            if attempt == 2 or not file.parent.is_dir():
                raise


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """A stream whose content takes the place of `file` when all of it is on the disk.

    Of a name of its own: several processes may write the same file at once, and the last one wins.
    """
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def append(file: Path, line: str) -> None:
    """Adds a line to a file; on the disk when this returns."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with open(within(file), "a", opener=lambda path, _: os.open(path, flags, 0o666)) as stream:
        stream.write(line + "\n")
        stream.flush()
        os.fsync(stream.fileno())


# --- seals ------------------------------------------------------------------------------------------


def seal(folder: Path, files: Iterable[Path], *, more: bool = False) -> None:
    """Puts the digests of files in a folder beside them; those of others stay if there are `more`."""
    others = read_json(folder / SEAL) if more and (folder / SEAL).exists() else {}
    write_json(folder / SEAL, others | _digests(folder, files))


def broken(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """The relative paths of files that are not as they were sealed, and why; none where there is no seal.

    Args:
        folder: the one that was sealed.
        files: those that are there now.

    Raises:
        Damaged: the seal itself is, or a link is among the files.
    """
    found = _digests(folder, files)
    if not (folder / SEAL).exists():
        return {}
    sealed = read_json(folder / SEAL)
    return {
        name: "is not as it was written" if name in found else "is gone"
        for name in sealed
        if found.get(name) != sealed[name]
    }


def _digests(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of every file by its relative path; not of folders, nor of the seal."""
    result = {}
    for file in sorted(files):
        kind = file.lstat().st_mode
        if stat.S_ISDIR(kind) or file.name in (SEAL, f".{SEAL}"):
            continue
        if not stat.S_ISREG(kind):
            raise Damaged(file, "is a link or a pipe, none of ours")
        if file.lstat().st_size > _MOST_SEALED:  # of holes, maybe: the digest would take hours
            raise Damaged(file, f"has {file.lstat().st_size:,} bytes, more than {_MOST_SEALED:,}")
        with open(file, "rb") as stream:
            result[file.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return result
