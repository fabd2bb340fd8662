"""The terminal: lines, warnings, tables and progress bars; everything that is printed goes through here.

What is printed is literal text: markup, emoji codes and control characters in a name are shown and not
obeyed, and what the terminal cannot show is escaped. A program goes on when nobody reads its output any
more: its results are files.
"""

import atexit
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from rich.cells import cell_len
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
from rich.text import Text

WIDTH = 140  # columns of output that is no terminal's
_NOBODY = (errno.EPIPE, errno.EIO, errno.EBADF)  # what writing to a pipe or terminal that is gone raises


def say(line: str) -> None:
    """Prints a line of information."""
    _Stream("stdout").write(f"{_literal(line)}\n")


def warn(line: str) -> None:
    """Prints a line that asks for attention, on stderr."""
    tell(f"warning: {line}")


def tell(line: str) -> None:
    """Prints a line on stderr: what a program ends with, or asks for."""
    _Stream("stderr").write(f"{printable(line)}\n")


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a title and a table, the first column to the left, the others to the right.

    No cell is cut: a table that is wider than the terminal is printed in parts, one below the other, each
    with the first column; what is wider than the terminal all the same is wrapped between words.
    """
    stream = _Stream("stdout")
    columns = [[stream.literal(cell) for cell in column] for column in zip(header, *rows, strict=True)]
    widths = [max(_longest(cell.splitlines()) for cell in column) for column in columns]
    words = [max(_longest(cell.split()) for cell in column) for column in columns]
    console = terminal()
    room = console.width
    first = max(words[0], min(widths[0], room // 2))
    say(title)
    for part in _parts(widths[1:], room - first - 4):
        limit = room - first - 7
        chosen = [(0, first), *((i + 1, max(words[i + 1], min(widths[i + 1], limit))) for i in part)]
        result = Table()
        for i, width in chosen:
            justify = "right" if i else "left"
            result.add_column(
                Text(columns[i][0]), justify=justify, min_width=width, max_width=width, overflow="fold"
            )
        for row in zip(*(columns[i][1:] for i, _ in chosen), strict=True):
            result.add_row(*map(Text, row))
        console.width = max(console.width, 1 + sum(width + 3 for _, width in chosen))  # never crops
        console.print(result)


def _parts(widths: list[int], room: int) -> Iterator[list[int]]:
    """Places of columns that fit beside each other, at least one in each part."""
    part: list[int] = []
    for i, width in enumerate(widths):
        if part and sum(widths[j] + 3 for j in part) + width + 3 > room:
            yield part
            part = []
        part.append(i)
    yield part


def _longest(texts: list[str]) -> int:
    return max(map(cell_len, texts), default=0)


@contextlib.contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """A bar with the time left, on a terminal; yields a function that advances it by one."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = terminal("stderr")
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=_Stream("stdout").isatty(),  # else lines meant for a file would go to the terminal
    )
    with bar:
        task = bar.add_task(_literal(title), total=total, completed=done)
        yield lambda: bar.advance(task)


def terminal(name: str = "stdout") -> Console:
    """The console for tables and live displays, on `stdout` or `stderr`; it takes strings literally."""
    stream = _Stream(name, live=name == "stderr")
    width = None if stream.isatty() or "COLUMNS" in os.environ else WIDTH
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


class _Stream:
    """A standard stream as it is at the moment, to which writing always succeeds.

    Args:
        name: `stdout` or `stderr`; None stands in its place where the program was started without it.
        live: for what draws over itself, below the lines that are printed meanwhile.
    """

    def __init__(self, name: str, *, live: bool = False):
        self._name, self._live = name, live

    @property
    def encoding(self) -> str:
        return getattr(self._now, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Writes text at once; what the encoding lacks is escaped.

        Raises:
            OSError: the stream is a file, and the disk is full.
        """
        stream = self._now
        if stream is not None and not stream.closed:
            try:
                stream.write(self._encodable(text))
                stream.flush()
            except OSError as error:
                if error.errno not in _NOBODY:
                    raise
                _discard(stream)
        return len(text)

    def flush(self) -> None:
        """Does nothing: all is written at once."""

    def isatty(self) -> bool:
        return self._now is not None and not self._now.closed and self._now.isatty()

    def fileno(self) -> int:
        return self._now.fileno()

    def literal(self, text: object) -> str:
        """A text in which nothing is invisible or obeyed by a terminal, of characters that there are."""
        return self._encodable(_literal(text))

    def _encodable(self, text: str) -> str:
        return text.encode(self.encoding, "backslashreplace").decode(self.encoding)

    @property
    def _now(self) -> TextIO | None:
        stream = getattr(sys, self._name)
        # While a live display is shown, its library puts the lines that others print above it.
        return getattr(stream, "rich_proxied_file", stream) if self._live else stream


def prepare() -> None:
    """Makes what libraries print as safe as what this module prints; to be called when a program starts.

    A standard stream that is closed is opened on nothing: else the next file that is opened would take its
    number, and be written to by whatever prints.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    atexit.unregister(_end)
    atexit.register(_end)


def _end() -> None:
    """Flushes what libraries have printed, for a reader that may be gone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _discard(stream)


def _discard(stream: TextIO) -> None:
    """From here on what is written to a stream, or waits in it, goes nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


def printable(text: object, most: int = 500) -> str:
    """A text as one line that a terminal shows and does not obey.

    White space is single spaces, whatever else cannot be seen is escaped, and what is longer than `most`
    characters lacks its middle.

    >>> printable("two\\nlines \\x1b[31mred"), printable("0123456789", most=6)
    ('two lines \\\\x1b[31mred', '012 ... 789')
    """
    line = " ".join(str(text).split())
    if len(line) > most:
        line = f"{line[: most // 2]} ... {line[-(most // 2) :]}"
    return _literal(line)


def _literal(text: object) -> str:
    """A text in which nothing is invisible or obeyed by a terminal, on as many lines."""
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in str(text))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


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
