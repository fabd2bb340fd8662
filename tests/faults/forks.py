"""Programs of this project run in children of one warm process: imported once, they start in no time.

`Forks` is the client; `python -m tests.faults.forks` is the warm process, which reads a JSON line a program
and answers with one. It has imported everything and asked JAX for nothing, so that forking it is safe.
"""

import atexit
import contextlib
import importlib
import json
import os
import resource
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.chapter import QUICK, ROOT

MEMORY = 12 << 30  # bytes of address space that a program may have
COMPUTING = 60  # seconds of a processor that it may take; by the clock it takes longer on a busy machine
# What the programs import; not those that `python -m` runs, which would be there twice.
WARM = (
    *(f"poison_jax.{name}" for name in ("cli", "sweeps.cost", "sweeps.grid", "sweeps.sweep")),
    *(f"poison_jax.experiments.{name}" for name in ("network", "statements", "regression")),
    *("plots", "plots.figures", "plots.report", "sklearn.datasets", "tensorflow_datasets", "PIL.Image"),
)


class Ended(NamedTuple):
    """How a program ended."""

    returncode: int  # as of `subprocess.Popen`; -9 or -24 where it ran out of time
    out: str
    err: str
    seconds: float


class Forks:
    """A warm process.

    Args:
        folder: for what the programs print.
        variables: of the environment, for all of them.
    """

    def __init__(self, folder: Path, **variables: str):
        self._folder = folder
        pipe = subprocess.PIPE
        environment = {"XLA_FLAGS": QUICK, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"} | variables
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=pipe,
            stdout=pipe,
            text=True,
        )

    def run(
        self, program: str, arguments: list[str], cwd: Path, *, seconds: float = 300, **variables: str
    ) -> Ended:
        """Runs a program to its end.

        Args:
            program: `main.py` or another script of the repository, or the name of a module, as after `-m`.
            arguments: its command line.
            cwd: where it runs.
            seconds: that it may take by the clock.
            variables: of its environment.
        """
        files = {name: str(self._folder / name) for name in ("out", "err")}
        task = {"program": program, "arguments": arguments, "cwd": str(cwd), "seconds": seconds}
        self._process.stdin.write(json.dumps(task | {"files": files, "variables": variables}) + "\n")
        self._process.stdin.flush()
        status, spent = json.loads(self._process.stdout.readline())
        out, err = (Path(file).read_text(errors="replace") for file in files.values())
        return Ended(status, out, err, spent)

    def close(self) -> None:
        """Ends the warm process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve() -> None:
    """Does what the lines of stdin say, until there are no more."""
    for name in WARM:
        importlib.import_module(name)
    if threading.active_count() > 1:
        raise RuntimeError(f"a process with threads cannot be forked safely: {threading.enumerate()}")
    for line in sys.stdin:
        task = json.loads(line)
        began = time.monotonic()
        status = _fork(task)
        print(json.dumps([status, time.monotonic() - began]), flush=True)


def _fork(task: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        try:
            _become(task)
        finally:
            os._exit(99)  # whatever happens, this is no second server
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended], [], [], task["seconds"])
    os.close(ended)
    with contextlib.suppress(ProcessLookupError):
        if not ready:
            os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(task: dict[str, Any]) -> None:
    """Runs the program in this process, which ends with it as Python's own would."""
    os.setsid()
    for number, file in ((0, os.devnull), (1, task["files"]["out"]), (2, task["files"]["err"])):
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(task["cwd"])
    os.environ.update(task["variables"])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (COMPUTING, COMPUTING))
    program = task["program"]
    status = 0
    try:
        sys.modules.pop(program, None)  # imported by another already, it would be warned of
        if program.endswith(".py"):
            sys.argv = [str(ROOT / program), *task["arguments"]]
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            sys.argv = [program, *task["arguments"]]
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 0 if ending.code is None else 1
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
    except BaseException:
        status = 1
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)


if __name__ == "__main__":
    serve()
