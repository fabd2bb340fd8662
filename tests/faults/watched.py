"""`main.py`, watched: what it holds is written down after every training step.

`python -m tests.faults.watched FILE STEPS [arguments of main.py]`; after so many steps it is asked to stop.
"""

import contextlib
import gc
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import jax

from poison_jax import console


def here() -> dict[str, float]:
    """What this process holds, and the seconds of a clock.

    JAX's arrays in bytes, Python's blocks of memory, threads and open files are the program's own doing and
    the same on every machine; resident MiB are also the doing of the C library and the other programs.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "seconds": time.monotonic(),
        "arrays": sum(array.nbytes for array in jax.live_arrays()),
        "blocks": sys.getallocatedblocks(),
        "memory": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "files": len(os.listdir("/proc/self/fd")),
    }


def main(argv: list[str]) -> None:
    """The command line."""
    file, steps, *arguments = argv
    progress, seen = console.progress, []

    @contextlib.contextmanager
    def watched(title, *of, **options):
        with progress(title, *of, **options) as advance:
            if title.strip() != "training":
                yield advance
                return

            def look():
                advance()
                if not seen:
                    gc.freeze()  # what is there stays: each collection looks at what came since
                gc.collect()
                seen.append(here())
                if len(seen) == int(steps):
                    os.kill(os.getpid(), signal.SIGTERM)

            try:
                yield look
            finally:
                Path(file).write_text(json.dumps(seen))

    console.progress = watched
    sys.argv = ["main.py", *arguments]
    runpy.run_path("main.py", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
