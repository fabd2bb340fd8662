"""Deviations in median absolute deviations, against SciPy's."""

import numpy as np
import pytest
from scipy.stats import median_abs_deviation

from poison_jax.audit.robust import anomaly_index


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_deviations(scale):
    values = scale * np.random.default_rng(0).gamma(3, size=11)
    expected = (values - np.median(values)) / median_abs_deviation(values, scale=1 / 1.4826)
    np.testing.assert_allclose(anomaly_index(values), expected)


def test_ties_and_missing_numbers():
    np.testing.assert_array_equal(anomaly_index(np.ones(5)), 0)
    np.testing.assert_array_equal(anomaly_index(np.zeros(5)), 0)
    actual = anomaly_index(np.array([1, 2, 2, 2, 2]))
    assert -np.inf < actual[0] < -1e6
    np.testing.assert_array_equal(actual[1:], 0)
    values = np.array([1.0, 3.0, np.nan, 4.0])
    actual = anomaly_index(values)
    assert np.isnan(actual[2])
    np.testing.assert_array_equal(np.delete(actual, 2), anomaly_index(np.delete(values, 2)))
