"""What every chapter of the harness is given: its time, its luck, a folder, and where it counts."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# The runs here compile much and compute little.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


class Chapter:
    """One kind of fault, injected again and again.

    Args:
        name: of the chapter.
        folder: its own, empty.
        seed: of its luck: the same one injects the same faults, but for the moments.
        seconds: after which it begins no other fault.
        most: faults after which it ends, whatever the time; None: no limit.
    """

    def __init__(self, name: str, folder: Path, seed: int, seconds: float, most: int | None = None):
        self.name, self.folder, self.seed, self.seconds = name, folder, seed, seconds
        self.random = random.Random(f"{name} {seed}")
        self.cache = folder.parent / "cache"  # $POISON_JAX_CACHE: what one chapter compiles serves all
        self.counts: Counter[str] = Counter()
        self.measured: dict[str, Any] = {}  # by what it is called: a number, or a line of text
        self.failures: list[str] = []
        self._end, self._most = time.monotonic() + seconds, most

    def rounds(self) -> Iterator[int]:
        """Numbers from 0 while there is time, at least one."""
        number = 0
        while number == 0 or (time.monotonic() < self._end and (self._most is None or number < self._most)):
            yield number
            number += 1

    def count(self, what: str, times: int = 1) -> None:
        """One more of what the report counts."""
        self.counts[what] += times

    def fail(self, what: str) -> None:
        """A promise that was broken; the chapter goes on, and the harness ends with status 1."""
        self.failures.append(f"{self.name} (seed {self.seed}): {what}")
        print(f"BROKEN {self.failures[-1]}", file=sys.stderr, flush=True)

    def check(self, kept: bool, what: str) -> bool:
        """Fails with `what` unless a promise was kept."""
        if not kept:
            self.fail(what)
        return kept


def start(command: list[Any], **variables: str) -> subprocess.Popen:
    """A Python process of this project: `start(["main.py", "--workdir=..."])`, its output in pipes."""
    environment = os.environ | {"XLA_FLAGS": QUICK, "JAX_PLATFORMS": "cpu"} | variables
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-u", *map(str, command)],
        cwd=ROOT,
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
        errors="replace",
    )


def ended_in_one_line(process: subprocess.Popen, err: str, status: int = 2) -> str | None:
    """What is wrong with how bad input or a bad disk was refused; None if nothing is.

    The contract: the exit status, one line on stderr that begins with `error: `, beside warnings, and no
    traceback.
    """
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    if process.returncode != status:
        return f"exit status {process.returncode} instead of {status}: {err[-500:]!r}"
    if "Traceback" in err or len(lines) != 1 or not lines[0].startswith("error: "):
        return f"not one line: {err[-500:]!r}"
    return None
