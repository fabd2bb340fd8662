"""Worker processes: what one does, and the engine that keeps some of them on this machine.

Any number of workers, on any machines that share the disk, may work on one sweep: each claims a cell before
it begins (`lease`). Why one cannot be done, if it cannot, is kept (`board`), and it is passed over.
"""

import math
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from poison_jax import config as config_lib
from poison_jax import console, environment, experiments
from poison_jax.errors import Busy, Interrupted, RunsFailed, UserError, one_line_of
from poison_jax.runs import records
from poison_jax.sweeps import grid
from poison_jax.sweeps.board import Board

STOPPED = (130, 143)  # exit status of a worker that was asked to stop


def work(board: Board) -> None:
    """Does the waiting cells of a sweep, first come first served; returns when none is waiting.

    Raises:
        Interrupted: asked to stop; the cell's state is saved.
        OSError: the disk is full or read-only.
    """
    passed: set[str] = set()  # claimed by others the moment they were tried
    while True:
        left = (cell for cell in board.cells if cell not in passed and board.state(cell) == "waiting")
        if (cell := next(left, None)) is None:
            return
        if not attempt(board, cell):
            passed.add(cell)


def attempt(board: Board, cell: str) -> bool:
    """Does one cell; whether it was free. Why it cannot be done, if it cannot, is kept on the board.

    Raises:
        Interrupted: asked to stop; the cell's state is saved.
        OSError: the disk is full or read-only.
    """
    where = f"sweep {board.sweep.name}"
    try:
        if board.state(cell) != "done":
            config = config_lib.from_json(board.sweep.config, where)
            for key, value in board.overrides(cell).items():
                config_lib.assign(config, key, value, where)
            if (now := records.key(*grid.name(config))) != cell:  # it would not be done by this
                raise UserError(f"its run is {now} in this version: choose another sweep.name")
            experiments.run(config, str(board.workdir))
    except Busy:
        return False
    except (Interrupted, OSError):
        raise
    except Exception as error:
        if not isinstance(error, UserError | RunsFailed):
            traceback.print_exc()
        reason = one_line_of(error)
        console.warn(f"{cell} failed: {reason}")
        board.fail(cell, reason)
    return True


class Processes:
    """An engine of `sweep`: workers on this machine, each with its share of the cores, or of the GPUs.

    An engine does some of the cells that wait, at its own pace.
    """

    def __init__(self, board: Board, workers: int):
        self._board, self._workers = board, workers
        self._running: dict[int, tuple[subprocess.Popen, IO]] = {}  # each with its log

    def look_after(self, states: Mapping[str, str]) -> None:
        """Called every now and then with the cells' states: starts and restarts what does those that wait.

        Raises:
            UserError: they cannot be done at all.
        """
        for i, (process, log) in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[i]
            log.close()
            # A worker that is killed is replaced; one that ends like this would do so again. It is no
            # cell's failure: those are kept and passed over.
            if process.returncode > 0 and process.returncode not in STOPPED:
                raise UserError(f"worker {i + 1}: {_last_line(Path(log.name))}")
        waiting, running = (list(states.values()).count(state) for state in ("waiting", "running"))
        idle = max(0, len(self._running) - running)  # about to take one; who finds none ends at once
        free = [i for i in range(self._workers) if i not in self._running]
        for i in free[: max(0, waiting - idle)]:
            self._running[i] = self._start(i)

    def busy(self) -> bool:
        """Whether anything of it is running."""
        return any(process.poll() is None for process, _ in self._running.values())

    def stop(self) -> None:
        """Ends what is running; its state is saved."""
        for process, _ in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process, log in self._running.values():
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
            log.close()

    def _start(self, i: int) -> tuple[subprocess.Popen, IO]:
        command = [
            sys.executable,
            "-m",
            "poison_jax.worker",
            str(self._board.workdir),
            self._board.sweep.name,
        ]
        command += ["--parent", str(os.getpid())]
        variables = dict(os.environ)
        if environment.computes_on_gpus():
            gpus = environment.gpus()
            variables["CUDA_VISIBLE_DEVICES"] = gpus[i % len(gpus)]
            # As many as the fullest GPU has: a share may stay free, none is exceeded.
            environment.share_memory(variables, 1 / math.ceil(self._workers / len(gpus)))
        else:
            command += ["--share", f"{i + 1}/{self._workers}"]
        log = open(self._board.folder / f"worker-{i + 1}.log", "a")  # noqa: SIM115  (while the process lives)
        # In a session of its own: Ctrl-C is heard here, and passed on as a request.
        return subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True), log


def _last_line(file: Path) -> str:
    """What a worker said last: why it ended, if there was space for that."""
    lines = file.read_text(errors="replace").strip().splitlines()
    if not (lines and lines[-1].startswith("error: ")) and shutil.disk_usage(file.parent).free < 4096:
        return f"no space is left for its log, {file}: free some"
    return lines[-1].removeprefix("error: ") if lines else "no reason given"
