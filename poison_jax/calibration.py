"""One calibration for every detector: against clean references, or clean inputs, that it sees the same way.

A p-value here is conformal: `(1 + references with a score at least as large) / (N + 1)`. Where the subject is
as clean as the references and all are exchangeable, it is at most alpha with probability at most alpha,
whatever the statistic. 19 references can reach .05, 99 can reach .01.
"""

import numpy as np

from poison_jax.arrays import finite
from poison_jax.errors import UserError


def deviations(values: np.ndarray, two_sided: np.ndarray | bool = False) -> np.ndarray:
    """How far each of M models lies from the other M - 1, in units of their median absolute deviation.

    `(value - median) / MAD`, of its absolute value where two-sided. Median and MAD of a model are those of
    the *others*, so that all M are treated alike, whichever of them is the subject. Where the others do not
    differ, a model that agrees with them has 0, another an infinite deviation.

    Args:
        values: `[M]` or `[M, S]`, M >= 2: a statistic a model, or S of them.
        two_sided: whether small values are as suspicious as large ones; `[S]` for several.

    Returns:
        As `values`.

    Raises:
        UserError: fewer than two models, or values that are not finite.
    """
    values = np.asarray(values, float)
    if len(values) < 2 or not np.isfinite(values).all():
        raise UserError(f"{len(values)} models' statistics {values.tolist()}: give two or more, all finite")
    m = len(values)
    others = np.broadcast_to(values, (m, *values.shape))[~np.eye(m, dtype=bool)]
    others = others.reshape(m, m - 1, *values.shape[1:])
    median = np.median(others, axis=1)
    mad = np.median(np.abs(others - median[:, None]), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(values == median, 0.0, (values - median) / mad)
    return np.where(two_sided, np.abs(found), found)


def p_value(score: float, references: np.ndarray) -> float:
    """The conformal p-value of a score; ties count against the subject's being unusual.

    >>> p_value(2.0, np.arange(19) / 10)
    0.05
    """
    return float((1 + np.sum(np.asarray(references) >= score)) / (len(references) + 1))


def p_values(suspicion: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Conformal p-values `[N]` of inputs or examples against held-out clean ones `[M]`, as `p_value`.

    Raises:
        UserError: values that are not finite.
    """
    suspicion, clean = finite("suspicion", suspicion), np.sort(finite("suspicion of clean ones", clean))
    at_least = len(clean) - np.searchsorted(clean, suspicion, side="left")
    return (1 + at_least) / (len(clean) + 1)


def benjamini_hochberg(p: np.ndarray, level: float) -> np.ndarray:
    """Which hypotheses are rejected, bool `[N]`: at most a share `level` of them falsely, in expectation."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    passed = np.flatnonzero(p[order] <= level * np.arange(1, len(p) + 1) / max(len(p), 1))
    rejected = np.zeros(len(p), bool)
    if passed.size:
        rejected[order[: passed[-1] + 1]] = True
    return rejected
