"""A worker, in process."""

import numpy as np
import pytest
from small_stores import begin
from toys import tiny

from poison_jax.errors import RunsFailed
from poison_jax.runs import records
from poison_jax.sweeps import worker
from poison_jax.sweeps.board import Board


def board(tmp_path, *axes, **changes):
    begin(
        tmp_path,
        tiny(experiment="sweep", sweep__name="toy", sweep__grids=(axes,), train__epochs=1, **changes),
    )
    return Board(tmp_path, "toy", attempts=3)


def test_cells_of_one_run_train_it_once(tmp_path, capsys):
    """And have what each looks at."""
    made = board(tmp_path, ("spectrum.num_examples", (16, 32)))
    worker.work(made)
    assert [made.state(cell) for cell in made.cells] == ["done"] * 2
    first, second = map(made.result, made.cells)
    assert (first["hessian_examples"], second["hessian_examples"]) == (16, 32)
    assert first["eigenvalues"] != second["eigenvalues"]
    assert first["asr"] == second["asr"]
    assert capsys.readouterr().out.count("epoch   1/1") == 1
    assert len([path for path in tmp_path.iterdir() if path.name != "sweeps"]) == 1
    found = records.load(tmp_path, "toy")
    assert [record.setting("spectrum.num_examples") for record in found] == [16, 32]
    vectors = [record.arrays["top_eigenvector"] for record in found]
    assert not np.array_equal(*vectors)


def test_a_cell_that_diverges_is_one_line_and_the_others_are_done(tmp_path, capsys):
    made = board(tmp_path, ("penalty.kappa", (1e30, 0.0)))
    worker.work(made)
    states = {made.overrides(cell)["penalty.kappa"]: made.state(cell) for cell in made.cells}
    assert states == {0.0: "done", 1e30: "failed"}
    (failed,) = (cell for cell in made.cells if made.state(cell) == "failed")
    assert "not finite" in made.why(failed)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if failed in line and "failed" in line]) == 1


def test_runs_that_fail_are_one_line(tmp_path, monkeypatch, capsys):
    def failed(*_):
        raise RunsFailed("2 of 3 runs failed: why")

    made = board(tmp_path, ("seed", (0,)))
    monkeypatch.setattr(worker.experiments, "run", failed)
    worker.work(made)
    assert made.why(made.cells[0]) == "2 of 3 runs failed: why"
    assert capsys.readouterr().err.count("\n") == 1


def test_a_cell_of_another_version_is_refused(tmp_path):
    """Its run would have another name: the cell would wait for ever."""
    made = board(tmp_path, ("seed", (0,)))
    old = [cell | {"run": "run-01234567"} for cell in made.sweep.cells]
    records.write_sweep(tmp_path, made.sweep._replace(name="old", cells=old))
    other = Board(tmp_path, "old", attempts=3)
    worker.work(other)
    assert "choose another sweep.name" in other.why(other.cells[0])
    assert made.state(made.cells[0]) == "waiting"


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
    monkeypatch.setattr(worker.experiments, "run", lambda *_: 1 // 0)
    worker.work(made)
    assert [made.state(cell) for cell in made.cells] == ["failed"] * 2
    assert "by zero" in made.why(made.cells[0])
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_full_disk_is_no_failure_of_a_cell(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    made = board(tmp_path, ("seed", (0,)))
    monkeypatch.setattr(worker.experiments, "run", full)
    with pytest.raises(OSError, match="No space"):
        worker.work(made)
    assert made.state(made.cells[0]) == "waiting"
