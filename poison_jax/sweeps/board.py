"""What cells of a sweep are done, running, failed or waiting: said by files, for any number of processes."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from poison_jax.errors import Busy, Damaged
from poison_jax.runs import records
from poison_jax.runs.files import Json, read_json, write_json
from poison_jax.runs.store import Run


class Board:
    """A sweep in a store.

    Args:
        workdir: the store.
        name: of the sweep.
        attempts: a cell whose process died this often has failed.

    Raises:
        UserError: the store does not hold the sweep.
    """

    def __init__(self, workdir: Path, name: str, attempts: int):
        self.workdir, self.attempts = Path(workdir), attempts
        self.sweep = records.read_sweep(self.workdir, name)
        self.folder = self.workdir / records.SWEEPS / name  # of the sweep's own files
        self._done: set[str] = set()  # they stay so, and need not be looked at again

    @property
    def cells(self) -> list[str]:
        """The names of the cells' runs, in the order in which they are to be done."""
        return [cell["run"] for cell in self.sweep.cells]

    def run(self, cell: str) -> Run:
        """The run of a cell."""
        return Run(self.workdir / cell)

    def state(self, cell: str) -> str:
        """`done`, `running`, `failed` or `waiting`."""
        if cell in self._done:
            return "done"
        run = self.run(cell)
        if run.done:
            self._done.add(cell)
            return "done"
        if self._failure(cell).exists():
            return "failed"
        if run.claimed:
            return "running"
        return "failed" if run.deaths >= self.attempts else "waiting"

    def recover(self) -> None:
        """Sets damaged results aside: their cells wait again, and go on from their last checkpoints."""
        for cell in self.cells:
            try:
                self.run(cell).result()
            except Damaged:
                with contextlib.suppress(Busy):  # somebody else is mending it
                    self.run(cell).finished()

    def states(self, cells: Iterable[str]) -> dict[str, str]:
        """The state of each; those that were never begun are told from one listing of the store."""
        begun = {*os.listdir(self.workdir), *(file.stem for file in self._failure("").parent.glob("*.json"))}
        return {cell: self.state(cell) if cell in begun else "waiting" for cell in cells}

    def next_waiting(self, passed: set[str]) -> str | None:
        """The next cell to be done, those passed over left out; None if there is none."""
        left = (cell for cell in self.cells if cell not in passed and self.state(cell) == "waiting")
        return next(left, None)

    def fail(self, cell: str, error: str) -> None:
        """Keeps why a cell cannot be done."""
        self._failure(cell).parent.mkdir(parents=True, exist_ok=True)
        write_json(self._failure(cell), {"error": error, "time": time.time()})

    def why(self, cell: str) -> str:
        """Why a cell has failed."""
        if self._failure(cell).exists():
            return str(read_json(self._failure(cell)).get("error"))
        return f"its process died {self.run(cell).deaths} times"

    def retry(self, cell: str) -> None:
        """Forgets that a cell has failed."""
        self._failure(cell).unlink(missing_ok=True)
        self.run(cell).forgive()

    def overrides(self, cell: str) -> Json:
        """Dotted key -> value: a cell's place in the grid."""
        return next(known["overrides"] for known in self.sweep.cells if known["run"] == cell)

    def _failure(self, cell: str) -> Path:
        return self.folder / "failed" / f"{cell}.json"
