"""A training run and a sweep of seconds, what they end with, and how it is compared: for `kills`, `disks`."""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from poison_jax.arrays import read_npz
from poison_jax.runs import files
from tests.faults.chapter import Chapter, start

LONGEST = 240  # seconds that a process may take, on a machine that has much else to do
SWEEP = "toy"
_BOTH = (
    "--config.data.name=digits",
    "--config.data.n_train=512",
    "--config.data.n_test=64",
    "--config.model.depth=8",
    "--config.model.block=basic",
    "--config.model.width=4",
    "--config.poison.margin=0",
    "--config.train.epochs=8",
    "--config.train.learning_rate=0.05",
    "--config.train.batch_size=32",
    "--config.spectrum.k=2",
    "--config.spectrum.num_iters=3",
    "--config.spectrum.num_examples=32",
)
COMMANDS = {
    "training": (
        *_BOTH,
        "--config.experiment=train",
        "--config.penalty.kappa=1.0",
    ),
    "sweep": (
        "--config=configs/sweeps/fig06.py:small",
        *_BOTH,
        f"--config.sweep.name={SWEEP}",
        "--config.sweep.grids=((('poison.fraction',(0.05,0.1)),('penalty.kappa',(0.0,1.0))),)",
        "--config.sweep.workers=2",
        "--config.sweep.attempts=1000",
        "--config.analysis.features=0",
    ),
}
Outcome = dict[str, Any]
_TROUBLE = re.compile(r"Traceback|warning|^error|Error\b|Exception", re.IGNORECASE)


_UNDISTURBED: dict[Path, tuple[dict[str, Outcome], dict[str, float]]] = {}  # done once for all chapters


class Stuck(Exception):
    """A chapter cannot go on: a process does not end, or an undisturbed one has failed."""


class Runs:
    """The undisturbed training and sweep, and everything that others are compared with.

    Args:
        chapter: they are done beside its folder.

    Raises:
        Stuck: they fail.
    """

    def __init__(self, chapter: Chapter):
        self._chapter = chapter
        shared = chapter.folder.parent / "undisturbed"
        self.cache = Path(os.environ["POISON_JAX_CACHE"])
        self.undisturbed, self.seconds = _UNDISTURBED.setdefault(shared, ({}, {}))
        for kind in COMMANDS:
            if kind not in self.undisturbed:
                began = time.monotonic()
                if not self.end(self.start(kind, shared / kind), kind, "undisturbed"):
                    raise Stuck(f"without a {kind} that succeeds there is nothing to compare with")
                self.seconds[kind] = (time.monotonic() - began) / 2  # the others find it compiled
                self.undisturbed[kind] = outcome(shared / kind)

    def start(self, kind: str, workdir: Path, cache: Path | None = None) -> subprocess.Popen:
        """The command of a kind, `training` or `sweep`."""
        command = ["main.py", f"--workdir={workdir}", *COMMANDS[kind]]
        return start(command, POISON_JAX_CACHE=str(cache or self.cache))

    def end(self, process: subprocess.Popen, kind: str, fate: str) -> bool:
        """Waits for a process that nobody disturbs any more: it succeeds, and says not a word on stderr."""
        out, err = output(process)
        good = process.returncode == 0 and not err
        return self._chapter.check(
            good, f"a {kind} {fate} ended with {process.returncode}: {err[-800:]!r} after {out[-200:]!r}"
        )

    def compare(self, kind: str, workdir: Path, fate: str) -> bool:
        """Whether a workdir holds what the undisturbed one does, to the bit."""
        try:
            found = outcome(workdir)
        except Exception as error:
            return self._chapter.check(False, f"a {kind} {fate}: {workdir} cannot be read: {error!r}")
        wanted = self.undisturbed[kind]
        unlike = [
            f"{name} ({'differs' if {name} <= wanted.keys() & found.keys() else 'only in one'})"
            for name in sorted(wanted.keys() | found.keys())
            if wanted.get(name) != found.get(name)
        ]
        said = ", ".join(unlike)
        return self._chapter.check(not unlike, f"a {kind} {fate} is not as the undisturbed one: {said}")


def output(process: subprocess.Popen, seconds: float = LONGEST) -> tuple[str, str]:
    """What a process says until it ends.

    Raises:
        Stuck: it does not end, and is killed; or it leaves another behind that holds its output.
    """
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        said, ended = (error.stderr or error.stdout or b"").decode(errors="replace"), process.poll()
        process.kill()
    if ended is None:
        raise Stuck(f"a process did not end within {seconds:.0f} s, and said last {said[-500:]!r}")
    raise Stuck("a process ended, but one that it had started lives on, and holds its output open")


def trouble(text: str) -> str | None:
    """The first line, with those around it, that tells of an error or warns; None if there is none."""
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if _TROUBLE.search(line):
            return " | ".join(lines[max(0, i - 1) : i + 12])[:800]
    return None


def logs(workdir: Path) -> str:
    """What the workers of a sweep have said."""
    found = sorted(workdir.glob(f"sweeps/{SWEEP}/*.log"))
    return "\n".join(file.read_text(errors="replace") for file in found)


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
    run stopped. Claims, logs and files that are being written are no part of it.
    """
    found: Outcome = {}
    for file in sorted(workdir.rglob("*")):
        name = file.relative_to(workdir)
        if file.name == "checkpoints":
            newest = max((step for step in file.iterdir() if step.name.isdigit()), key=lambda s: int(s.name))
            note = json.loads((newest / "note" / "metadata").read_text())
            found[f"{name}, newest"] = newest.name, note["digest"]
        part_of_others = {"checkpoints", "claims"} & set(name.parts)
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
        value.pop(files.CHECKSUM, None)  # it is of the time as well
        for clock in ("wall_seconds", "seconds"):
            value.pop(clock, None)
        if file.name == files.SEAL:  # JSON files hold a time
            return {name: digest for name, digest in value.items() if not name.endswith(".json")}
        return value
    whole = file.read_bytes()
    if file.suffix in _ENDS and not whole.endswith(_ENDS[file.suffix]):
        raise ValueError(f"{file} does not end as such a file does")
    return whole if len(whole) < 10_000 else hashlib.sha256(whole).hexdigest()


_ENDS = {".png": b"IEND\xaeB`\x82", ".pdf": b"%%EOF\n"}


def not_whole(workdir: Path) -> str | None:
    """The first file that bears its name without being whole, and why; None if there is none.

    Asked while nobody writes. A line of `metrics.jsonl` may be cut off: its reader leaves it out.
    """
    for file in workdir.rglob("*"):
        name = file.relative_to(workdir)
        try:
            if file.parent.name == "checkpoints" and file.name.isdigit():
                broken = files.broken(file, file.rglob("*"))
                if broken:
                    raise ValueError(str(broken))
            elif (
                file.suffix in (".json", ".npz", ".png", ".pdf")
                and "checkpoints" not in name.parts
                and not file.name.startswith(".")
            ):
                content(file)
        except Exception as error:
            return f"{name}: {error}"
    return None
