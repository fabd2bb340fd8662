"""A training run and a sweep of seconds, what they end with, and how it is compared."""

import contextlib
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from poison_jax.arrays import read_npz
from poison_jax.runs import files
from tests.faults.chapter import TINY, Chapter, Stuck, flags, output
from tests.program import start

SWEEP = "toy"
_BOTH = TINY | {
    "data.n_train": 512,
    "data.n_test": 64,
    "train.epochs": 8,
    "train.learning_rate": 0.05,
}
_LOOKS = {"features": 64, "near_clone": 16, "collapse": 64, "fisher": 64}
_GRID = "((('poison.fraction',(0.05,0.1)),('penalty.kappa',(0.0,1.0))),)"
COMMANDS = {
    "training": flags(
        _BOTH | {"penalty.kappa": 1.0} | {f"analysis.{name}": images for name, images in _LOOKS.items()}
    ),
    "sweep": [
        "--config=configs/sweeps/fig06.py:small",
        *flags(_BOTH | {"experiment": None, "sweep.name": SWEEP, "sweep.grids": _GRID, "sweep.workers": 2}),
        *flags({"sweep.attempts": 1000, "analysis.features": 0}),
    ],
}
Outcome = dict[str, Any]
_TROUBLE = re.compile(r"Traceback|warning|^error|Error\b|Exception", re.IGNORECASE)
_ENDS = {".png": b"IEND\xaeB`\x82", ".pdf": b"%%EOF\n"}


class Undisturbed(NamedTuple):
    """A training run or a sweep that was left alone."""

    workdir: Path
    seconds: float  # that it takes about, everything compiled
    outcome: Outcome


def begin(kind: str, workdir: Path, **variables: str) -> subprocess.Popen:
    """Starts the command of a kind, `training` or `sweep`."""
    return start(["main.py", f"--workdir={workdir}", *COMMANDS[kind]], **variables)


def undisturbed(chapter: Chapter, kind: str) -> Undisturbed:
    """That of a kind, done once for all chapters.

    Raises:
        Stuck: it fails.
    """
    return _undisturbed(kind, chapter.folder.parent / f"undisturbed {kind}")


@functools.cache
def _undisturbed(kind: str, workdir: Path) -> Undisturbed:
    began = time.monotonic()
    process = begin(kind, workdir)
    _, err = output(process)
    if process.returncode or err:
        raise Stuck(f"without a {kind} that succeeds there is nothing to compare with: {err[-800:]!r}")
    seconds = (time.monotonic() - began) / 2  # the others find it compiled
    return Undisturbed(workdir, seconds, outcome(workdir))


def the_run(workdir: Path) -> Path:
    """The one run of a training's workdir."""
    (config,) = workdir.glob("*/config.json")
    return config.parent


def check_end(chapter: Chapter, process: subprocess.Popen, what: str) -> None:
    """Waits for a process that nobody disturbs any more: it succeeds, and says not a word on stderr."""
    out, err = output(process)
    good = process.returncode == 0 and not err
    chapter.check(good, f"{what} ended with {process.returncode}: {err[-800:]!r} after {out[-200:]!r}")


def compare(chapter: Chapter, kind: str, workdir: Path, fate: str) -> None:
    """Checks that a workdir holds what the undisturbed one does, to the bit."""
    try:
        found = outcome(workdir)
    except Exception as error:
        chapter.fail(f"a {kind} {fate}: {workdir} cannot be read: {error!r}")
        return
    wanted = undisturbed(chapter, kind).outcome
    unlike = [
        f"{name} ({'differs' if {name} <= wanted.keys() & found.keys() else 'only in one'})"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    chapter.check(not unlike, f"a {kind} {fate} is not as the undisturbed one: {', '.join(unlike)}")
    chapter.count(f"{kind}s compared with the undisturbed one")


def trouble(workdir: Path) -> str | None:
    """The first line, with those around it, in which a sweep's worker tells of an error or warns."""
    for file in sorted(workdir.glob(f"sweeps/{SWEEP}/*.log")):
        lines = file.read_text(errors="replace").splitlines()
        for i, line in enumerate(lines):
            if _TROUBLE.search(line):
                return " | ".join(lines[max(0, i - 1) : i + 12])[:800]
    return None


def workers(workdir: Path) -> list[int]:
    """The processes that do cells of a sweep in a workdir."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"poison_jax.worker" in words and os.fsencode(workdir) in words:
                found.append(int(folder.name))
    return sorted(found)


def kill(pid: int) -> bool:
    """Kills a process; whether it was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def outcome(workdir: Path) -> Outcome:
    """Whatever must not depend on what befell a run: its files by name, as far as they are no clock's.

    Of a checkpoint the state's digest; the last one's alone, as which other is there depends on when the
    run stopped. Claims, logs, files that are being written or were set aside are no part of it.
    """
    found: Outcome = {}
    for file in sorted(workdir.rglob("*")):
        name = file.relative_to(workdir)
        if file.name == "checkpoints":
            newest = max(file.glob("[0-9]*"), key=lambda step: int(step.name))
            note = json.loads((newest / "note" / "metadata").read_text())
            found[f"{name}, newest"] = newest.name, note["digest"]
        part_of_others = {"checkpoints", "claims", "damaged"} & set(name.parts)
        if file.is_file() and not part_of_others and file.suffix not in (".tmp", ".log"):
            found[str(name)] = content(file)
    return found


def content(file: Path) -> Any:
    """What a whole file holds, as far as it is no clock's.

    Raises:
        Exception: it is not whole.
    """
    if file.suffix == ".npz":
        arrays = read_npz(file)
        arrays.pop("seconds", None)
        return {name: (a.shape, a.dtype.str, a.tobytes()) for name, a in arrays.items()}
    if file.suffix == ".json":
        value = json.loads(file.read_bytes())
        for clock in (files.CHECKSUM, "wall_seconds", "seconds"):  # a checksum is of the time as well
            value.pop(clock, None)
        if file.name == files.SEAL:  # JSON files hold a time
            return {name: digest for name, digest in value.items() if not name.endswith(".json")}
        return value
    whole = file.read_bytes()
    if file.suffix in _ENDS and not whole.endswith(_ENDS[file.suffix]):
        raise ValueError(f"{file} does not end as such a file does")
    return whole if len(whole) < 10_000 else hashlib.sha256(whole).hexdigest()


def check_whole(chapter: Chapter, workdir: Path, what: str) -> None:
    """Checks that no file bears its name without being whole; asked while nobody writes.

    A line of `metrics.jsonl` may be cut off: its reader leaves it out.
    """
    for file in workdir.rglob("*"):
        try:
            if file.parent.name == "checkpoints" and file.name.isdigit():
                broken = files.broken(file, file.rglob("*"))
                chapter.check(not broken, f"{what} left {file} with {broken}")
            elif (
                file.suffix in (".json", ".npz", ".png", ".pdf")
                and "checkpoints" not in file.relative_to(workdir).parts
                and not file.name.startswith(".")
            ):
                content(file)
        except Exception as error:
            chapter.fail(f"{what} left half of {file}: {error}")
