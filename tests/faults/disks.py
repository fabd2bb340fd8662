"""Disks that fill, become read-only and come back: one line, and the undisturbed outcome in the end."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.faults import runs
from tests.faults.chapter import Chapter, Stuck, output, unlike_one_line

SIZE = "size=96m"
LEFT = (0, 0, 4096, 65_536, 400_000, 1_500_000)  # bytes that a full disk still takes
MOST = 4  # faults that one run or sweep meets


def run(chapter: Chapter) -> None:
    """A training run and a sweep by turns, each on a small disk that fails it now and then."""
    disk = chapter.folder / "disk"
    disk.mkdir()
    if not _mount(disk, SIZE):
        chapter.measured["not run"] = "this process may not mount"
        return
    try:
        for number in chapter.rounds():
            for kind in runs.COMMANDS:
                _one(chapter, disk, kind, chapter.random.randint(1, MOST if number else 2))
                for folder in disk.iterdir():
                    shutil.rmtree(folder, ignore_errors=True)
    finally:
        _kill_workers(disk / "runs")
        _until(lambda: subprocess.run(["umount", disk], capture_output=True).returncode == 0)


def _one(chapter: Chapter, disk: Path, kind: str, faults: int) -> None:
    workdir, variables = disk / "runs", {}
    if (
        chapter.random.random() < 0.3
    ):  # the cache in a home directory, which is full too; the kernels are there
        cache = variables["POISON_JAX_CACHE"] = str(disk / "cache")
        whole = os.environ["POISON_JAX_CACHE"]
        shutil.copytree(whole, cache, ignore=shutil.ignore_patterns("compiled-*", "*.npz"))
        chapter.count("caches on the disk that failed")
    for _ in range(faults):
        fault = chapter.random.choice(("full", "read-only"))
        left = chapter.random.choice(LEFT)
        process = runs.begin(kind, workdir, **variables)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                # Its output is short: the pipes hold it.
                process.wait(runs.undisturbed(chapter, kind).seconds * chapter.random.random())
            running = process.poll() is None
            if running and not (_fill(disk, left) if fault == "full" else _protect(disk)):
                # A sweep's logs are open for writing all the time: it meets such a disk as it starts.
                process.kill()
                process.wait()
                _kill_workers(workdir)
                chapter.check(_protect(disk), f"the disk did not become {fault}")
                process = runs.begin(kind, workdir, **variables)
            _, err = output(process)
        finally:
            process.kill()
            if not _until(lambda: _mount(disk, f"remount,rw,{SIZE}")):
                raise Stuck(f"{disk} could not be mounted for writing again")
        what = f"a {kind} whose disk was {fault}"
        if not running:
            chapter.check(
                process.returncode == 0, f"a {kind} ended with {process.returncode}: {err[-800:]!r}"
            )
            break
        chapter.count(f"{fault} disks of a {kind}")
        if process.returncode == 0:
            chapter.count("failures that nobody noticed")
            chapter.check(not err, f"{what} said {err[-800:]!r}")
        elif wrong := unlike_one_line(process.returncode, err):
            chapter.fail(f"{what}: {wrong}")
        if workers := runs.workers(workdir):
            chapter.fail(f"{what} left {len(workers)} workers behind")
            _kill_workers(workdir)
        runs.check_whole(chapter, workdir, what)
    fate = f"whose disk failed {faults} times"
    runs.check_end(chapter, runs.begin(kind, workdir, **variables), f"a {kind} {fate}")
    runs.compare(chapter, kind, workdir, fate)


def _kill_workers(workdir: Path) -> None:
    while found := runs.workers(workdir):
        for worker in found:
            runs.kill(worker)
        time.sleep(0.05)


def _fill(disk: Path, left: int) -> bool:
    """Leaves so many bytes at most."""
    return _until(lambda: _mount(disk, f"remount,size={shutil.disk_usage(disk).used + left}"))


def _protect(disk: Path) -> bool:
    """Lets nobody write; False where a file stays open for writing."""
    return _until(lambda: _mount(disk, "remount,ro"))


def _mount(disk: Path, options: str) -> bool:
    """Mounts a disk in memory; whether this process may."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _until(succeeds, seconds: float = 3) -> bool:
    """Tries until it does; whether it did in time."""
    end = time.monotonic() + seconds
    while not (done := succeeds()) and time.monotonic() < end:
        time.sleep(0.01)
    return done
