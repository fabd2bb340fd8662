"""Lines over a key of the config, and the words that name what was run."""

import numpy as np
import pytest
import small_sweeps as sweeps

from plots import curves, setting


def cells(seeds=(0, 1)):
    def asr(theta, kappa, seed):
        return theta + 0.1 * seed

    return sweeps.grid((0.0, 0.002, 0.01, 0.1), (1000.0, 0.0), seeds, asr, lambda *cell: 0.1)


def test_a_curve_is_mean_and_range_of_what_trained():
    some = cells(seeds=(0, 1, 2))
    (zero, _) = curves.series(some, "poison.fraction")
    failed = sweeps.record(poison__fraction=0.01, seed=3, asr=1.0, status="failed training: near chance")
    unknown = sweeps.record(poison__fraction=0.01, seed=4, asr=None)
    alone = sweeps.record(poison__fraction=0.3, asr=0.9, status="failed training: near chance")
    c = curves.curve([*zero.records, failed, unknown, alone], "poison.fraction", curves.percent("asr"))
    np.testing.assert_allclose(c.x, [0, 0.002, 0.01, 0.1, 0.3])
    np.testing.assert_allclose(c.low, [0, 0.2, 1, 10, np.nan])
    np.testing.assert_allclose(c.mean, [10, 10.2, 11, 20, np.nan])
    np.testing.assert_allclose(c.high, [20, 20.2, 21, 30, np.nan])
    np.testing.assert_allclose(c.failed, [[0.01, 100], [0.3, 90]])


def test_series_are_by_what_differs_beside_the_seed():
    some = cells()
    lines = curves.series(some, "poison.fraction")
    assert [line.label for line in lines] == ["κ = 0", "κ = 1000"]
    assert [len(line.records) for line in lines] == [8, 8]
    assert [line.label for line in curves.series(some, "penalty.kappa")][:2] == ["θ = 0", "θ = 0.002"]
    both = [
        sweeps.record(penalty__kappa=k, data__augment=a) for k in (1.0, 0.0) for a in ("none", "crop_flip")
    ]
    labels = [line.label for line in curves.series(both, "poison.fraction")]
    assert labels[:2] == ["κ = 0, augment crop_flip", "κ = 0, augment none"]
    assert [line.label for line in curves.series(both[:1], "poison.fraction")] == ["κ = 1"]


def test_seeds_are_counted():
    assert setting.of_sweep(cells(seeds=(3,)), "poison.fraction", "h")[-1].startswith("One seed")
    uneven = [*cells(), sweeps.record(poison__fraction=0.1, penalty__kappa=0.0, seed=7)]
    assert "means over 2 to 3 seeds" in setting.of_sweep(uneven, "poison.fraction", "h")[-1]


def test_a_subset_is_called_one():
    def data(**changes):
        return setting.of_result(sweeps.record(**changes).result)["data"]

    assert data(data__name="cifar100", data__n_train=5000) == "cifar100, 5,000 training images (subset)"
    assert data(data__n_train=50_000) == "cifar10, 50,000 training images"
    assert data(data__n_train=None) == "cifar10, all training images"


def test_a_moving_trigger_is_said_to_move():
    moved = sweeps.record(data__augment="crop_flip", poison__when="before_augment")
    words = setting.of_result(moved.result)
    assert words["augment"] == "augmentation crop_flip (pad4, the trigger moves with it)"


@pytest.mark.parametrize(
    ("asr", "without", "said"),
    [
        (0.958, 0.009, "trigger adds +94.9 points (ASR 95.8%, 0.9% without it)"),
        (0.84, 0.74, "collapsed: trigger adds +10.0 points (ASR 84.0%, 74.0% without it)"),
        (0.1, 0.12, "trigger adds −2.0 points (ASR 10.0%, 12.0% without it)"),
        (None, None, "ASR –"),
    ],
)
def test_an_attack_is_what_the_trigger_adds(asr, without, said):
    assert setting.outcome(sweeps.record(asr=asr, untriggered=without).result) == said


def test_attacks_of_several_networks():
    def outcomes(*rates):
        return setting.outcomes([sweeps.record(asr=a, untriggered=b).result for a, b in rates])

    assert outcomes((0.5, 0.1), (0.9, 0.1)) == "ASR above the rate without trigger: +40.0 to +80.0 points"
    assert outcomes((0.9, 0.8)).endswith(": +10.0 points; 1 of 1 networks collapsed")
    assert outcomes((None, None)) == "no network that can be attacked"
