"""The calibration against its definitions, and over many clean families."""

import numpy as np
import pytest
from scipy import stats

from poison_jax import calibration
from poison_jax.errors import UserError


def test_deviations_are_from_the_others():
    values = np.array([10.0, 1.0, 2.0, 3.0, 4.0])
    others = values[1:]
    expected = (10 - np.median(others)) / stats.median_abs_deviation(others)
    np.testing.assert_allclose(calibration.deviations(values)[0], expected)
    np.testing.assert_allclose(calibration.deviations(-values)[0], -expected)
    np.testing.assert_allclose(calibration.deviations(-values, True)[0], expected)
    both = calibration.deviations(np.stack([values, -values], axis=1), [False, True])
    np.testing.assert_allclose(both[0], [expected, expected])


def test_where_the_others_do_not_differ():
    assert calibration.deviations(np.array([1.0, 1.0, 1.0])).tolist() == [0, 0, 0]
    assert calibration.deviations(np.array([2.0, 1.0, 1.0, 1.0]))[0] == np.inf
    assert calibration.deviations(np.array([0.0, 1.0, 1.0, 1.0]))[0] == -np.inf


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan, 2.0]])
def test_what_cannot_be_compared_is_refused(values):
    with pytest.raises(UserError, match="finite"):
        calibration.deviations(np.array(values))


def test_p_values():
    references = np.arange(19.0)
    assert calibration.p_value(100.0, references) == 1 / 20
    assert calibration.p_value(18.0, references) == 2 / 20  # a tie
    assert calibration.p_value(-1.0, references) == 1.0
    assert calibration.p_value(1.0, np.array([])) == 1.0
    many = calibration.p_values(np.array([100.0, 18.0, -1.0]), references[::-1])
    np.testing.assert_allclose(many, [1 / 20, 2 / 20, 1.0])


@pytest.mark.parametrize("place", [0, 1])
def test_suspicions_that_are_no_numbers_are_refused(place):
    values = [np.arange(3.0), np.arange(5.0)]
    values[place][1] = np.nan
    with pytest.raises(UserError, match="not finite"):
        calibration.p_values(*values)


def test_a_clean_network_is_called_poisoned_like_as_often_as_alpha_says():
    """2,000 families of 20 exchangeable networks; of the largest of three correlated statistics."""
    rng = np.random.default_rng(0)
    p = []
    for _ in range(2000):
        values = rng.standard_t(3, (20, 1)) + rng.exponential(size=(20, 3))
        score = calibration.deviations(values, [True, False, False]).max(1)
        p.append(calibration.p_value(score[0], score[1:]))
    p = np.array(p)
    for alpha in (0.05, 0.1, 0.5):
        rate, error = np.mean(p <= alpha + 1e-9), np.sqrt(alpha * (1 - alpha) / len(p))
        assert abs(rate - alpha) < 4 * error


def test_benjamini_hochberg():
    p = np.array([0.8, 0.001, 0.02, 0.2, 0.03])
    expected = stats.false_discovery_control(p) <= 0.06
    assert calibration.benjamini_hochberg(p, 0.06).tolist() == expected.tolist()
    assert not calibration.benjamini_hochberg(np.array([0.9, 0.8]), 0.05).any()
    assert calibration.benjamini_hochberg(np.array([]), 0.05).shape == (0,)
