"""The live table of a sweep (done, running, failed, time left), and the table at its end."""

import time

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from poison_jax import config as config_lib
from poison_jax import console, wording
from poison_jax.errors import UserError
from poison_jax.runs.files import Json
from poison_jax.runs.store import Run
from poison_jax.sweeps.board import Board

ROWS = 200  # of the table at the end, at most
_COLUMNS = "excess", "asr", "untriggered", "clean_accuracy", "overlap"  # of `wording.MEASURES`


class Progress:
    """A live table on a terminal; elsewhere a line for each cell that ends."""

    def __init__(self, board: Board, labels: dict[str, str]):
        self._board, self._labels = board, labels
        self._began = time.monotonic()
        self._first: dict[str, float] | None = None
        self._states: dict[str, str] = {}
        terminal = console.terminal("stderr")
        self._live = (
            Live(console=terminal, transient=True, auto_refresh=False) if terminal.is_terminal else None
        )

    def __enter__(self):
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_):
        if self._live:
            self._live.stop()

    def show(self) -> dict[str, str]:
        """Looks at the store, shows it, returns the cells' states."""
        ended = ("done", "failed")
        known = {cell: state for cell, state in self._states.items() if state in ended}
        looked_at = self._board.states(cell for cell in self._board.cells if cell not in known)
        states = {cell: known.get(cell) or looked_at[cell] for cell in self._board.cells}
        progress = {cell: self._share(cell, state) for cell, state in states.items()}
        if self._first is None:
            self._first = progress
        left = self._left(progress)
        for cell, state in states.items():
            if self._states and state != self._states[cell] and state in ended:
                console.say(
                    f"{self._counts(states)}, {left}: {self._labels[cell]}: {self._outcome(cell, state)}"
                )
        self._states = states
        if self._live:
            self._live.update(self._table(states, progress, left), refresh=True)
        return states

    def _share(self, cell: str, state: str) -> float:
        """How much of a cell is done, 0 to 1."""
        if state != "running":
            return float(state in ("done", "failed"))
        run = self._board.run(cell)
        try:
            rows = run.metrics()
            return 0.95 * rows[-1]["epoch"] / epochs if rows and (epochs := _epochs(run)) else 0.0
        except UserError:  # a damaged file: whoever does the cell says so and mends it
            return 0.0

    def _left(self, progress: dict[str, float]) -> str:
        done = sum(progress.values()) - sum(self._first.values())
        elapsed = time.monotonic() - self._began
        if done <= 0 or elapsed < 1:
            return "time left not known yet"
        return f"{console.duration(elapsed * (len(progress) - sum(progress.values())) / done)} left"

    def _counts(self, states: dict[str, str]) -> str:
        values = list(states.values())
        return (
            f"{values.count('done')}/{len(values)} done, {values.count('running')} running, "
            f"{values.count('failed')} failed"
        )

    def _outcome(self, cell: str, state: str) -> str:
        if state == "failed":
            return f"failed: {self._board.why(cell)}"
        return _in_words(self._board.result(cell))

    def _table(self, states: dict[str, str], progress: dict[str, float], left: str) -> Group:
        table = Table(box=None, show_header=False, padding=(0, 2))
        table.add_row("all cells", ProgressBar(len(states), sum(progress.values()), width=40), left)
        for cell, state in states.items():
            if state == "running":
                table.add_row(
                    self._labels[cell], ProgressBar(1, progress[cell], width=40), f"{progress[cell]:.0%}"
                )
        return Group(f"sweep {self._board.sweep.name}: {self._counts(states)}", table)


def summary(board: Board, labels: dict[str, str]) -> None:
    """Prints a row for each cell: its values of the axes, if all have the same ones, else its label."""
    results = {cell: board.result(cell) for cell in board.cells[:ROWS]}
    known = wording.measures(filter(None, results.values()))
    columns = [name for name in _COLUMNS if name in known]
    axes = {tuple(cell["overrides"]) for cell in board.sweep.cells}
    (head,) = axes if len(axes) == 1 else [()]
    rows, states = [], []
    for cell, result in results.items():
        values = (str(value) for value in board.overrides(cell).values())
        row = [", ".join(values) if head else labels[cell]]
        if result is None:
            row += [wording.DASH] * (len(columns) + 1)
            states.append(board.state(cell))
        else:
            row += [_text(name, result) for name in columns]
            row.append(console.duration(result["wall_seconds"]))
            states.append(wording.concern(result).partition(":")[0] or "ok")
        rows.append(row)
    header = [", ".join(map(config_lib.short, head)) or "cell"]
    header += [*(wording.MEASURES[name].heading for name in columns), "time"]
    if set(states) != {"ok"}:
        header, rows = [*header, "status"], [[*row, state] for row, state in zip(rows, states, strict=True)]
    console.say("")
    console.table(f"sweep {board.sweep.name}", header, rows)
    if len(board.cells) > ROWS:
        console.say(f"and {len(board.cells) - ROWS} more")


def _text(name: str, result: Json) -> str:
    return wording.MEASURES[name].text(result)


def _in_words(result: Json) -> str:
    columns = wording.measures([result]).keys() & _COLUMNS
    said = [f"{wording.MEASURES[name].heading} {_text(name, result)}" for name in _COLUMNS if name in columns]
    return ", ".join(
        [*said, console.duration(result["wall_seconds"]), *filter(None, [wording.concern(result)])]
    )


def _epochs(run: Run) -> int:
    return run.config()["train"]["epochs"]
