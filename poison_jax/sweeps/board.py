"""The state of a sweep's cells (done, running, failed, waiting), in files that any process may read."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from poison_jax import console
from poison_jax.errors import Busy, Damaged, UserError
from poison_jax.runs import files, lease, records
from poison_jax.runs.files import Json
from poison_jax.runs.store import Run


class Board:
    """A sweep in a store.

    Args:
        workdir: the store.
        name: of the sweep.

    Raises:
        UserError: the store does not hold the sweep.
    """

    def __init__(self, workdir: Path, name: str):
        self.workdir = Path(workdir)
        self.sweep = records.read_sweep(self.workdir, name)
        self.folder = self.workdir / records.SWEEPS / name  # of the sweep's own files
        self._cells = {records.key_of(cell): cell for cell in self.sweep.cells}
        self._done: set[str] = set()  # they stay so, and need not be looked at again

    @property
    def cells(self) -> list[str]:
        """The names of the cells (`records.key`), in the order in which they are to be done."""
        return list(self._cells)

    def run(self, cell: str) -> Run:
        """The run of a cell."""
        return Run(self.workdir / self._cells[cell]["run"])

    def overrides(self, cell: str) -> Json:
        """Dotted key -> value: a cell's place in the grid."""
        return self._cells[cell]["overrides"]

    def record(self, cell: str) -> records.Record | None:
        """A cell as tables take it, done here or where its stored line comes from; None while it is not done.

        Raises:
            UserError: its result is damaged.
        """
        return records.of_cell(self.workdir, self.sweep.name, self._cells[cell])

    def result(self, cell: str) -> Json | None:
        """What a cell found, as `record`."""
        record = self.record(cell)
        return None if record is None else record.result

    def state(self, cell: str) -> str:
        """`done`, `running`, `failed` or `waiting`."""
        if cell in self._done:
            return "done"
        run = self.run(cell)
        if run.done_with(self._view(cell)) or self._stored(cell).exists():
            self._done.add(cell)
            return "done"
        if self._failure(cell).exists():
            return "failed"
        if run.claimed:
            return "running"
        return "failed" if lease.deaths(run.claims) >= self.sweep.attempts else "waiting"

    def states(self, cells: Iterable[str] | None = None) -> dict[str, str]:
        """The state of each, or of all; of those never begun it is told from one listing of the store."""
        runs = set(os.listdir(self.workdir))
        named = {file.stem for kind in ("failed", "stored") for file in self.folder.glob(f"{kind}/*.json")}
        return {
            cell: self.state(cell) if cell in named or self._cells[cell]["run"] in runs else "waiting"
            for cell in (self._cells if cells is None else cells)
        }

    def store(self, cell: str, record: records.Record) -> None:
        """Takes a record from elsewhere for that of a cell, if the cell is not done."""
        if self.state(cell) != "done":
            records.store_record(self.workdir, self.sweep.name, cell, record)

    def recover(self) -> None:
        """Sets damaged results aside: their cells wait again, and go on from their last checkpoints.

        Results alone: the arrays of all cells would be gigabytes, and are for `verify` to look at.
        """
        for cell in self.cells:
            run, stored = self.run(cell), self._stored(cell)
            try:
                run.result(self._view(cell))
                run.result()
            except Damaged:
                with contextlib.suppress(Busy):  # somebody else is mending it
                    run.finished()
            if stored.exists() and not run.done_with(self._view(cell)):
                try:
                    self.record(cell)
                except UserError as error:  # a copy of a line elsewhere
                    console.warn(f"{error}; removed")
                    stored.unlink()

    def fail(self, cell: str, error: str) -> None:
        """Keeps why a cell cannot be done."""
        self._failure(cell).parent.mkdir(parents=True, exist_ok=True)
        files.write_json(self._failure(cell), {"error": error, "time": time.time()})

    def why(self, cell: str) -> str:
        """Why a cell has failed."""
        if self._failure(cell).exists():
            return str(files.read_json(self._failure(cell)).get("error"))
        return f"its process died {lease.deaths(self.run(cell).claims)} times"

    def retry(self, cell: str) -> None:
        """Forgets that a cell has failed."""
        self._failure(cell).unlink(missing_ok=True)
        lease.forgive(self.run(cell).claims)

    def _view(self, cell: str) -> str:
        return self._cells[cell].get("view", "")

    def _stored(self, cell: str) -> Path:
        return records.stored_file(self.workdir, self.sweep.name, cell)

    def _failure(self, cell: str) -> Path:
        return self.folder / "failed" / f"{cell}.json"
