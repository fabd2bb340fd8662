"""Disks that fill, become read-only and come back: one line, and the undisturbed outcome in the end."""

import shutil
import subprocess
import time
from pathlib import Path

from tests.faults import runs
from tests.faults.chapter import Chapter, ended_in_one_line

SIZE = "size=96m"
LEFT = (0, 0, 4096, 65_536, 400_000, 1_500_000)  # bytes that a full disk still takes
MOST = 4  # faults that one run or sweep meets


def run(chapter: Chapter) -> None:
    """A training run and a sweep by turns, each on a small disk that fails it now and then."""
    disk = _Disk(chapter.folder / "disk")
    if not disk.mounted:
        chapter.measured["not run"] = "this process may not mount"
        return
    workdir = disk.path / "runs"
    try:
        own = runs.Runs(chapter)
        for number in chapter.rounds():
            for kind in runs.COMMANDS:
                _one(chapter, own, disk, workdir, kind, chapter.random.randint(1, MOST if number else 2))
                shutil.rmtree(disk.path / "cache", ignore_errors=True)
                shutil.rmtree(workdir, ignore_errors=True)
    except runs.Stuck as error:
        chapter.fail(str(error))
    finally:
        _kill_workers(workdir)
        disk.unmount()


def _one(chapter: Chapter, own: runs.Runs, disk: "_Disk", workdir: Path, kind: str, faults: int) -> None:
    cache = None
    if chapter.random.random() < 0.3:  # in a home directory, which is full too; the kernels are there
        cache = disk.path / "cache"
        shutil.copytree(own.cache, cache, ignore=shutil.ignore_patterns("compiled-*"))
        chapter.count("caches on the disk that failed")
    for _ in range(faults):
        fault = chapter.random.choice(("full", "read-only"))
        process = own.start(kind, workdir, cache)
        try:
            _wait(process, own.seconds[kind] * chapter.random.random())
            running = process.poll() is None
            if running and not (
                disk.fill(chapter.random.choice(LEFT)) if fault == "full" else disk.protect()
            ):
                # A sweep's logs are open for writing all the time: it meets such a disk as it starts.
                process.kill()
                process.wait()
                _kill_workers(workdir)
                chapter.check(disk.protect(), f"the disk did not become {fault}")
                process = own.start(kind, workdir, cache)
            _, err = runs.output(process)
        finally:
            process.kill()
            disk.restore()
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
        elif wrong := ended_in_one_line(process, err):
            chapter.fail(f"{what}: {wrong}")
        if left := runs.workers(workdir):
            chapter.fail(f"{what} left {len(left)} workers behind")
            _kill_workers(workdir)
        reason = runs.not_whole(workdir) if workdir.exists() else None
        chapter.check(reason is None, f"{what} left half a file: {reason}")
    fate = f"whose disk failed {faults} times"
    own.end(own.start(kind, workdir, cache), kind, fate)
    own.compare(kind, workdir, fate)
    chapter.count("runs and sweeps compared")


def _wait(process: subprocess.Popen, seconds: float) -> None:
    try:
        process.wait(timeout=seconds)  # its output is short: the pipes hold it
    except subprocess.TimeoutExpired:
        return


def _kill_workers(workdir: Path) -> None:
    while found := runs.workers(workdir):
        for worker in found:
            runs.kill(worker)
        time.sleep(0.05)


class _Disk:
    """A small disk in memory; `mounted` says whether this process may make one."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir()
        self.mounted = self._mount(SIZE)

    def fill(self, left: int) -> bool:
        """Leaves so many bytes at most."""
        return self._until(lambda: self._mount(f"remount,size={shutil.disk_usage(self.path).used + left}"))

    def protect(self) -> bool:
        """Lets nobody write; False where a file stays open for writing."""
        return self._until(lambda: self._mount("remount,ro"))

    def restore(self) -> None:
        """As in the beginning."""
        if not self._until(lambda: self._mount(f"remount,rw,{SIZE}")):
            raise runs.Stuck(f"{self.path} could not be mounted for writing again")

    def unmount(self) -> None:
        """Takes it away with all it holds."""
        self._until(lambda: subprocess.run(["umount", self.path], capture_output=True).returncode == 0)

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.path]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @staticmethod
    def _until(succeeds, seconds: float = 3) -> bool:
        """Tries until it does; whether it did in time."""
        end = time.monotonic() + seconds
        while not (done := succeeds()) and time.monotonic() < end:
            time.sleep(0.01)
        return done
