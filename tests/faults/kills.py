"""Processes killed at any moment: the same command ends with the bits of one that was left alone."""

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults import runs
from tests.faults.chapter import Chapter, output

MOST = 15  # kills that one run or sweep meets: then it is let be
# What is new in the folder at the moment of a kill.
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


def run(chapter: Chapter) -> None:
    """A training run and a sweep by turns, each in a new folder, each killed again and again."""
    for number in chapter.rounds():
        most = 3 if number == 0 else MOST  # a short harness has done both soon
        for kind, disturb in (("training", _training), ("sweep", _sweep)):
            workdir = chapter.folder / f"{kind}-{number}"
            done: dict[Path, tuple[int, int]] = {}
            disturb(chapter, workdir, chapter.random.randint(2, most), done)
            _see_results(chapter, workdir, done)
            chapter.check(len(done) == (1 if kind == "training" else 4), f"a {kind} has {len(done)} results")
            runs.check_whole(chapter, workdir, f"a {kind} that was killed")
            runs.compare(chapter, kind, workdir, "that was killed")
            left = [p for p in workdir.rglob("*") if p.suffix == ".tmp" or "checkpoint-tmp" in p.name]
            chapter.count("files and folders left half-written", len(left))
            shutil.rmtree(workdir, ignore_errors=True)


def _training(chapter: Chapter, workdir: Path, kills: int, done: dict[Path, tuple[int, int]]) -> None:
    longest = runs.undisturbed(chapter, "training").seconds
    for _ in range(kills):
        process = runs.begin("training", workdir)
        try:
            moment = _wait(chapter, workdir, [process], longest)
        finally:
            process.kill()
        _, err = output(process)
        chapter.check(not err, f"a training run said before it was killed: {err[-800:]!r}")
        if process.returncode != -signal.SIGKILL:  # done before its moment came
            chapter.check(process.returncode == 0, f"a training run ended with {process.returncode}")
            break
        chapter.count("kills of a training run")
        chapter.count(f"killed {moment}")
        runs.check_whole(chapter, workdir, "a training run that was killed")
        _see_results(chapter, workdir, done)
    runs.check_end(chapter, runs.begin("training", workdir), "a training run that was killed")


def _sweep(chapter: Chapter, workdir: Path, kills: int, done: dict[Path, tuple[int, int]]) -> None:
    longest = runs.undisturbed(chapter, "sweep").seconds / 2
    with _supervisors(workdir) as running:
        for _ in range(kills):
            if not running:
                running.append(runs.begin("sweep", workdir))
            elif len(running) == 1 and chapter.random.random() < 0.3:
                running.append(runs.begin("sweep", workdir))
                chapter.count("second supervisors beside the first")
            moment = _wait(chapter, workdir, running, longest)
            _see_results(chapter, workdir, done)
            if _all_ended(running):
                break  # all is done
            whom = chapter.random.choice(("workers", "workers", "supervisors", "whole sweeps"))
            if whom == "workers" and not runs.workers(workdir):  # none has begun yet
                whom = "supervisors"
            if killed := _kill(chapter, whom, running, workdir):
                chapter.count("kills of a sweep's processes", killed)
                chapter.count(f"kills of {whom}", killed)
                chapter.count(f"killed {moment}")
            _see_results(chapter, workdir, done)
            if whom == "whole sweeps" and not runs.workers(workdir):  # nobody is left who writes
                runs.check_whole(chapter, workdir, "a sweep that was killed")
        if not running:
            running.append(runs.begin("sweep", workdir))
        for process in running:
            runs.check_end(chapter, process, "a sweep that was killed")
    if said := runs.trouble(workdir):
        chapter.fail(f"a worker said: {said}")


@contextlib.contextmanager
def _supervisors(workdir: Path) -> Iterator[list[subprocess.Popen]]:
    """Room for commands that do the same sweep; none of them or of their workers is left afterwards."""
    running: list[subprocess.Popen] = []
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()
        for worker in runs.workers(workdir):
            runs.kill(worker)


def _kill(chapter: Chapter, whom: str, running: list[subprocess.Popen], workdir: Path) -> int:
    """Kills one of the workers, one of the supervisors, or all of both; returns how many processes."""
    workers = runs.workers(workdir)
    if whom == "workers":
        return sum(runs.kill(worker) for worker in chapter.random.sample(workers, min(1, len(workers))))
    alive = [process for process in running if process.poll() is None]
    victims = alive if whom == "whole sweeps" else chapter.random.sample(alive, min(1, len(alive)))
    for process in victims:
        process.kill()
    others = [worker for worker in workers if whom == "whole sweeps" and runs.kill(worker)]
    for process in victims:
        running.remove(process)
        _, err = output(process)
        chapter.check(not err, f"a sweep said before it was killed: {err[-800:]!r}")
    return len(victims) + len(others)


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


def _names(workdir: Path, patterns: tuple[str, ...]) -> set[str]:
    with contextlib.suppress(OSError):  # a folder that has gone meanwhile
        return {str(file) for pattern in patterns for file in workdir.glob(pattern)}
    return set()


def _see_results(chapter: Chapter, workdir: Path, done: dict[Path, tuple[int, int]]) -> None:
    """What is done is not done again: a result stays the file that it was when it was first seen."""
    for file in workdir.glob("*/result.json"):
        stat = file.stat()
        now = stat.st_ino, stat.st_mtime_ns
        chapter.check(done.setdefault(file, now) == now, f"{file.parent.name} was done twice")
