"""`main.py`, watched: its memory, threads and open files are written down after every training step.

`python -m tests.faults.watched FILE STEPS [arguments of main.py]`; after so many steps it is asked to stop.
"""

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import jax

from poison_jax import train


def here() -> dict[str, float]:
    """Resident MiB, threads and open files of this process, and the seconds of a clock."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "seconds": time.monotonic(),
        "memory": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "files": len(os.listdir("/proc/self/fd")),
    }


def main(argv: list[str]) -> None:
    """The command line."""
    file, steps, *arguments = argv
    step, seen = train.train_step, []

    def watched(*args, **options):
        out = step(*args, **options)
        jax.block_until_ready(out)
        seen.append(here())
        Path(file).write_text(json.dumps(seen))
        if len(seen) == int(steps):
            os.kill(os.getpid(), signal.SIGTERM)
        return out

    watched.lower = step.lower
    train.train_step = watched
    sys.argv = ["main.py", *arguments]
    runpy.run_path("main.py", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
