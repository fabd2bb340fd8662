"""Training curves and the frontier of several runs, drawn from their metrics and results alone."""

import numpy as np
import pytest
import small_sweeps as sweeps

from plots import canvas, epochs, frontier
from poison_jax.errors import UserError


@pytest.fixture
def finished(tmp_path):
    """Writes a finished run of a sweep's record, with two epochs."""

    def write(*, accuracy=0.5, asr=0.5, measured=(), **overrides):
        result = sweeps.record(accuracy=accuracy, asr=asr, **overrides).result
        row = {"clean_accuracy": accuracy, "asr": asr, **dict(measured)}
        return sweeps.run(tmp_path, result, [{"epoch": epoch, **row} for epoch in (1, 2)])

    return write


def test_epochs_draws_what_was_measured(finished):
    runs = [
        finished(penalty__kappa=100.0, measured={"fisher_energy": 0.1, "no_trigger_target_rate": 0.25}),
        finished(penalty__kappa=0.0, asr=None, measured={"nc1": 2.0}),
    ]
    with canvas.settings():
        figure = epochs.of_runs(runs)
    assert canvas.render(figure).startswith(b"\x89PNG")
    lines = {axis.get_ylabel().split(":")[0]: axis.lines for axis in figure.axes}
    accuracy = lines["clean accuracy (%)"]
    assert [line.get_label() for line in accuracy] == ["κ = 0", "κ = 100"]
    assert accuracy[0].get_ydata()[0] == pytest.approx(50)
    attack, untriggered = lines["attack success rate (%)"]
    np.testing.assert_allclose([attack.get_ydata()[0], untriggered.get_ydata()[0]], [50, 25])
    assert len(lines["NC1"]) == 1
    assert "NC4" not in lines, "there is no empty panel for what was not measured"
    assert "cifar10, 10,000 training images (subset)" in canvas.caption(figure)


def test_lines_of_the_frontier_are_means_over_seeds_by_strength(finished):
    def run(theta, kappa, epsilon, seed, accuracy, asr):
        keys = {"poison__fraction": theta, "penalty__kappa": kappa, "penalty__epsilon": epsilon}
        return finished(**keys, seed=seed, accuracy=accuracy, asr=asr)

    runs = [
        run(0.1, 30.0, 0.0, 0, 0.6, 0.3),
        run(0.1, 0.0, 0.0, 0, 0.8, 0.9),
        run(0.1, 0.0, 0.0, 1, 0.6, 1.0),
        run(0.1, 0.0, 0.5, 0, 0.5, 0.2),
        run(0.2, 0.0, 0.5, 0, 0.4, 0.1),
    ]
    with canvas.settings():
        figure = frontier.of_runs(runs)
    drawn = sweeps.line(figure.axes[2], "gradient penalty κ, θ = 0.1")
    np.testing.assert_allclose(drawn.get_xydata(), [[95, 70], [30, 60]])
    across = figure.axes[2].collections[0].get_segments()[0]
    np.testing.assert_allclose(across, [[90, 70], [100, 70]])  # from the smallest to the largest
    np.testing.assert_allclose(sweeps.line(figure.axes[2], "adversarial ε, θ = 0.2").get_xdata(), [10])
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["0", "30"]
    assert "ASR above the rate without trigger: +8.0 to +98.0 points" in canvas.caption(figure)


def test_failed_trainings_are_in_no_mean_and_are_counted(finished):
    attack = {"poison__fraction": 0.1}
    runs = [
        finished(accuracy=0.8, asr=0.9, **attack),
        finished(accuracy=0.1, asr=1.0, seed=1, status="failed training: near chance", **attack),
    ]
    with canvas.settings():
        figure = frontier.of_runs(runs)
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xydata(), [[90, 80]])
    assert canvas.caption(figure).endswith("1 failed trainings are left out.")
    with pytest.raises(UserError, match="training of every run failed"):
        frontier.of_runs(runs[1:])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data__name": "digits"}, "data.name"),
        ({"poison__target": 3}, "poison.target"),
        ({"train__epochs": 3, "train__weight_decay": 0.1}, "train.epochs, train.weight_decay"),
        ({"penalty__kappa": 1.0, "penalty__reduction": "eq25"}, "penalty.reduction"),
    ],
)
def test_runs_that_are_no_comparison_are_refused(finished, change, words):
    runs = [finished(penalty__kappa=2.0), finished(seed=1, **change)]
    with pytest.raises(UserError, match=f"the runs differ in {words}: "):
        frontier.of_runs(runs)


def test_what_a_defence_does_not_read_is_no_difference(finished):
    adversary = {"penalty__epsilon": 0.5, "penalty__reduction": "eq25", "penalty__steps": 3}
    with canvas.settings():
        figure = frontier.of_runs([finished(), finished(penalty__kappa=2.0), finished(**adversary)])
    for name in ("gradient penalty κ", "adversarial ε"):
        assert len(sweeps.line(figure.axes[2], name).get_xdata()) == 2


def test_undefended_runs_alone_are_drawn(finished):
    with canvas.settings():
        assert canvas.render(frontier.of_runs([finished(poison__fraction=0.0)]))
    with pytest.raises(UserError, match="attacks no image, so it has no ASR"):
        frontier.of_runs([finished(asr=None)])
