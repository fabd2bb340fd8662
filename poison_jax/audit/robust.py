"""Deviations from a median, in median absolute deviations (the anomaly index of Neural Cleanse and SCAn)."""

import numpy as np

CONSISTENCY = 1.4826  # MAD times this estimates the standard deviation of normal numbers


def anomaly_index(values: np.ndarray) -> np.ndarray:
    """(x - median x) / (1.4826 median |x - median x|), signed; NaN for NaN, which count nowhere else.

    A median deviation of zero, as where half of the numbers are equal, counts as one rounding error of the
    median: the result is finite, and zero for numbers that are all equal.

    Args:
        values: `[n]`, one at least that is no NaN.

    >>> anomaly_index(np.array([1.0, 9.0, 10.0, 11.0, 12.0])).round(3).tolist()
    [-6.07, -0.674, 0.0, 0.674, 1.349]
    """
    values = np.asarray(values, float)
    median = np.nanmedian(values)
    spread = CONSISTENCY * np.nanmedian(np.abs(values - median))
    least = max(np.finfo(float).eps * abs(median), np.finfo(float).eps)
    return (values - median) / max(spread, least)
