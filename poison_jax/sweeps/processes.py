"""The engine of this machine: worker processes, each with its share of the cores, or a GPU of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from poison_jax.errors import UserError
from poison_jax.sweeps.board import Board

STOPPED = (130, 143)  # exit status of a worker that was asked to stop


class Processes:
    """Worker processes on this machine: each its share of the cores, or a GPU of its own."""

    def __init__(self, board: Board, workers: int):
        self._board, self._workers = board, workers
        self._running: dict[int, subprocess.Popen] = {}
        self._logs: dict[int, IO] = {}

    def look_after(self, waiting: list[str]) -> None:
        for i, process in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[i]
            self._logs.pop(i).close()
            # A worker that is killed is replaced; one that ends like this would do so again. It is no
            # cell's failure: those are kept and passed over.
            if process.returncode > 0 and process.returncode not in STOPPED:
                raise UserError(f"worker {i + 1}: {_last_line(self._log(i))}")
        free = [i for i in range(self._workers) if i not in self._running]
        for i in free[: max(0, len(waiting) - len(self._running))]:
            self._start(i)

    def busy(self) -> bool:
        return any(process.poll() is None for process in self._running.values())

    def stop(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
        for log in self._logs.values():
            log.close()

    def _log(self, i: int) -> Path:
        return self._board.folder / f"worker-{i + 1}.log"

    def _start(self, i: int) -> None:
        command = [sys.executable, "-m", "poison_jax.worker"]
        command += [str(self._board.workdir), self._board.sweep.name]
        command += ["--attempts", str(self._board.attempts), "--parent", str(os.getpid())]
        environment = dict(os.environ)
        if gpus := _gpus():
            environment["CUDA_VISIBLE_DEVICES"] = gpus[i % len(gpus)]
        else:
            command += ["--share", f"{i + 1}/{self._workers}"]
        self._logs[i] = open(self._log(i), "a")  # noqa: SIM115  (for as long as the process lives)
        self._running[i] = subprocess.Popen(
            command,
            env=environment,
            stdout=self._logs[i],
            stderr=self._logs[i],
            start_new_session=True,  # Ctrl-C is heard here, and passed on as a request
        )


def _gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, by number."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
    with contextlib.suppress(OSError):
        return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").iterdir())]
    return []


def _last_line(file: Path) -> str:
    """What a worker said last: why it ended, if there was space for that."""
    lines = file.read_text(errors="replace").strip().splitlines()
    if not (lines and lines[-1].startswith("error: ")) and shutil.disk_usage(file.parent).free < 4096:
        return f"no space is left for its log, {file}: free some"
    return lines[-1].removeprefix("error: ") if lines else "no reason given"
