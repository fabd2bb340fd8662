"""One statement, checked: what it predicts, what the computer finds, and the verdict."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

EXACT, APPROXIMATE, MISPRINT, FAILS = "exact", "approximate", "misprint", "fails"
VERDICTS = (EXACT, APPROXIMATE, MISPRINT, FAILS)
STATED, REPEATED, DEFINITION, OURS = "stated", "repeated", "definition", "ours"


class Entry(NamedTuple):
    """A line of `theory.json`. The verdict follows from the numbers, never the other way round."""

    statement: str  # "Theorem 3.3 (eq. 11): what it says, in a line"
    setup: str  # what was computed, and which number the next two are
    predicted: float  # by the statement
    measured: float
    error: float  # relative, or absolute where the prediction is zero
    verdict: str  # exact | approximate | misprint | fails
    note: str  # under which assumption; where it fails, what is true instead
    kind: str = STATED  # by the paper; or repeated there, a definition, or ours


def relative_error(predicted: float, measured: float) -> float:
    """|measured - predicted| / |predicted|, absolute where the prediction is zero."""
    difference = abs(measured - predicted)
    return float(difference / abs(predicted)) if predicted else float(difference)


def below(error: float) -> str:
    """An error of rounding's size in words that another machine's rounding does not change.

    >>> below(3e-16), below(0.02)
    ('below 1e-12', '2e-02')
    """
    return "below 1e-12" if abs(error) < 1e-12 else f"{abs(error):.0e}"


def exponent(steps: Sequence[float], values: Sequence[float]) -> float:
    """The power of `steps` by which positive values go: the slope in a log-log plot."""
    return np.polyfit(np.log(steps), np.log(values), 1)[0]


def holds(
    statement: str,
    setup: str,
    predicted: float,
    measured: float,
    note: str,
    *,
    worst: float | None = None,
    tolerance: float = 1e-9,
) -> Entry:
    """`exact` where measured equals predicted up to rounding, else `fails`.

    Args:
        worst: the largest error where more was compared than the two numbers shown.
        tolerance: what counts as rounding.
    """
    error = relative_error(predicted, measured) if worst is None else worst
    verdict = EXACT if error <= tolerance else FAILS
    return Entry(statement, setup, float(predicted), float(measured), float(error), verdict, note)


def fails(
    statement: str, setup: str, predicted: float, measured: float, note: str, *, margin: float = 1e-6
) -> Entry:
    """`fails` where a counterexample's numbers differ by more than `margin`, else `exact`."""
    error = relative_error(predicted, measured)
    verdict = FAILS if not error <= margin else EXACT  # what is not a number is not exact
    return Entry(statement, setup, float(predicted), float(measured), error, verdict, note)


def misprint(statement: str, setup: str, printed: float, read: float, measured: float, note: str) -> Entry:
    """`misprint` where the obvious reading equals what is measured and the printed formula does not.

    Args:
        printed, read: what the formula predicts as printed, and as it must be meant.
    """
    entry = fails(statement, setup, printed, measured, note)
    meant = relative_error(read, measured) <= 1e-9
    return entry._replace(verdict=MISPRINT) if entry.verdict == FAILS and meant else entry


def agrees(
    statement: str,
    setup: str,
    predicted: float,
    measured: float,
    note: str,
    *,
    tolerance: float,
    worst: float | None = None,
    kind: str = STATED,
) -> Entry:
    """`approximate` where measured agrees with predicted within a tolerance that the set-up accounts for.

    Args:
        tolerance: largest relative error, as from a standard error; of `worst` where that is given.
        worst: the largest of the errors, in the tolerance's unit, where more was compared.
    """
    error = relative_error(predicted, measured)
    verdict = APPROXIMATE if (error if worst is None else worst) <= tolerance else FAILS
    return Entry(statement, setup, float(predicted), float(measured), error, verdict, note, kind)


def has_order(
    statement: str, setup: str, order: float, steps: Sequence[float], errors: Sequence[float], note: str
) -> Entry:
    """`approximate` where errors fall as `steps**order` (log-log slope within 0.1), else `fails`.

    The numbers shown are the exponents.
    """
    slope = exponent(steps, errors)
    verdict = APPROXIMATE if abs(slope - order) < 0.1 else FAILS
    return Entry(statement, setup, float(order), float(slope), relative_error(order, slope), verdict, note)
