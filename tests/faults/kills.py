"""Processes killed at any moment: the same command ends with the bits of one that was left alone."""

import contextlib
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.faults import runs
from tests.faults.chapter import Chapter

EACH = 100  # kills of a training run, and of a sweep's processes, after which the chapter ends
_KILLS = {"training": "kills of a training run", "sweep": "kills of a sweep's processes"}
MOST = 15  # kills that one run or sweep meets: then it is let be


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
    except runs.Stuck as error:
        chapter.fail(str(error))


def _training(chapter: Chapter, own: runs.Runs, workdir: Path, kills: int) -> None:
    results: dict[Path, tuple[int, int]] = {}
    for _ in range(kills):
        process = own.start("training", workdir)
        try:
            moment = _wait(chapter, workdir, [process], own.seconds["training"])
        finally:
            process.kill()
        _, err = runs.output(process)
        if process.returncode != -signal.SIGKILL:  # done before its moment came
            chapter.check(process.returncode == 0, f"a training run ended with {process.returncode}: {err}")
            break
        chapter.count(_KILLS["training"])
        chapter.count(f"killed {moment}")
        chapter.check(not err, f"a training run said before it was killed: {err[-800:]!r}")
        _check_whole(chapter, workdir)
        _see_results(chapter, workdir, results)
    own.end(own.start("training", workdir), "training", "that was killed")
    _see_results(chapter, workdir, results)
    own.compare("training", workdir, "that was killed")
    chapter.count("training runs compared")
    _count_leftovers(chapter, workdir)


def _sweep(chapter: Chapter, own: runs.Runs, workdir: Path, kills: int) -> None:
    results: dict[Path, tuple[int, int]] = {}
    with _Supervisors(own, workdir) as supervisors:
        for _ in range(kills):
            if not supervisors.running:
                supervisors.start()
            elif len(supervisors.running) == 1 and chapter.random.random() < 0.3:
                supervisors.start()
                chapter.count("second supervisors beside the first")
            moment = _wait(chapter, workdir, supervisors.running, own.seconds["sweep"] / 2)
            _see_results(chapter, workdir, results)
            if _all_ended(supervisors.running):
                break  # all is done
            whom = chapter.random.choice(("workers", "workers", "supervisors", "whole sweeps"))
            killed = supervisors.kill(whom, chapter)
            if killed:
                chapter.count(_KILLS["sweep"], killed)
                chapter.count(f"kills of {whom}", killed)
                chapter.count(f"killed {moment}")
            _see_results(chapter, workdir, results)
            if whom == "whole sweeps" and not runs.workers(workdir):  # nobody is left who writes
                _check_whole(chapter, workdir)
        if not supervisors.running:
            supervisors.start()
        for process in supervisors.running:
            own.end(process, "sweep", "that was killed")
    _see_results(chapter, workdir, results)
    chapter.check(len(results) == 4, f"{len(results)} results instead of 4")
    if said := runs.trouble(runs.logs(workdir)):
        chapter.fail(f"a worker said: {said}")
    _check_whole(chapter, workdir)
    own.compare("sweep", workdir, "that was killed")
    chapter.count("sweeps compared")
    _count_leftovers(chapter, workdir)


class _Supervisors:
    """Commands that do the same sweep, with their workers; none is left when the context is."""

    def __init__(self, own: runs.Runs, workdir: Path):
        self._own, self._workdir = own, workdir
        self.running: list[subprocess.Popen] = []
        self._started: list[subprocess.Popen] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._started:
            process.kill()
            process.wait()
        for worker in runs.workers(self._workdir):
            runs.kill(worker)

    def start(self) -> None:
        """One more."""
        self.running.append(self._own.start("sweep", self._workdir))
        self._started.append(self.running[-1])

    def kill(self, whom: str, chapter: Chapter) -> int:
        """Kills one of the workers, one of the supervisors, or all of both; returns how many processes."""
        workers = runs.workers(self._workdir)
        if whom == "workers":
            return sum(runs.kill(worker) for worker in chapter.random.sample(workers, min(1, len(workers))))
        alive = [process for process in self.running if process.poll() is None]
        victims = alive if whom == "whole sweeps" else chapter.random.sample(alive, min(1, len(alive)))
        for process in victims:
            process.kill()
            self.running.remove(process)
        others = [worker for worker in workers if whom == "whole sweeps" and runs.kill(worker)]
        for process in victims:
            _, err = runs.output(process)
            chapter.check(not err, f"a sweep said before it was killed: {err[-800:]!r}")
        return len(victims) + len(others)


# --- moments --------------------------------------------------------------------------------------


def _wait(chapter: Chapter, workdir: Path, processes: list[subprocess.Popen], longest: float) -> str:
    """Returns at a moment of the chapter's choice, after `longest` seconds, or when all processes have ended.

    Returns:
        The moment's name for the report: that of some new file in the folder, or any.
    """
    name = chapter.random.choice(list(_MOMENTS))
    patterns = _MOMENTS[name]
    before = _names(workdir, patterns)
    seconds = longest * chapter.random.uniform(0.3 if patterns else 0, 1)
    began = time.monotonic()
    while time.monotonic() - began < seconds and not _all_ended(processes):
        if _names(workdir, patterns) - before:
            time.sleep(chapter.random.choice((0, 0, 0.001, 0.01, 0.05)))
            return name
        time.sleep(0.001 if patterns else 0.02)
    return "at any moment"


def _all_ended(processes: list[subprocess.Popen]) -> bool:
    return all(process.poll() is not None for process in processes)


# What is new in the folder at that moment.
_MOMENTS = {
    "at any moment": (),
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


def _names(workdir: Path, patterns: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    with contextlib.suppress(OSError):  # a folder that has gone meanwhile
        found = {str(file) for pattern in patterns for file in workdir.glob(pattern)}
    return found


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
