"""The exceptions that the command line turns into one line and an exit status."""


class UserError(ValueError):
    """Bad input: a config value, a missing data set, a broken file, a wrong shape.

    Its message says in one line what is wrong and what to do. The command line exits with status 2;
    library callers catch it as the `ValueError` that it is.
    """


class Busy(UserError):
    """Another process is working on it."""


class CellsFailed(Exception):
    """Some cells of a sweep could not be done; all others are."""


class Interrupted(Exception):
    """SIGTERM or Ctrl-C: the state is saved, the same command goes on from there."""
