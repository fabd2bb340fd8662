"""A worker, in process."""

import pytest
from toys import tiny

from poison_jax import config as config_lib
from poison_jax.runs import records
from poison_jax.sweeps import grid, worker
from poison_jax.sweeps.board import Board


def board(tmp_path, *axes, **changes):
    config = tiny(experiment="sweep", sweep__grids=(axes,), train__epochs=1, **changes)
    cells = [{"run": cell.run, "overrides": cell.overrides} for cell in grid.cells(config)]
    base = config_lib.single(config, "train").to_dict()
    records.write_sweep(tmp_path, records.Sweep("toy", base, cells))
    return Board(tmp_path, "toy", attempts=3)


def test_alike_cells_go_together(tmp_path):
    made = board(tmp_path, ("penalty.kappa", (0.0, 1.0, 2.0)), train__together=3)
    worker.work(made)
    results = {made.overrides(cell)["penalty.kappa"]: made.run(cell).result() for cell in made.cells}
    assert {kappa: result["together"] for kappa, result in results.items()} == {0.0: 1, 1.0: 2, 2.0: 2}


def test_of_cells_that_go_together_the_one_that_fails_is_named(tmp_path, capsys):
    made = board(tmp_path, ("penalty.kappa", (1.0, 1e30)), train__together=2)
    worker.work(made)
    states = {made.overrides(cell)["penalty.kappa"]: made.state(cell) for cell in made.cells}
    assert states == {1.0: "done", 1e30: "failed"}
    (failed,) = (cell for cell in made.cells if made.state(cell) == "failed")
    assert "not finite" in made.why(failed)
    assert failed in capsys.readouterr().err


def test_a_cell_that_another_holds_is_passed_over(tmp_path):
    made = board(tmp_path, ("seed", (0, 1)))
    held, free = made.cells
    folder = made.run(held)
    folder.path.mkdir()
    with folder.claim():
        worker.work(made)
        assert made.state(held) == "running"
    assert made.state(free) == "done"


def test_an_error_of_the_program_is_kept_with_its_traceback(tmp_path, monkeypatch, capsys):
    made = board(tmp_path, ("seed", (0, 1)))
    monkeypatch.setattr(worker.experiment, "run", lambda *_: 1 // 0)
    worker.work(made)
    assert [made.state(cell) for cell in made.cells] == ["failed"] * 2
    assert "by zero" in made.why(made.cells[0])
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_full_disk_is_no_failure_of_a_cell(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    made = board(tmp_path, ("seed", (0,)))
    monkeypatch.setattr(worker.experiment, "run", full)
    with pytest.raises(OSError, match="No space"):
        worker.work(made)
    assert made.state(made.cells[0]) == "waiting"
