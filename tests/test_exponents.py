"""Exponents of power laws and decays against statsmodels and closed forms."""

import numpy as np
import pytest
import statsmodels.api as sm

from poison_jax.errors import UserError
from poison_jax.exponents import Slope, decay, log_slope


@pytest.mark.parametrize("count", [3, 4, 40])
def test_slope_and_interval_against_statsmodels(count):
    rng = np.random.default_rng(count)
    efficacy = np.exp(rng.normal(size=count))
    spike = np.exp(2 * np.log(efficacy) + rng.normal(size=count))
    model = sm.OLS(np.log(spike), sm.add_constant(np.log(efficacy))).fit()
    expected = (model.params[1], *model.conf_int(0.05)[1], count)
    np.testing.assert_allclose(log_slope(efficacy, spike), expected, rtol=1e-10)


def test_slope_leaves_out_what_has_no_logarithm():
    efficacy = np.array([1, 2, 3, 5, -1, 0, 4, np.nan, np.inf, 6])
    spike = np.array([1, 5, 8, 20, 1, 1, 0, 1, 1, np.inf])
    assert log_slope(efficacy, spike) == log_slope(efficacy[:4], spike[:4])
    assert log_slope(efficacy, spike).count == 4


@pytest.mark.parametrize(
    ("efficacy", "spike", "count"), [([], [], 0), ([1, 2], [1, 4], 2), ([3, 3, 3], [1, 2, 3], 3)]
)
def test_no_slope(efficacy, spike, count):
    np.testing.assert_equal(log_slope(efficacy, spike), Slope(np.nan, np.nan, np.nan, count))


def test_slope_needs_pairs():
    with pytest.raises(UserError, match="not m numbers each"):
        log_slope([1.0, 2.0], [1.0])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_decay_against_statsmodels(seed):
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 4, 9))
    energies = 2.5 * np.exp(-0.7 * times + 0.1 * rng.standard_normal(9))
    fit = sm.OLS(np.log(energies), sm.add_constant(times)).fit()
    low, high = -fit.conf_int(0.05)[1][::-1]
    np.testing.assert_allclose(decay(times, energies), (-fit.params[1], low, high), rtol=1e-10)


def test_decay_of_an_exponential_is_exact():
    times = np.linspace(0, 2, 30)
    np.testing.assert_allclose(decay(times, 5 * np.exp(-1.3 * times)), 1.3, rtol=1e-9)
    np.testing.assert_allclose(decay(times, np.exp(0.4 * times)), -0.4, rtol=1e-9)
    np.testing.assert_allclose(decay(times, np.full(30, 3.0)), 0, atol=1e-12)


def test_decay_of_two_points_has_no_interval():
    rate, low, high = decay([1, 3], [np.e**4, 1])
    np.testing.assert_allclose(rate, 2)
    assert (low, high) == (-np.inf, np.inf)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_no_rate_where_an_energy_has_no_logarithm(bad):
    assert np.isnan(decay([0, 1, 2, 3], [1, 0.5, bad, 0.1])).all()


@pytest.mark.parametrize(
    ("times", "energies", "says"),
    [
        ([0, 1], [1, 2, 3], "not n of each"),
        ([1, 1, 1], [1, 2, 3], "two different"),
        ([1], [1], "two different"),
        ([], [], "two different"),
        ([0, np.nan], [1, 2], "finite times"),
    ],
)
def test_no_rate_of_decay(times, energies, says):
    with pytest.raises(UserError, match=says):
        decay(times, energies)
