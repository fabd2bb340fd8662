"""Points of several classes, and how close numbers are."""

import numpy as np


def close(actual, expected, tolerance=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def clouds(*counts, dimension=5, seed=0):
    """Points of classes with so many each, in random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return rng.standard_normal((len(counts), dimension))[labels] * 2 + rng.standard_normal(
        (len(labels), dimension)
    ), labels
