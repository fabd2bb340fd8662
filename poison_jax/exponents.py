"""Exponents by least squares on logarithms: of a power law, and of an exponential decay."""

from typing import NamedTuple

import numpy as np

from poison_jax.errors import UserError


class Slope(NamedTuple):
    """An exponent, its 95 % confidence interval, and through how many points the line goes."""

    slope: float
    low: float
    high: float
    count: int


def log_slope(efficacy: np.ndarray, spike: np.ndarray) -> Slope:
    """Return the exponent in `spike ~ efficacy^slope`: 2 by Theorem 3.4, where R_k is the same at all points.

    Ordinary least squares of log spike on log efficacy, with the interval of Student's t: for residuals that
    are independent, normal and of one size.

    Args:
        efficacy, spike: `[m]`, of the points of one network, or medians of several networks. Pairs without
            a logarithm (zero, negative, not finite) are left out.

    Returns:
        `Slope`; `count` is what was not left out. NaN with fewer than 3 points, or all at one efficacy.

    Raises:
        UserError: arrays that are not two of one length.

    >>> round(log_slope([1.0, 10.0, 100.0, -1.0], [3.0, 300.0, 30000.0, 5.0]).slope, 3)
    2.0
    """
    efficacy, spike = np.asarray(efficacy, np.float64), np.asarray(spike, np.float64)
    if efficacy.ndim != 1 or efficacy.shape != spike.shape:
        raise UserError(f"efficacy {efficacy.shape} and spike {spike.shape} are not m numbers each")
    usable = np.isfinite(efficacy) & np.isfinite(spike) & (efficacy > 0) & (spike > 0)
    x, y = np.log(efficacy[usable]), np.log(spike[usable])
    if len(x) < 3 or np.ptp(x) == 0:
        return Slope(np.nan, np.nan, np.nan, len(x))
    return Slope(*_line(x, y), len(x))


class Decay(NamedTuple):
    """An energy's rate of exponential decay per unit of time, with its 95 % confidence interval."""

    rate: float
    low: float
    high: float


def decay(times: np.ndarray, energies: np.ndarray) -> Decay:
    """Return the rate r of `E(t) = E(0) exp(-r t)`; eq. 32 claims r >= 2 kappa alpha.

    Ordinary least squares of log energy on time.

    The interval is Student's, for independent errors about a line; the errors of one training run are not
    independent, and a curve is not a line, so that there it is a lower bound on the uncertainty.

    Args:
        times: `[n]`, two different ones at least. For eq. 32's flow the time of SGD is the sum of the
            learning rates of its steps, over 1 - momentum, and kappa the coefficient in eq. 25.
        energies: `[n]`.

    Returns:
        `Decay`, positive for an energy that falls:

        | case                             | rate  | interval    |
        | -------------------------------- | ----- | ----------- |
        | two points                       | exact | (-inf, inf) |
        | an energy <= 0, infinite or NaN  | NaN   | (NaN, NaN)  |

    Raises:
        UserError: shapes that differ, times not finite or all the same.
    """
    times, energies = np.asarray(times, np.float64), np.asarray(energies, np.float64)
    if times.ndim != 1 or times.shape != energies.shape:
        raise UserError(f"times {times.shape} and energies {energies.shape} are not n of each")
    if times.size < 2 or not np.isfinite(times).all() or np.ptp(times) == 0:
        raise UserError("a rate of decay needs finite times, two different ones at least")
    if not ((energies > 0) & (energies < np.inf)).all():
        return Decay(np.nan, np.nan, np.nan)
    slope, low, high = _line(times, np.log(energies))
    return Decay(-slope, -high, -low)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """The least-squares slope and its 95 % interval; of two points that is the whole line."""
    from scipy import stats  # slow to import, and every training would

    line = stats.linregress(x, y)
    half = np.inf if len(x) == 2 else stats.t.ppf(0.975, len(x) - 2) * line.stderr
    return float(line.slope), float(line.slope - half), float(line.slope + half)
