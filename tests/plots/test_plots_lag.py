"""The detectability lag against curves whose crossings are known in closed form."""

import numpy as np
import pytest
import small_sweeps as sweeps
from scipy import stats

from plots import lag
from plots.lag import LARGEST, V1, Onset

THETAS = (0.001, 0.003, 0.01, 0.05, 0.2)


def test_null_of_random_directions():
    """Centred, they lie in d - 1 dimensions: in three a coordinate is uniform, in many nearly normal."""
    assert lag.random_null(4) == pytest.approx(0.999**2)
    assert lag.random_null(4, 5) == pytest.approx((1 - 1e-3 / 5) ** 2)
    assert lag.random_null(3072) == pytest.approx(stats.chi2(1).isf(1e-3) / 3072, rel=0.01)
    directions, trigger = np.random.default_rng(0).standard_normal((200_000, 7)), np.eye(7)[0] - 1 / 7
    directions -= directions.mean(1, keepdims=True)
    cosines = directions @ trigger / np.linalg.norm(directions, axis=1) / np.linalg.norm(trigger)
    assert np.mean(cosines**2 > lag.random_null(7)) == pytest.approx(1e-3, abs=3e-4)


@pytest.mark.parametrize(
    ("thetas", "values", "expected"),
    [
        ([0.001, 0.1], [0, 100], Onset(0.01)),  # half way in the logarithm
        ([0.001, 0.1], [0, 200], Onset(0.001 * 100**0.25)),
        ([0.01, 0.02, 0.04], [60, 40, 90], Onset(0.01, at_most=True)),
        ([0.0, 0.01, 0.02], [10, 60, 90], Onset(0.01, at_most=True)),  # somewhere above 0
        ([0.0, 0.01], [60, 90], Onset(0.0)),
        ([0.001, 0.1, 1.0], [0, 100, 0], Onset(0.01)),  # the first time
        ([0.001, 0.02, 0.1], [0, np.nan, 100], Onset(0.01)),  # nothing is known in between
    ],
)
def test_onset(thetas, values, expected):
    found = lag.onset(np.array(thetas), np.array(values, float), 50)
    assert found.theta == pytest.approx(expected.theta)
    assert found.at_most == expected.at_most


@pytest.mark.parametrize("values", [[10, 50], [np.nan, np.nan]])
def test_not_reached(values):
    found = lag.onset(np.array([0.1, 0.2]), np.array(values, float), 50)
    assert np.isnan(found.theta)
    assert str(found) == "not reached"


def logarithmic(rise=0.1, clean=0.01):
    """ASR 30 % (half of it at kappa = 100) and overlap^2 `rise` a decade of theta above 10^-4.

    Of clean networks the overlap^2 is `clean` times 1, 2, 3 for the three seeds.
    """

    def asr(theta, kappa, seed):
        return (np.log10(theta / 1e-4) * 0.3 / (1 + kappa / 100) if theta else 0.1) + 0.01 * (seed - 1)

    def overlap(theta, kappa, seed):
        return rise * np.log10(theta / 1e-4) if theta else clean * (seed + 1)

    return sweeps.grid((0.0, *THETAS) if clean else THETAS, (0.0, 100.0), (0, 1, 2), asr, overlap)


def test_lag_of_a_sweep():
    cells = logarithmic()
    null = lag.nulls(cells, V1)
    assert null.random == lag.random_null(192)
    assert null.clean == pytest.approx(0.03)  # of seed 2
    assert (null.dimension, null.networks) == (192, 6)
    zero, hundred = lag.lags(cells, V1, null)
    assert (zero.label, hundred.label) == ("κ = 0", "κ = 100")
    assert zero.attack.theta == pytest.approx(1e-4 * 10 ** (0.5 / 0.3))
    assert np.isnan(hundred.attack.theta)
    # Both nulls are left below the smallest theta, where the overlap is 0.1 already.
    assert zero.random == Onset(0.001, at_most=True)
    assert zero.clean == Onset(0.001, at_most=True)
    # 0.1 is reached at the smallest theta, exceeded just above it.
    assert zero.found.theta == pytest.approx(0.001, rel=0.01)
    # In few dimensions a random direction exceeds 0.1: what it reaches shows nothing.
    (few, _) = lag.lags(cells, V1, null._replace(random=0.25))
    assert few.found == few.random
    assert few.found.theta > 0.02


def test_lag_between_cells():
    cells = logarithmic(0.001, 0.001)
    null = lag.nulls(cells, V1)
    assert null.clean == pytest.approx(0.003)
    (zero, _) = lag.lags(cells, V1, null._replace(random=0.0025))
    assert zero.random.theta == pytest.approx(1e-4 * 10**2.5)
    assert zero.clean.theta == pytest.approx(0.1)
    ratio = 10 ** (2.5 - 0.5 / 0.3)
    assert lag.rows([zero]) == [["κ = 0", "4.64", f"31.6 ({ratio:.2g}×)", "100 (22×)", "not reached"]]


def test_ratio_says_what_is_known():
    assert lag.ratio(Onset(0.01), Onset(0.03)) == "3×"
    assert lag.ratio(Onset(0.01, at_most=True), Onset(0.03)) == "≥ 3×"
    for attack, seen in (
        (Onset(0.01), Onset(0.03, at_most=True)),
        (Onset(0.01), Onset(np.nan)),
        (Onset(np.nan), Onset(0.03)),
        (Onset(0.01), Onset(0.0)),
    ):
        assert lag.ratio(attack, seen) == ""


def test_without_clean_networks():
    cells = logarithmic(clean=0)
    null = lag.nulls(cells, V1)
    assert np.isnan(null.clean)
    assert lag.lags(cells, V1, null)[0].clean is None
    report = lag.report(cells, "*heading*")
    assert report.startswith("**\\*heading\\***\n\n| θ (10⁻³) at which | ASR > 50 % |")
    assert "bands: smallest to largest." in report
    assert "| κ = 0 | 4.64 |" in report
    assert "no network was trained at θ = 0" in report


def test_failed_networks_are_neither_attacks_nor_clean():
    failed = {"status": "failed training: near chance", "asr": 1.0, "overlap": (1.0, 0, 0)}
    cells = [sweeps.record(poison__fraction=theta, seed=9, **failed) for theta in (0.0, 0.001)]
    cells = [cell._replace(overrides=cell.overrides | {"penalty.kappa": 0.0}) for cell in cells]
    assert lag.nulls(logarithmic() + cells, V1) == lag.nulls(logarithmic(), V1)
    null = lag.nulls(logarithmic(), V1)
    assert lag.lags(logarithmic() + cells, V1, null) == lag.lags(logarithmic(), V1, null)


def test_largest_overlap_has_the_null_of_the_best_of_k():
    cells = [sweeps.record(poison__fraction=theta, overlap=(0.1, -0.7, 0.3)) for theta in (0.0, 0.1)]
    assert LARGEST.of(cells[0].result) == pytest.approx(0.49)
    assert lag.nulls(cells, LARGEST).random == lag.random_null(192, 3)
    assert lag.nulls(cells, LARGEST).clean == pytest.approx(0.49)
    assert V1.of(cells[0].result) == pytest.approx(0.01)
