"""Programs of this project, each in a child of one warm process: imported once, they start in no time.

The warm process is that of Python's `multiprocessing`. It has imported everything and asked JAX for nothing,
so that forking it is safe.
"""

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import resource
import runpy
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from tests.program import ROOT, environment

MEMORY = 12 << 30  # bytes of address space that a program may have
COMPUTING = 60  # seconds of a processor that it may take; by the clock it takes longer on a busy machine
LONGEST = 300  # seconds by the clock
# What the programs import; not those that `python -m` runs, which would be there twice.
WARM = [
    *(f"poison_jax.{name}" for name in ("cli", "sweeps.cost", "sweeps.grid", "sweeps.sweep")),
    *(f"poison_jax.experiments.{name}" for name in ("network", "statements", "regression")),
    *("plots", "plots.figures", "plots.report", "sklearn.datasets", "tensorflow_datasets", "PIL.Image"),
    "tests.faults.forks",
]
_context = multiprocessing.get_context("forkserver")


class Ended(NamedTuple):
    """How a program ended."""

    returncode: int  # as of `subprocess.Popen`; -9 or -24 where it ran out of time
    out: str
    err: str
    seconds: float


def warm_up(**variables: str) -> None:
    """Starts the warm process, with variables of the environment for all programs."""
    _context.set_forkserver_preload(WARM)
    with mock.patch.dict(os.environ, environment(TF_CPP_MIN_LOG_LEVEL="2", **variables)):
        multiprocessing.forkserver.ensure_running()


def run(program: str, arguments: list[str], cwd: Path, **variables: str) -> Ended:
    """Runs a program to its end.

    Args:
        program: `main.py` or another script of the repository, or the name of a module, as after `-m`.
        arguments: its command line.
        cwd: where it runs.
        variables: of its environment; those that a library reads when it is imported come too late.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        began = time.monotonic()
        child = _context.Process(target=_become, args=(program, arguments, cwd, out, err, variables))
        child.start()
        child.join(LONGEST)
        if child.is_alive():
            os.killpg(child.pid, signal.SIGKILL)
            child.join()
        said = (file.read_text(errors="replace") if file.exists() else "" for file in (out, err))
        return Ended(child.exitcode, *said, time.monotonic() - began)


def _become(
    program: str, arguments: list[str], cwd: Path, out: Path, err: Path, variables: dict[str, str]
) -> None:
    """Runs the program in this process, which ends with it as Python's own would."""
    os.setsid()
    for number, file in enumerate((os.devnull, out, err)):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(cwd)
    os.environ.update(variables)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (COMPUTING, COMPUTING))
    status = 0
    try:
        sys.modules.pop(program, None)  # imported by another already, it would be warned of
        if program.endswith(".py"):
            sys.argv = [str(ROOT / program), *arguments]
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            sys.argv = [program, *arguments]
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
