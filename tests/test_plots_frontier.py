"""The frontier of accuracy and attack success, drawn from results alone."""

import numpy as np

from plots import frontier
from poison_jax.runs import store


def finished(tmp_path, theta, kappa, epsilon, seed, accuracy, asr):
    config = {
        "experiment": "train",
        "seed": seed,
        "data": {"name": "cifar10", "n_train": None},
        "model": {"depth": 20},
        "train": {"epochs": 10},
        "poison": {"fraction": theta, "trigger": "l", "mode": "stochastic"},
        "penalty": {"kappa": kappa, "epsilon": epsilon},
    }
    run = store.open_run(tmp_path, "run", config)
    run.finish({"config": config, "clean_accuracy": accuracy, "asr": asr})
    return run


def test_lines_are_means_over_seeds_by_strength(tmp_path):
    runs = [
        finished(tmp_path, 0.1, 30.0, 0.0, 0, 0.6, 0.3),
        finished(tmp_path, 0.1, 0.0, 0.0, 0, 0.8, 0.9),
        finished(tmp_path, 0.1, 0.0, 0.0, 1, 0.6, 1.0),
        finished(tmp_path, 0.1, 0.0, 0.5, 0, 0.5, 0.2),
        finished(tmp_path, 0.2, 0.0, 0.5, 0, 0.4, 0.1),
    ]
    rows = [frontier._row(run.result()) for run in runs]
    kappa, epsilon = frontier._lines(rows, "kappa"), frontier._lines(rows, "epsilon")
    assert kappa.keys() == {0.1}
    assert kappa[0.1]["strength"] == [0.0, 30.0]
    np.testing.assert_allclose(kappa[0.1]["accuracy"], [70, 60])
    np.testing.assert_allclose(kappa[0.1]["asr"], [95, 30])
    assert epsilon[0.1]["strength"] == [0.0, 0.5]
    assert epsilon[0.2]["strength"] == [0.5]
    (file,) = frontier.draw(runs, tmp_path / "frontier.png")
    assert file.read_bytes().startswith(b"\x89PNG")


def test_undefended_runs_alone_are_drawn(tmp_path):
    runs = [finished(tmp_path, 0.0, 0.0, 0.0, 0, 0.6, 0.3)]
    assert frontier.draw(runs, tmp_path / "frontier.png")
