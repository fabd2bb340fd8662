"""The one exception that means: the user can mend this, and the message says how."""


class UserError(ValueError):
    """Bad input: a config value, a missing data set, a broken file, a wrong shape.

    The command line prints the message on one line of stderr and exits with status 2; library
    callers catch it as the `ValueError` that it is.
    """
