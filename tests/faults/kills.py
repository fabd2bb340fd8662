"""Processes killed at any moment: the same command ends with the bits of one that was left alone."""

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults import runs
from tests.faults.chapter import Chapter

EACH = 100  # kills of a training run, and of a sweep's processes, after which the chapter ends
MOST = 12  # kills that one run or sweep meets: then it is let be
_EMPTY = frozenset[str]()


def run(chapter: Chapter) -> None:
    """A training run and a sweep by turns, each in a new folder, each killed again and again."""
    try:
        own = runs.Runs(chapter)
        for number in chapter.rounds():
            most = 3 if number == 0 else MOST  # a short harness has done both soon
            for kind, disturb in (("training", _training), ("sweep", _sweep)):
                if chapter.counts[_KILLS[kind]] >= EACH:
                    continue
                workdir = chapter.folder / f"{kind}-{number}"
                disturb(chapter, own, workdir, chapter.random.randint(2, most))
                shutil.rmtree(workdir, ignore_errors=True)
            if all(chapter.counts[what] >= EACH for what in _KILLS.values()):
                return
    except TimeoutError as error:
        chapter.fail(str(error))


_KILLS = {"training": "kills of a training run", "sweep": "kills of a sweep's processes"}


def _training(chapter: Chapter, own: runs.Runs, workdir: Path, kills: int) -> None:
    for _ in range(kills):
        process = own.start("training", workdir)
        try:
            moment = _wait(chapter, workdir, lambda process=process: process.poll() is not None)
        finally:
            process.kill()
        _, err = runs.output(process)
        if process.returncode != -signal.SIGKILL:  # done before its moment came
            chapter.check(process.returncode == 0, f"a training run ended with {process.returncode}: {err}")
            break
        chapter.count(_KILLS["training"])
        chapter.count(f"  {moment}")
        chapter.check(not err, f"a training run said before it was killed: {err[-800:]!r}")
        _check_whole(chapter, workdir)
    own.end(own.start("training", workdir), f"a training run killed {kills} times")
    own.compare("training", workdir, f"a training run killed {kills} times")
    chapter.count("training runs compared")
    _count_leftovers(chapter, workdir)


def _sweep(chapter: Chapter, own: runs.Runs, workdir: Path, kills: int) -> None:
    results: dict[Path, tuple[int, int]] = {}
    with _Supervisors(own, workdir) as supervisors:
        for _ in range(kills):
            if not supervisors.running:
                supervisors.start()
            elif chapter.random.random() < 0.3:
                supervisors.start()
                chapter.count("second supervisors beside the first")
            moment = _wait(chapter, workdir, lambda: len(supervisors.ended()) == len(supervisors.running))
            _see_results(chapter, workdir, results)
            if len(supervisors.ended()) == len(supervisors.running):
                break  # all is done
            whom = chapter.random.choice(("workers", "workers", "supervisors", "whole sweeps"))
            killed = supervisors.kill(whom, chapter)
            if killed:
                chapter.count(_KILLS["sweep"], killed)
                chapter.count(f"  of {whom}", killed)
                chapter.count(f"  {moment}")
            _see_results(chapter, workdir, results)
            for problem in supervisors.problems():
                chapter.fail(problem)
        if not supervisors.running:
            supervisors.start()
        for process in supervisors.running:
            own.end(process, f"a sweep killed {kills} times")
    _see_results(chapter, workdir, results)
    chapter.check(len(results) == 4, f"{len(results)} results instead of 4")
    if said := runs.trouble(runs.logs(workdir)):
        chapter.fail(f"a worker said: {said}")
    _check_whole(chapter, workdir)
    own.compare("sweep", workdir, f"a sweep killed {kills} times")
    chapter.count("sweeps compared")
    _count_leftovers(chapter, workdir)


