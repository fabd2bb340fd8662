"""A chapter of the harness: its time, its luck, what it counts; how its processes end."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LONGEST = 600  # seconds that a process may take, on a machine that has much else to do
# A training of seconds, which the chapters change.
TINY = {
    "experiment": "train",
    "data.name": "digits",
    "data.n_train": 64,
    "data.n_test": 32,
    "model.depth": 8,
    "model.block": "basic",
    "model.width": 4,
    "poison.margin": 0,
    "train.epochs": 1,
    "train.batch_size": 32,
    "spectrum.k": 2,
    "spectrum.num_iters": 3,
    "spectrum.num_examples": 32,
    "spectrum.batch_size": 32,
}


class Stuck(Exception):
    """A chapter cannot go on: a process does not end, or an undisturbed one has failed."""


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


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Keys of the config as a command line; None: left at its default."""
    return [f"--config.{key}={value}" for key, value in settings.items() if value is not None]


def output(process: subprocess.Popen) -> tuple[str, str]:
    """What a process says until it ends, on stdout and on stderr.

    Raises:
        Stuck: it does not end, and is killed; or it leaves another behind that holds its output.
    """
    try:
        return process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired as error:
        said, ended = (error.stderr or error.stdout or b"").decode(errors="replace"), process.poll()
        process.kill()
    if ended is None:
        raise Stuck(f"a process did not end within {LONGEST} s, and said last {said[-500:]!r}")
    raise Stuck("a process ended, but one that it had started lives on, and holds its output open")


def unlike_one_line(status: int, err: str) -> str | None:
    """What is wrong with how bad input or a bad disk was refused; None if nothing is.

    The contract: exit status 2, and on stderr one line that begins with `error: `, beside warnings.
    """
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    if status != 2:
        return f"exit status {status} instead of 2: {err[-500:]!r}"
    if "Traceback" in err or len(lines) != 1 or not lines[0].startswith("error: "):
        return f"not one line: {err[-500:]!r}"
    return None
