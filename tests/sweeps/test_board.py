"""What cells are done, running, failed or waiting."""

import os

import numpy as np
import pytest
from small_stores import board_of

from poison_jax import verify
from poison_jax.runs import records
from poison_jax.sweeps.board import Board

CELLS = [{"run": f"run-{i}", "overrides": {"seed": i}} for i in range(3)]
VIEWS = [{"run": "run-0", "view": f"v{i}", "overrides": {"spectrum.k": i}} for i in range(2)]


@pytest.fixture
def board(tmp_path):
    return board_of(tmp_path, CELLS, attempts=2)


@pytest.fixture
def views(tmp_path):
    """A board whose cells look at one run."""
    return board_of(tmp_path, VIEWS, attempts=2)


def record(**result):
    return records.Record("elsewhere-1", {"seed": 0}, result, dict)


def states(board):
    one_by_one = [board.state(cell) for cell in board.cells]
    assert board.states() == dict(zip(board.cells, one_by_one, strict=True))
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
    assert board.why("run-1") == "it diverged"
    board.retry("run-1")
    assert states(board) == ["done", "waiting", "waiting"]


def test_a_cell_is_a_view_of_its_run(views):
    first, second = views.cells
    assert (first, second) == ("run-0@v0", "run-0@v1")
    views.run(first).finish({"asr": 0.5}, "v0")
    assert states(views) == ["done", "waiting"]
    views.fail(second, "too few images")
    assert states(views) == ["done", "failed"]
    assert views.why(second) == "too few images"
    assert (views.result(first), views.result(second)) == ({"asr": 0.5}, None)
    assert views.overrides(second) == {"spectrum.k": 1}


def test_a_stored_cell_is_done(views, capsys):
    """Whatever else is known of it; but what the store has itself is not replaced."""
    first, second = views.cells
    views.run(first).finish({"asr": 0.5}, "v0")
    views.fail(second, "too few images")
    for cell in views.cells:
        views.store(cell, record(asr=0.25))
    assert states(views) == states(Board(views.workdir, "toy")) == ["done", "done"]
    assert [views.result(cell)["asr"] for cell in views.cells] == [0.5, 0.25]


def test_a_stored_cell_that_was_never_begun_is_done(board, tmp_path):
    (tmp_path / "run-1").rmdir()
    board.store("run-1", record(asr=0.25))
    assert states(board) == ["waiting", "done", "waiting"]


def test_what_is_damaged_waits_again(views, capsys):
    first, second = views.cells
    views.run(first).finish({"asr": 0.5}, "v0")
    views.store(second, record(asr=0.25))
    views.recover()
    assert capsys.readouterr().err == ""
    assert states(views) == ["done", "done"]
    (views.run(first).path / "result.json").write_bytes(b"")
    (stored,) = (views.folder / "stored").iterdir()
    stored.write_bytes(stored.read_bytes().replace(b"0.25", b"0.75"))
    again = Board(views.workdir, "toy")
    again.recover()
    assert states(again) == ["waiting", "waiting"]
    said = capsys.readouterr().err.splitlines()
    assert [name in line for name, line in zip(("result.json", stored.name), said, strict=True)] == [True] * 2


def test_damaged_arrays_of_a_cell_wait_again_once_they_are_set_aside(board, capsys):
    """To look at every byte of a store is for `verify`, not for each start of a sweep's command."""
    run = board.run("run-0")
    run.save_arrays("spectrum", values=np.arange(300.0))
    run.finish({"asr": 0.5})
    (run.path / "spectrum.npz").write_bytes(b"")
    board.recover()
    assert board.state("run-0") == "done"
    with pytest.raises(SystemExit):
        verify.main([str(board.workdir), "--set_aside"])
    assert Board(board.workdir, "toy").state("run-0") == "waiting"


def test_what_is_done_and_what_was_never_begun_are_not_looked_at_again(board, tmp_path, monkeypatch):
    board.run("run-0").finish({"asr": 0.5})
    (tmp_path / "run-1").rmdir()
    (tmp_path / "run-2").rmdir()
    board.fail("run-2", "it has no place")
    expected = {"run-0": "done", "run-1": "waiting", "run-2": "failed"}
    assert board.states() == expected
    looked_at, run = [], board.run

    def seen(cell):
        looked_at.append(cell)
        return run(cell)

    monkeypatch.setattr(board, "run", seen)
    assert board.states() == expected
    assert looked_at == ["run-2"]


def test_a_cell_that_kills_its_process_again_and_again_has_failed(board):
    die(board, "run-0")
    assert board.state("run-0") == "waiting"
    die(board, "run-0")
    assert board.state("run-0") == "failed"
    assert "died 2 times" in board.why("run-0")
    board.retry("run-0")
    assert board.state("run-0") == "waiting"
