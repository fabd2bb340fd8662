"""A sweep: its cells done by worker processes, by a Ray cluster or by whoever else works on the store.

This process trains nothing: it starts the workers, shows how far the sweep is, and starts others where
some have died. Killed at any moment, the sweep loses at most the running epochs; the same command goes on.
"""

import contextlib
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Protocol

import ml_collections

from poison_jax import config as config_lib
from poison_jax import console
from poison_jax.errors import Interrupted, RunsFailed, UserError
from poison_jax.runs import records, store
from poison_jax.runs.signals import StopSignals, stop_with
from poison_jax.sweeps import grid
from poison_jax.sweeps.board import Board
from poison_jax.sweeps.table import Progress, summary

STOPPED = (130, 143)  # exit status of a worker that was asked to stop
POLL = 0.5  # seconds between two looks at the workers; the store is looked at every fourth time


class Engine(Protocol):
    """Whatever does cells: some of those waiting, at its own pace."""

    def look_after(self, waiting: list[str]) -> None:
        """Called every now and then with the cells that wait: starts and restarts what does them.

        Raises:
            UserError: they cannot be done at all.
        """

    def busy(self) -> bool:
        """Whether anything of it is running."""

    def stop(self) -> None:
        """Ends what is running; its state is saved."""


def run(
    config: ml_collections.ConfigDict,
    workdir: str = "runs",
    *,
    tensorboard: bool = False,
    retry: bool = False,
    draw: Callable[[Path, str, Path], Iterable[Path]] = lambda *_: (),
) -> None:
    """Does what is missing of a sweep, shows it meanwhile, prints its table at the end.

    Args:
        config: of experiment=sweep.
        workdir: the store.
        tensorboard: not for sweeps.
        retry: do the cells that have failed again.
        draw: called with the store, the sweep's name and a folder when it ends or is stopped.

    Raises:
        UserError: bad input, before any compute.
        RunsFailed: some cells could not be done; all others are.
        Interrupted: asked to stop; what was done is kept.
    """
    if tensorboard:
        raise UserError("--tensorboard is for single runs: leave it out, or name one cell by its keys")
    cells = grid.cells(config)
    engine_of = _engine(config)
    _check_inputs(cells)
    base = config_lib.single(config, config.sweep.of).to_dict()
    described = [{"run": cell.run, "overrides": cell.overrides} for cell in cells]
    records.write_sweep(Path(workdir), records.Sweep(config.sweep.name, base, described))
    board = Board(Path(workdir), config.sweep.name, config.sweep.attempts)
    board.recover()
    board.folder.mkdir(exist_ok=True)
    if retry:
        for cell in _failed(board):
            board.retry(cell)
    labels = {cell.run: str(cell) for cell in cells}
    console.say(
        f"sweep {config.sweep.name}: {len(cells)} cells, {config.sweep.engine}, logs in {board.folder}"
    )
    try:
        _supervise(board, engine_of(board), labels)
    finally:
        try:
            for figure in draw(board.workdir, board.sweep.name, board.folder):
                console.say(f"figure: {figure}")
        except Exception as error:  # of no weight beside what the sweep ends with
            console.warn(f"sweep {board.sweep.name} is not drawn: {error}")
    summary(board, labels)
    if failed := _failed(board):
        for cell in failed:
            console.warn(f"{labels[cell]} ({cell}): {board.why(cell)}")
        raise RunsFailed(
            f"{len(failed)} of {len(cells)} cells failed, the others are done: --retry does them again"
        )


def _failed(board: Board) -> list[str]:
    return [cell for cell, state in board.states(board.cells).items() if state == "failed"]


def slurm_script(config: ml_collections.ConfigDict, workdir: str, tasks: int) -> str:
    """A Slurm array that does a sweep: every task is this command, and takes whichever cell is free.

    Args:
        config: of experiment=sweep, checked.
        workdir: the store, on a disk that all nodes share.
        tasks: of the array; one that is taken away costs its running epoch, and is queued again.
    """
    if tasks < 1:
        raise UserError(f"--slurm = {tasks}: name the number of tasks, at least 1")
    grid.cells(config)
    logs = Path(workdir) / records.SWEEPS / config.sweep.name
    command = [sys.executable, *(a for a in sys.argv if not a.lstrip("-").startswith("slurm"))]
    return f"""#!/bin/bash
#SBATCH --job-name={config.sweep.name}
#SBATCH --array=1-{tasks}
#SBATCH --output={shlex.quote(str(logs))}/slurm-%A_%a.log
#SBATCH --requeue
#SBATCH --signal=TERM@120
# Add --gres=gpu:1, --time and --cpus-per-task as your cluster wants them. Submit it with sbatch.
cd {shlex.quote(os.getcwd())}
exec srun --ntasks=1 {shlex.join(command)}"""


def _supervise(board: Board, engine: Engine, labels: dict[str, str]) -> None:
    with StopSignals() as stop, Progress(board, labels) as progress:
        try:
            states = progress.show()
            while any(state in ("waiting", "running") for state in states.values()) or engine.busy():
                engine.look_after([cell for cell, state in states.items() if state == "waiting"])
                for _ in range(4):
                    time.sleep(POLL)
                    if stop.asked:
                        raise Interrupted("stopped; the same command goes on with what is not done")
                states = progress.show()
        finally:
            engine.stop()


def _engine(config: ml_collections.ConfigDict):
    """What makes the engine of a board, checked."""
    if config.sweep.engine == "ray":
        from poison_jax.sweeps import cluster

        cluster.check()
        return lambda board: cluster.RayTasks(board, cpus=config.sweep.cpus, gpus=config.sweep.gpus)
    return lambda board: Processes(board, config.sweep.workers)


def _check_inputs(cells: list[grid.Cell]) -> None:
    """What only the data can show to be wrong, once for all cells that differ in what does not touch them.

    In a process of its own: this one must not take an accelerator's memory, nor start threads before it
    starts processes.
    """
    configs = [kind[0].config for kind in grid.kinds(cells)]
    if unlike := [config.to_dict() for config in configs if config.experiment == "train"]:
        spawn = multiprocessing.get_context("spawn")
        answer, told = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_set_up, args=(told, os.getpid(), unlike))
        process.start()
        told.close()
        try:
            error = answer.recv()
        except EOFError:
            raise UserError(
                "the process that looks at the data was killed, maybe for its memory: start again"
            ) from None
        finally:
            process.join()
        if error:
            raise error


def _set_up(answer: Connection, parent: int, configs: list[store.Json]) -> None:
    """Tells the parent what is wrong with the configs, or None."""
    stop_with(parent)
    found: BaseException | None = None
    try:
        import jax

        from poison_jax.experiments.setup import Setup

        jax.config.update("jax_platforms", "cpu")
        for config in configs:
            Setup(config_lib.from_json(config, "sweep"))
    except BaseException as error:
        error.add_note(traceback.format_exc())
        found = error
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        answer.send(found)


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
        command = [
            sys.executable,
            "-m",
            "poison_jax.sweeps.worker",
            str(self._board.workdir),
            self._board.sweep.name,
        ]
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
