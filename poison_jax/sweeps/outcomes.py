"""Outcomes of the runs in a store or a folder of results: finished, or why not.

Nothing here is written, and nothing that is damaged stops the rest from being read.
"""

import copy
import functools
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from poison_jax import wording
from poison_jax.errors import UserError
from poison_jax.runs import lease, records
from poison_jax.runs.files import Json
from poison_jax.runs.store import Run, is_run
from poison_jax.sweeps.board import Board

STATES = ("done", "running", "failed", "waiting", "unfinished", "damaged")


class Outcome(NamedTuple):
    """A run, finished or not."""

    run: str  # name of its directory
    overrides: Json  # its place in a sweep: dotted key -> value
    state: str  # of STATES; unfinished: nobody works on it
    reason: str  # why there is no result; where there is, "" or what is wrong with it
    config: Json  # {} where it cannot be read
    result: Json | None


class Group(NamedTuple):
    """A sweep."""

    name: str
    outcomes: list[Outcome]  # in the order of what they override
    reason: str  # why its cells cannot be read, or ""

    def count(self, state: str) -> int:
        """How many of its cells are in a state."""
        return sum(outcome.state == state for outcome in self.outcomes)


def read(path: Path) -> tuple[list[Group], list[Outcome]]:
    """The sweeps, and the runs that belong to none of them.

    Args:
        path: a store (the `--workdir` of runs), or a folder that holds `<sweep>.jsonl`.

    Raises:
        UserError: there is no such folder, or neither sweep nor run in it.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is no folder: name the --workdir of runs, or a folder of results")
    groups = [_group(path, name) for name in records.names(path)]
    cells = {outcome.run for group in groups for outcome in group.outcomes}
    others = sorted(folder for folder in path.iterdir() if folder.name not in cells)
    singles = [_of_run(Run(folder), {}) for folder in others if is_run(folder)]
    if not groups and not singles:
        raise UserError(f"{path} holds neither a sweep nor a run: name the --workdir of runs")
    return groups, singles


def says(error: Exception) -> str:
    """An exception in one line: its message where that is meant for people, else its kind as well."""
    said = " ".join(str(error).split())
    return said if isinstance(error, UserError | OSError) else f"{type(error).__name__}: {said}"


def _group(path: Path, name: str) -> Group:
    try:
        if (path / records.SWEEPS / f"{name}.json").exists():
            board = Board(path, name)
            outcomes = [_of_cell(board, cell) for cell in board.cells]
        else:
            outcomes = [_of_record(record) for record in records.load(path, name)]
        return Group(name, sorted(outcomes, key=lambda outcome: _order(outcome.overrides)), "")
    except DAMAGE as error:
        return Group(name, [], says(error))


def _of_record(record: records.Record) -> Outcome:
    if problem := _problem(record.result):
        return Outcome(str(record.run), record.overrides, "damaged", problem, {}, None)
    return _finished(str(record.run), record.overrides, record.result)


def _of_cell(board: Board, cell: str) -> Outcome:
    run, overrides = board.run(cell), board.overrides(cell)
    outcome = _of_run(run, overrides, lambda: board.result(cell))
    if outcome.state not in ("running", "unfinished"):
        return outcome
    try:
        state = board.state(cell)
        if state == "done":  # since it was looked at
            return _of_run(run, overrides, lambda: board.result(cell))
        reason = board.why(cell) if state == "failed" else outcome.reason
    except DAMAGE as error:
        state, reason = "damaged", says(error)
    if not (config := outcome.config):  # never begun: that of the sweep, but for what the cell overrides
        config = copy.deepcopy(board.sweep.config)
        for key, value in overrides.items():
            *groups, last = key.split(".")
            functools.reduce(operator.getitem, groups, config)[last] = value
    return outcome._replace(state=state, reason=reason, config=config)


def _of_run(run: Run, overrides: Json, read: Callable[[], Json | None] | None = None) -> Outcome:
    """A run, its result as `read` has it: of a cell that of its view."""
    name = run.path.name
    try:
        result = (read or run.result)()
        if result is not None:
            if problem := _problem(result):
                raise UserError(f"{run.path / 'result.json'} {problem}: move it away")
            return _finished(name, overrides, result)
        config = run.config() if run.path.exists() else {}
        state = "running" if run.claimed else "unfinished"
        return Outcome(name, overrides, state, _how_far(run, config), config, None)
    except DAMAGE as error:
        return Outcome(name, overrides, "damaged", says(error), {}, None)


def _finished(name: str, overrides: Json, result: Json) -> Outcome:
    concern = attempt(wording.concern, result, "")  # a rate that is none is said where it is shown
    return Outcome(name, overrides, "done", concern, result["config"], result)


def _problem(result: Any) -> str:
    """What is wrong with a result, in words; "" where it is one."""
    config = result.get("config") if isinstance(result, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("experiment"), str):
        return "does not say which experiment it is of"
    return ""


def _how_far(run: Run, config: Json) -> str:
    rows = run.metrics()
    said = f"epoch {rows[-1]['epoch']} of {config['train']['epochs']}" if rows else ""
    if deaths := lease.deaths(run.claims):
        said = ", ".join(filter(None, [said, f"its process died {deaths} time{'s' * (deaths > 1)}"]))
    return said


def _order(overrides: Json) -> list[tuple]:
    """Numbers by value, before what is none."""
    return [
        (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))
        for value in overrides.values()
    ]


def attempt(of: Callable[[Json], Any], found: Json, otherwise: Any = "?") -> Any:
    """What a function says of a result; otherwise where it cannot, the result being older or damaged."""
    try:
        return of(found)
    except DAMAGE:
        return otherwise


# What files that are damaged, or were not written by this project, make the code that reads them raise.
DAMAGE = (OSError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
