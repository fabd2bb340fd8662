"""The law of collapse from records whose truth is known."""

import numpy as np
import pytest
import small_sweeps as sweeps

from plots import collapse
from poison_jax.errors import UserError


def network(epochs, decay, seed, time, **others):
    keys = {"train__epochs": epochs, "train__weight_decay": decay, "seed": seed}
    record = sweeps.record(**keys, poison__fraction=0.1, features=True, **others)
    record.result.update(decay_time=time, near_clone_r_over_l=0.1 / time, nc1=0.2 / time)
    return record


def test_points_are_means_over_the_seeds():
    cells = [network(10, d, seed, 100 * d) for d in (1e-3, 1e-2) for seed in (0, 1)]
    cells += [network(20, 5e-3, 0, 0.1)]
    figure, _ = sweeps.draw("collapse", cells)
    axis = sweeps.panel(figure, "r/ℓ to the nearest poison")
    first, second = (line for line in axis.lines if line.get_label().endswith("epochs"))
    np.testing.assert_allclose(first.get_xydata(), [[0.1, 1.0], [1.0, 0.1]])
    np.testing.assert_allclose(second.get_xydata(), [[0.1, 1.0]])
    ratio = sweeps.panel(figure, "d*/d (median)").lines[-1].get_ydata()
    np.testing.assert_allclose(ratio, 7.5)  # the classes' 7.1 to 7.9, the target's NaN left out


def test_what_was_not_measured_is_not_drawn():
    plain = [network(10, 1e-3, 0, 0.1)]
    plain[0].result["near_clone_r_over_l"] = None
    figure, _ = sweeps.draw("collapse", plain)
    assert "r/ℓ to the nearest poison" not in [axis.get_ylabel() for axis in figure.axes]
    assert np.isnan(collapse.median_ratio(sweeps.record(), "std_ratio"))


def test_the_power_laws():
    """r/l ~ T^-1 exactly; NC1 ~ T^-0.5 epochs^-0.25 with noise, within its interval."""
    rng, cells = np.random.default_rng(0), []
    for epochs in (10, 20, 40):
        for time in (0.1, 0.3, 1.0):
            cells.append(network(epochs, time / epochs, 0, time))
            noise = np.exp(0.05 * rng.standard_normal())
            cells[-1].result["nc1"] = noise * time**-0.5 * epochs**-0.25
    rows = {row.split(" | ")[0]: row.split(" | ")[1:] for row in collapse.law(cells, "Law").splitlines()}
    assert rows["| r/ℓ to the nearest poison"][0] == "−1.00 [−1.00, −1.00]"
    assert rows["| r/ℓ to the nearest poison"][1].replace("−", "+") == "+0.00 [+0.00, +0.00]"
    for cell, truth in zip(rows["| NC1 of training images"], (-0.5, -0.25), strict=False):
        exponent, low, high = (float(x.strip("[],")) for x in cell.replace("−", "-").split())
        assert low < truth < high
        assert low < exponent < high < low + 0.4
    alone, both, count = (cell.strip(" |") for cell in rows["| NC1 of training images"][2:])
    assert 0.5 < float(alone) < float(both) <= 1
    assert count == "9"
    one_length = [cell for cell in cells if cell.setting("train.epochs") == 10]
    assert "| r/ℓ" not in collapse.law(one_length, "Law"), "of one number of epochs nothing is fitted"


def test_networks_without_a_decay_time_are_refused():
    with pytest.raises(UserError, match="decay time"):
        sweeps.draw("collapse", [sweeps.record()])
