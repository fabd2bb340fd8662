"""Training curves of several runs, drawn from their metrics alone."""

import matplotlib.pyplot as plt
import pytest

from plots import epochs
from poison_jax.runs import store


def finished(tmp_path, kappa, **measured):
    config = {
        "experiment": "train",
        "data": {"name": "cifar10", "n_train": 10_000},
        "model": {"depth": 20},
        "poison": {"fraction": 0.1, "trigger": "l", "mode": "stochastic"},
        "penalty": {"kappa": kappa},
    }
    run = store.open_run(tmp_path, "run", config)
    for epoch in (1, 2):
        run.append_metrics({"epoch": epoch, "clean_accuracy": 0.5, "asr": None, **measured})
    run.finish({"config": config})
    return run


def test_draws_what_was_measured(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    runs = [finished(tmp_path, 100.0, fisher_energy=0.1), finished(tmp_path, 0.0, nc1=2.0)]
    (file,) = epochs.draw(runs, tmp_path / "epochs.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    lines = {axis.get_title().split(":")[0]: axis.lines for axis in figures[0].axes}
    assert [line.get_label() for line in lines["clean accuracy (%)"]] == [
        "θ = 0.1, κ = 0",
        "θ = 0.1, κ = 100",
    ]
    assert lines["clean accuracy (%)"][0].get_ydata()[0] == pytest.approx(50)
    assert len(lines["NC1"]) == 1
    assert not lines["attack success rate (%)"]
    monkeypatch.undo()
    plt.close(figures[0])
