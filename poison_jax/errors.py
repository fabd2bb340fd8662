"""The exceptions that the command line turns into one line and an exit status, and that line."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from poison_jax import console


class UserError(ValueError):
    """Bad input: a config value, a missing data set, a broken file, a wrong shape.

    Its message says in one line what is wrong and what to do. The command line exits with status 2;
    library callers catch it as the `ValueError` that it is.
    """


class Busy(UserError):
    """Another process is working on it."""


class Damaged(UserError):
    """A file is not as it was written.

    Args:
        where: the file, perhaps with a line's number.
        reason: what is wrong with it, a predicate: "does not match its checksum".
        advice: what to do about it.
    """

    def __init__(self, where: object, reason: str, advice: str = "move it away"):
        super().__init__(where, reason, advice)
        self.reason = reason

    def __str__(self) -> str:
        return "{} {}: {}".format(*self.args)


class Diverged(UserError):
    """Training cannot go on: something is not finite."""


class RunsFailed(Exception):
    """Some runs of a comparison or a sweep could not be done; all others are.

    Args:
        message: which, and why.
        finished: the runs of a comparison that are done.
    """

    def __init__(self, message: str, finished: Sequence[Any] = ()):
        super().__init__(message)
        self.finished = list(finished)


class Interrupted(Exception):
    """SIGTERM or Ctrl-C: the state is saved, the same command goes on from there."""


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Within it what a user can mend ends the process with one line and status 2."""
    console.prepare()
    try:
        yield
    except UserError as error:
        fail(error)
    except OSError as error:
        fail(f"{error}: free some space, or choose another folder")


def fail(error: object) -> NoReturn:
    """Ends the process as bad input does: `error: ` and what is said of it, in one line; status 2."""
    with contextlib.suppress(OSError):  # where stderr is a file on the disk that is full
        console.tell(f"error: {error}")
    sys.exit(2)


def about(error: BaseException) -> str:
    """An exception of anybody's code: its type and what it says, in one line of at most 200 characters."""
    kind, said = type(error).__name__, one_line_of(error)
    return (said if said == kind else f"{kind}: {said}")[:200]


def one_line_of(error: BaseException) -> str:
    """What an exception says, in one line; its type where it says nothing, or fails to."""
    try:
        said = error.args[0] if isinstance(error, KeyError | AttributeError) and error.args else error
        return " ".join(str(said).split()) or type(error).__name__
    except Exception:
        return type(error).__name__
