"""What titles say of where training ended."""

import small_sweeps as sweeps

from plots import setting


def network(kappa, accuracy, time=0.65):
    record = sweeps.record(penalty__kappa=kappa)
    record.result.update(train_accuracy=accuracy, decay_time=time)
    return record.result


def test_the_regime_is_that_of_networks_without_the_penalty():
    said = setting.regime([network(0.0, 0.995), network(0.0, 1.0), network(100.0, 0.6)])
    assert said == "terminal phase: training accuracy 99.5% or more at κ = 0, T = 0.65"


def test_networks_with_the_penalty_alone():
    said = setting.regime([network(100.0, 0.9, 0.1), network(10.0, 1.0, 3.2)])
    assert said == "not the terminal phase: training accuracy 90.0% or more, T = 0.1 to 3.2"


def test_nothing_is_said_where_it_is_not_known():
    plain = sweeps.record().result
    assert setting.regime([plain]) == ""
    assert "\n" not in setting.outcomes([plain])
    assert setting.outcomes([network(0.0, 1.0)]).endswith("T = 0.65")
