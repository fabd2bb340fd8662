"""What runs will cost."""

import pytest
from small_stores import begin, finish
from toys import tiny

from poison_jax import config as config_lib
from poison_jax import records
from poison_jax.errors import UserError
from poison_jax.experiments.setup import Setup
from poison_jax.runs import provenance
from poison_jax.sweeps import cost, flops, grid

FORWARD, FIRST = flops.preresnet_forward(8, 10, (8, 8, 1), width=4)  # of `tiny`: 128 digits, 2 epochs


def sweep(*axes):
    return tiny(experiment="sweep", sweep__grids=(axes,))


@pytest.mark.parametrize(
    ("changes", "image"),
    [
        ({}, 3 * FORWARD - FIRST),
        ({"penalty__kappa": 1.0}, 6 * FORWARD - FIRST),
        ({"poison__hide": 1.0}, 9 * FORWARD - 2 * FIRST),
        ({"penalty__epsilon": 1.0, "penalty__steps": 3}, 3 * FORWARD - FIRST + 3 * 2 * FORWARD),
    ],
)
def test_flops_of_a_run(changes, image):
    found = cost.of_run(Setup(tiny(**changes)))
    assert found.training == 2 * 128 * image
    assert found.evaluation == 2 * 2 * 64 * FORWARD
    assert found.hessian == 40 * flops.hessian_products(FORWARD, 6 + 3 + 1)
    assert found.total == found.training + found.evaluation + found.hessian


def test_hours_are_those_of_finished_cells(tmp_path, capsys):
    first, second = cells = grid.cells(sweep(("seed", (0, 1))))
    finish(tmp_path, first, wall_seconds=5000.0, device=provenance.device())
    cost.show(cells, str(tmp_path))
    out = capsys.readouterr().out
    assert "to do: 1 cells" in out
    assert f"{5000 / 3600:.3g} hours" in out
    assert "median of 1 finished cells" in out
    finish(tmp_path, second, wall_seconds=5000.0, device="another")
    cost.show(cells, str(tmp_path))
    assert "to do: 0 cells, 0 TFLOP" in capsys.readouterr().out


def test_a_network_is_trained_once_for_all_that_look_at_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cost, "_forward_rate", lambda setup: 1e9)
    examples = (20, 40)
    cost.show(grid.cells(sweep(("spectrum.num_examples", examples))), str(tmp_path))
    first, second = (cost.of_run(Setup(tiny(spectrum__num_examples=count))) for count in examples)
    assert f"to do: 2 cells, {(first.total + second.hessian) / 1e12:.4g} TFLOP" in capsys.readouterr().out


def test_what_is_done_elsewhere_is_not_to_be_done(tmp_path, capsys):
    """And says what a cell takes, if it was done on such a device."""
    axis = ("seed", (0, 1))
    first, _ = begin(tmp_path / "there", sweep(axis))
    finish(tmp_path / "there", first)
    records.main(["--runs", str(tmp_path / "there"), "--out", str(tmp_path / "results")])
    cost.show(grid.cells(sweep(axis)), str(tmp_path / "here"), str(tmp_path / "results"))
    out = capsys.readouterr().out
    assert "to do: 1 cells" in out
    assert "measured on the network" in out  # there is no such device as `none`
    assert not (tmp_path / "here").exists()


def test_cells_that_cost_the_same_are_set_up_once(tmp_path, capsys, monkeypatch):
    made = []
    monkeypatch.setattr(cost, "Setup", lambda config: made.append(config) or Setup(config))
    monkeypatch.setattr(cost, "_forward_rate", lambda setup: 1e9)
    axes = ("seed", tuple(range(80))), ("penalty.kappa", (0.0, 1.0, 2.0))
    cost.show(grid.cells(sweep(*axes)), str(tmp_path))
    assert [config.penalty.kappa > 0 for config in made] == [False, True, False]  # the last for its rate
    plain, penalised = (cost.of_run(Setup(tiny(penalty__kappa=kappa))).total for kappa in (0.0, 1.0))
    out = capsys.readouterr().out
    assert f"to do: 240 cells, {80 * (plain + 2 * penalised) / 1e12:.4g} TFLOP" in out
    assert "and 40 more" in out


def test_only_training_is_counted(tmp_path):
    config = config_lib.default()
    config.experiment, config.sweep.of = "sweep", "mnist_linear"
    with pytest.raises(UserError, match="--dry_run counts what training costs"):
        cost.show(grid.cells(config), str(tmp_path))