class _Supervisors:
    """Commands that do the same sweep, with their workers; none is left when the context is."""

    def __init__(self, own: runs.Runs, workdir: Path):
        self._own, self._workdir = own, workdir
        self.running: list[subprocess.Popen] = []
        self._started: list[subprocess.Popen] = []
        self._said: list[str] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._started:
            process.kill()
            with contextlib.suppress(ValueError):  # read to its end already
                process.communicate()
        for worker in runs.workers(self._workdir):
            runs.kill(worker)

    def start(self) -> None:
        """One more."""
        self.running.append(self._own.start("sweep", self._workdir))
        self._started.append(self.running[-1])

    def ended(self) -> list[subprocess.Popen]:
        """Those that have ended by themselves."""
        return [process for process in self.running if process.poll() is not None]

    def kill(self, whom: str, chapter: Chapter) -> int:
        """Kills one of the workers, one of the supervisors, or all of both; returns how many processes."""
        workers = runs.workers(self._workdir)
        if whom == "workers":
            return sum(runs.kill(worker) for worker in chapter.random.sample(workers, min(1, len(workers))))
        alive = [process for process in self.running if process.poll() is None]
        victims = alive if whom == "whole sweeps" else chapter.random.sample(alive, 1)
        for process in victims:
            process.kill()
            self.running.remove(process)
            _, err = process.communicate()
            if err and process.returncode == -signal.SIGKILL:
                self._said.append(f"a sweep said before it was killed: {err[-800:]!r}")
        others = workers if whom == "whole sweeps" else []
        return len(victims) + sum(runs.kill(worker) for worker in others)

    def problems(self) -> Iterator[str]:
        """What those that were killed had said."""
        while self._said:
            yield self._said.pop()


# --- moments --------------------------------------------------------------------------------------


def _wait(chapter: Chapter, workdir: Path, ended: Callable[[], bool]) -> str:
    """Returns at a moment of the chapter's choice, or when `ended`; its name, for the report.

    That of some new file in the folder, and otherwise any.
    """
    name = chapter.random.choice(list(_MOMENTS))
    names_of = _MOMENTS[name]
    before = _names(workdir, names_of)
    seconds = chapter.random.uniform(0, 3 if names_of is None else 12)
    began = time.monotonic()
    while time.monotonic() - began < seconds and not ended():
        if names_of and _names(workdir, names_of) - before:
            time.sleep(chapter.random.choice((0, 0, 0.001, 0.01, 0.05)))
            return name
        time.sleep(0.0005 if names_of else 0.02)
    return "at any moment"


# What is new in the folder at that moment.
_MOMENTS = {
    "at any moment": None,
    "while a file was written": ("*/.*.tmp", "sweeps/.*.tmp", "sweeps/*/.*.tmp"),
    "while a checkpoint was written": ("*/checkpoints/*tmp*",),
    "when a checkpoint was there": ("*/checkpoints/*/commit_success.txt",),
    "when a checkpoint was sealed": ("*/checkpoints/*/digests.json",),
    "when a claim was made": ("*/claims/*",),
    "when a run had begun": ("*/config.json", "*/inputs.json", "*/metrics.jsonl"),
    "while the network was looked at": ("*/*.npz",),
    "when a result was there": ("*/result.json",),
    "while figures were drawn": ("*/*.png", "sweeps/*/*.png", "sweeps/*/*.pdf"),
}


def _names(workdir: Path, patterns: tuple[str, ...] | None) -> frozenset[str]:
    if not patterns:
        return _EMPTY
    try:
        return frozenset(str(file) for pattern in patterns for file in workdir.glob(pattern))
    except OSError:  # a folder that has gone meanwhile
        return _EMPTY


# --- promises -------------------------------------------------------------------------------------


def _check_whole(chapter: Chapter, workdir: Path) -> None:
    reason = runs.not_whole(workdir) if workdir.exists() else None
    chapter.check(reason is None, f"half a file was left: {reason}")


def _see_results(chapter: Chapter, workdir: Path, seen: dict[Path, tuple[int, int]]) -> None:
    """What is done is not done again: a result stays the file that it was when it was first seen."""
    for file in workdir.glob("*/result.json"):
        stat = file.stat()
        now = stat.st_ino, stat.st_mtime_ns
        chapter.check(seen.setdefault(file, now) == now, f"{file.parent.name} was done twice")


def _count_leftovers(chapter: Chapter, workdir: Path) -> None:
    """Files that were being written by processes that were killed, still there in the end."""
    names = [p for p in workdir.rglob("*") if p.suffix == ".tmp" or "checkpoint-tmp" in p.name]
    chapter.count("files and folders left half-written", len(names))
