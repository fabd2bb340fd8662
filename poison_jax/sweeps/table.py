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
from poison_jax.sweeps.board import Board

ROWS = 200  # of the table at the end, at most
_COLUMNS = "excess", "asr", "untriggered", "clean_accuracy", "overlap"  # of `wording.MEASURES`
_ENDED = "done", "failed"


class Progress:
    """A live table on a terminal; elsewhere a line for each cell that ends."""

    def __init__(self, board: Board, labels: dict[str, str]):
        self._board, self._labels = board, labels
        self._began = time.monotonic()
        self._first: float | None = None  # cells done when it began, with what is done of running ones
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
        board, before = self._board, self._states
        known = {cell: state for cell, state in before.items() if state in _ENDED}
        looked_at = board.states(cell for cell in board.cells if cell not in known)
        self._states = states = {cell: known.get(cell) or looked_at[cell] for cell in board.cells}
        shares = {cell: self._share(cell, state) for cell, state in states.items()}

        done, elapsed = sum(shares.values()), time.monotonic() - self._began
        self._first = done if self._first is None else self._first
        left = "time left not known yet"
        if done > self._first and elapsed >= 1:
            left = f"{console.duration(elapsed * (len(states) - done) / (done - self._first))} left"
        values = list(states.values())
        counts = (
            f"{values.count('done')}/{len(values)} done, {values.count('running')} running, "
            f"{values.count('failed')} failed"
        )
        for cell in before:
            if cell not in known and states[cell] in _ENDED:
                failed = states[cell] == "failed"
                outcome = f"failed: {board.why(cell)}" if failed else _in_words(board.result(cell))
                console.say(f"{counts}, {left}: {self._labels[cell]}: {outcome}")
        if self._live:
            table = Table(box=None, show_header=False, padding=(0, 2))
            table.add_row("all cells", ProgressBar(len(states), done, width=40), left)
            for cell in (cell for cell, state in states.items() if state == "running"):
                bar = ProgressBar(1, shares[cell], width=40)
                table.add_row(self._labels[cell], bar, f"{shares[cell]:.0%}")
            self._live.update(Group(f"sweep {board.sweep.name}: {counts}", table), refresh=True)
        return states

    def _share(self, cell: str, state: str) -> float:
        """How much of a cell is done, 0 to 1."""
        if state != "running":
            return float(state in _ENDED)
        run = self._board.run(cell)
        try:
            rows = run.metrics()
            return 0.95 * rows[-1]["epoch"] / run.config()["train"]["epochs"] if rows else 0.0
        except UserError:  # a damaged file: whoever does the cell says so and mends it
            return 0.0


def summary(board: Board, labels: dict[str, str]) -> None:
    """Prints a row for each cell: its values of the axes, if all have the same ones, else its label."""
    results = {cell: board.result(cell) for cell in board.cells[:ROWS]}
    columns = _columns([result for result in results.values() if result is not None])
    axes = {tuple(cell["overrides"]) for cell in board.sweep.cells}
    (head,) = axes if len(axes) == 1 else [()]
    rows, states = [], []
    for cell, result in results.items():
        row = [", ".join(map(str, board.overrides(cell).values())) if head else labels[cell]]
        if result is None:
            row += [wording.DASH] * (len(columns) + 1)
            states.append(board.state(cell))
        else:
            row += [measure.text(result) for measure in columns]
            row.append(console.duration(result["wall_seconds"]))
            states.append(wording.concern(result).partition(":")[0] or "ok")
        rows.append(row)
    header = [", ".join(map(config_lib.short, head)) or "cell"]
    header += [*(measure.heading for measure in columns), "time"]
    if set(states) != {"ok"}:
        header, rows = [*header, "status"], [[*row, state] for row, state in zip(rows, states, strict=True)]
    console.say("")
    console.table(f"sweep {board.sweep.name}", header, rows)
    if len(board.cells) > ROWS:
        console.say(f"and {len(board.cells) - ROWS} more")


def _columns(results: list[Json]) -> list[wording.Measure]:
    """The measures of a table that at least one of some results has."""
    known = wording.measures(results)
    return [known[name] for name in _COLUMNS if name in known]


def _in_words(result: Json) -> str:
    said = [f"{measure.heading} {measure.text(result)}" for measure in _columns([result])]
    return ", ".join(
        [*said, console.duration(result["wall_seconds"]), *filter(None, [wording.concern(result)])]
    )
