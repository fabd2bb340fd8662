"""A claim on a folder that expires: one process at a time, on one machine or on many that share a disk.

A claim is a numbered file, made exclusively and with its content: whoever makes number n + 1 has taken over
from n, and of two that try one succeeds. Its holder touches it now and then; one that was not touched for
`patience` seconds has expired, and at once where its process is known to be gone. A holder that was asleep
for longer finds a higher number than its own: `Lease.check`, called before anything is written, then raises
`Busy`.

The claims of a run may be somebody else's, as all of it: they are read with care (`files`).
"""

import contextlib
import errno
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from poison_jax.errors import Busy, UserError
from poison_jax.runs import files

PATIENCE = 300.0  # seconds without a sign of life after which a claim has expired
_MOST = 4096  # bytes of a claim
_NUMBER = re.compile("[1-9][0-9]{0,8}")


class Lease:
    """A claim that is held; made by `hold`."""

    def __init__(self, folder: Path, number: int):
        self._folder, self._number = folder, number

    @property
    def file(self) -> Path:
        """The claim."""
        return self._folder / str(self._number)

    def check(self) -> None:
        """Raises `Busy` if another process has taken over."""
        if _newest(self._folder) != self._number:
            raise Busy(f"another process has taken over {self._folder.parent}: left to it")


@contextlib.contextmanager
def hold(folder: Path, *, patience: float = PATIENCE) -> Iterator[Lease]:
    """Claims a folder for the length of the context.

    Args:
        folder: of the claims, made if it is not there; what is claimed is its parent.
        patience: seconds without a sign of life after which another's claim has expired.

    Raises:
        Busy: another process holds it.
        UserError: a claim has a number that none of ours gets.
        OSError: the disk is full or read-only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    busy = Busy(f"another process is working on {folder.parent}: wait for it or stop it")
    last = _newest(folder)
    if not _NUMBER.fullmatch(str(last + 1)):
        raise UserError(f"{folder} holds a claim of number {last}, which is none of ours: remove the folder")
    lease = Lease(folder, last + 1)
    draft = folder / f".draft-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    draft.unlink(missing_ok=True)  # a killed process's of this number: its claim may be the same file
    try:
        with open(draft, "x") as stream:
            json.dump([_machine(), os.getpid(), _born(os.getpid())], stream)
        # Now by the clock that stamps the folder's files: that of the disk's server, not of this machine.
        if last and _alive(folder / str(last), patience, draft.stat().st_mtime):
            raise busy
        _link(draft, lease.file)
    except FileExistsError:
        raise busy from None
    finally:
        draft.unlink(missing_ok=True)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(lease.file, patience / 10, done), daemon=True)
    beat.start()
    try:
        yield lease
    finally:
        done.set()
        beat.join()
        with contextlib.suppress(OSError, UserError):  # what cannot be said expires
            _release(lease.file)


def held(folder: Path, *, patience: float = PATIENCE) -> bool:
    """Whether some process holds a folder; by this machine's clock, for people to look at."""
    last = _newest(folder)
    return bool(last) and _alive(folder / str(last), patience, time.time())


def deaths(folder: Path) -> int:
    """How many processes have claimed a folder and neither released it nor hold it now."""
    if not folder.is_dir():
        return 0
    names = {file.name for file in folder.iterdir()}
    claims = filter(_NUMBER.fullmatch, names)
    return sum(f"{name}.released" not in names for name in claims) - held(folder)


def forgive(folder: Path) -> None:
    """Takes the claims of dead processes for released: `deaths` is 0 afterwards.

    Raises:
        UserError: a link is in the place of what would say so.
    """
    if folder.is_dir() and not held(folder):
        for name in filter(_NUMBER.fullmatch, os.listdir(folder)):
            _release(folder / name)


def _release(claim: Path) -> None:
    files.within(_released(claim)).touch()


def _released(claim: Path) -> Path:
    """The file that says that a claim is over."""
    return claim.with_name(f"{claim.name}.released")


def _beat(file: Path, seconds: float, done: threading.Event) -> None:
    while not done.wait(seconds):
        with contextlib.suppress(OSError):
            os.utime(file)


def _newest(folder: Path) -> int:
    """The highest number; 0 where there is none."""
    try:
        return max(map(int, filter(_NUMBER.fullmatch, os.listdir(folder))), default=0)
    except FileNotFoundError:
        return 0


def _alive(claim: Path, patience: float, now: float) -> bool:
    if _released(claim).exists():
        return False
    try:
        machine, pid, born = json.loads(files.read(claim, most=_MOST))
    except (IsADirectoryError, RecursionError, TypeError, ValueError):  # being written, damaged, none of ours
        machine = None
    if machine == _machine() and isinstance(pid, int) and (_born(pid) is None or _born(pid) != born):
        return False
    return now - claim.lstat().st_mtime < patience


def _link(draft: Path, claim: Path) -> None:
    """The draft's content under the claim's name, in one step: a kill leaves no claim that says nothing.

    Raises:
        FileExistsError: the claim is there already.
    """
    try:
        os.link(draft, claim)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        with open(claim, "x") as file:  # a disk without links
            file.write(draft.read_text())


def _machine() -> str:
    """Where a process number means the same process: the host since it started, and its process namespace."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _born(pid: int) -> int | None:
    """When a process of this machine was started, in clock ticks; None if it is gone, 0 if nobody can say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return 0
