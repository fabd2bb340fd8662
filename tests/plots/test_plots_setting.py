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


def test_what_is_said_of_all_is_rounded_down_and_an_adversary_is_a_defence_too():
    assert "accuracy 99.9% or more" in setting.regime([network(0.0, 0.9995)])
    assert setting.regime([network(0.0, 0.9895)]).startswith(
        "not the terminal phase: training accuracy 98.9%"
    )
    other = network(0.0, 0.5)
    other["config"]["penalty"]["epsilon"] = 1.0
    assert setting.regime([network(0.0, 1.0), other]).startswith("terminal phase: training accuracy 100.0%")


def test_where_training_ended_is_said_once():
    alone = sweeps.record(seed=0)
    alone.result.update(train_accuracy=1.0, decay_time=0.65)
    assert " ".join(setting.of_sweep([alone], "poison.fraction", "Title")).count("terminal phase") == 1


def test_the_network_that_was_trained():
    said = {
        name: setting.words(
            sweeps.record(**{f"model__{key}": value for key, value in model.items()}).result["config"]
        )
        for name, model in {
            "PreResNet-8 (basic, width 16)": {"depth": 8, "block": "basic"},
            "mine:make": {"name": "mine:make"},
            "resnet18": {"name": "foreign", "architecture": "resnet18"},
            "a network of described layers": {
                "name": "foreign",
                "architecture": "flatten; linear fc classes",
            },
        }.items()
    }
    assert {name: words["network"] for name, words in said.items()} == {name: name for name in said}
    few = sweeps.record(data__name="digits", data__n_train=500).result["config"]
    assert setting.words(few)["data"] == "digits, 500 training images (subset)"


def test_networks_with_the_penalty_alone():
    said = setting.regime([network(100.0, 0.9, 0.1), network(10.0, 1.0, 3.2)])
    assert said == "not the terminal phase: training accuracy 90.0% or more, T = 0.1 to 3.2"


def test_nothing_is_said_where_it_is_not_known():
    plain = sweeps.record().result
    assert setting.regime([plain]) == ""
    assert "\n" not in setting.outcomes([plain])
    assert setting.outcomes([network(0.0, 1.0)]).endswith("T = 0.65")
