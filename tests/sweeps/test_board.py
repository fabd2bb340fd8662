"""What cells are done, running, failed or waiting."""

import os

import pytest

from poison_jax.errors import UserError
from poison_jax.runs import files, records
from poison_jax.sweeps.board import Board

CELLS = [{"run": f"run-{i}", "overrides": {"seed": i}} for i in range(3)]


@pytest.fixture
def board(tmp_path):
    records.write_sweep(tmp_path, records.Sweep("toy", {"seed": 0}, CELLS))
    for cell in CELLS:
        (tmp_path / cell["run"]).mkdir()
    return Board(tmp_path, "toy", attempts=2)


def states(board):
    one_by_one = [board.state(cell) for cell in board.cells]
    assert board.states(board.cells) == dict(zip(board.cells, one_by_one, strict=True))
    return one_by_one


def die(board, cell):
    """As a process does that is killed while it works on the cell."""
    folder = board.run(cell).path / "claims"
    folder.mkdir(exist_ok=True)
    (folder / str(len(list(folder.iterdir())) + 1)).write_text("")
    for file in folder.iterdir():
        os.utime(file, (1, 1))


def test_states(board):
    assert states(board) == ["waiting"] * 3
    board.run("run-0").finish({"asr": 0.5})
    board.fail("run-1", "it diverged")
    with board.run("run-2").claim():
        assert states(board) == ["done", "failed", "running"]
        assert board.waiting(set()) == []
    assert board.why("run-1") == "it diverged"
    assert board.waiting(set()) == ["run-2"]
    assert board.waiting({"run-2"}) == []
    board.retry("run-1")
    assert board.waiting(set()) == ["run-1"]
    assert board.waiting(set(), 9) == ["run-1", "run-2"]


def test_what_is_done_and_what_was_never_begun_are_not_looked_at_again(board, tmp_path, monkeypatch):
    board.run("run-0").finish({"asr": 0.5})
    (tmp_path / "run-1").rmdir()
    (tmp_path / "run-2").rmdir()
    board.fail("run-2", "it has no place")
    expected = {"run-0": "done", "run-1": "waiting", "run-2": "failed"}
    assert board.states(board.cells) == expected
    looked_at, run = [], board.run

    def seen(cell):
        looked_at.append(cell)
        return run(cell)

    monkeypatch.setattr(board, "run", seen)
    assert board.states(board.cells) == expected
    assert looked_at == ["run-2"]


def test_a_cell_that_kills_its_process_again_and_again_has_failed(board):
    die(board, "run-0")
    assert board.state("run-0") == "waiting"
    die(board, "run-0")
    assert board.state("run-0") == "failed"
    assert "died 2 times" in board.why("run-0")
    board.retry("run-0")
    assert board.state("run-0") == "waiting"


def test_a_sweep_is_not_changed(board, tmp_path):
    file = tmp_path / "sweeps" / "toy.json"
    before = file.read_bytes()
    records.write_sweep(tmp_path, records.Sweep("toy", {"seed": 0}, CELLS[::-1]))
    with pytest.raises(UserError, match=r"other cells: choose another sweep\.name or --workdir"):
        records.write_sweep(tmp_path, records.Sweep("toy", {"seed": 0}, CELLS[:2]))
    assert file.read_bytes() == before


def test_what_is_no_cells_identity_may_change(board, tmp_path):
    """As where the data lie, or how many are trained at once."""
    records.write_sweep(
        tmp_path, records.Sweep("toy", {"seed": 0, "data": {"dir": "/elsewhere"}}, CELLS[::-1])
    )
    kept = records.read_sweep(tmp_path, "toy")
    assert kept.config["data"] == {"dir": "/elsewhere"}
    assert kept.cells == CELLS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content | {"format": 99}, "format 99.*update poison_jax"),
        (lambda content: {"format": 1}, "does not say what its cells are"),
    ],
)
def test_a_sweeps_file_that_cannot_be_read(board, tmp_path, change, words):
    file = tmp_path / "sweeps" / "toy.json"
    files.write_json(file, change(files.read_json(file)))
    with pytest.raises(UserError, match=words):
        Board(tmp_path, "toy", attempts=2)
