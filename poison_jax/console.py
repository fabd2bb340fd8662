"""What a person sees while a run goes on, and the table at its end."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from poison_jax.errors import printable


def _console() -> Console:
    # Made when needed, so that it follows a redirected stdout; piped output keeps its long lines.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def say(line: str) -> None:
    """A line of information."""
    _console().print(line, markup=False, soft_wrap=True)


def warn(line: str) -> None:
    """A line that asks for attention, on stderr."""
    print(f"warning: {printable(line)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """A bar with the time left, on a terminal; yields a function that advances it by one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # else lines meant for a file would go to the terminal
    )
    with bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda: bar.advance(task)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a title and a table, first column left-aligned, the others right-aligned."""
    result = Table()
    for i, name in enumerate(header):
        result.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        result.add_row(*row)
    say(title)
    _console().print(result)


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(75), duration(4000)
    ('1 min 15 s', '1 h 06 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
