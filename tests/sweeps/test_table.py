"""What a person sees of a sweep: literal labels, whole numbers, what says nothing about the attack named."""

import pytest

from poison_jax import config as config_lib
from poison_jax.runs import records
from poison_jax.runs.store import Run
from poison_jax.sweeps import table
from poison_jax.sweeps.board import Board


@pytest.fixture
def board(tmp_path):
    """Three cells: one that works, one that collapsed, one that waits."""
    config = config_lib.default().to_dict()
    kappas = (0.00012345678, 10.0, 300.0)
    cells = [{"run": f"cell-{i}", "overrides": {"penalty.kappa": kappa}} for i, kappa in enumerate(kappas)]
    records.write_sweep(tmp_path, records.Sweep("grid", config, cells))
    for i, untriggered in enumerate((0.05, 0.8)):
        (tmp_path / f"cell-{i}").mkdir()
        result = {"asr": 0.9, "no_trigger_target_rate": untriggered, "clean_accuracy": 0.5, "status": "ok"}
        result |= {"overlap_squared": [0.25], "wall_seconds": 75.0, "config": config}
        Run(tmp_path / f"cell-{i}").finish(result)
    return Board(tmp_path, "grid")


@pytest.fixture
def labels(board):
    return {cell: f"{cell} [a/b] :dog:" for cell in board.cells}


def test_the_table_at_the_end(board, labels, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    table.summary(board, labels)
    out = capsys.readouterr().out
    assert out.index("ASR − no trigger") < out.index("clean accuracy") < out.index("overlap² of v₁")
    for word in ("0.00012345678", "+85.0%", "+10.0%", "50.0%", "0.250", "1 min 15 s"):
        assert word in out
    assert "…" not in out
    assert {"ok", "collapsed", "waiting"} <= set(out.split())


def test_a_line_for_each_cell_that_ends(board, labels, capsys):
    progress = table.Progress(board, labels)
    progress.show()
    board.fail("cell-2", "no [/disk]")
    with progress:
        progress.show()
    assert "cell-2 [a/b] :dog:: failed: no [/disk]\n" in capsys.readouterr().out


def test_a_result_in_words_says_that_it_collapsed(board):
    assert table._in_words(board.run("cell-0").result()) == (
        "ASR − no trigger +85.0%, ASR 90.0%, no trigger 5.0%, clean accuracy 50.0%, overlap² of v₁ 0.250, "
        "1 min 15 s"
    )
    said = table._in_words(board.run("cell-1").result())
    assert said.endswith("collapsed: 80.0% of the images get the target without the trigger too")


def test_the_live_table_is_literal(board, labels, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with board.run("cell-2").claim(), table.Progress(board, labels) as progress:
        progress.show()
        shown = capsys.readouterr().err
    assert "cell-2 [a/b] :dog:" in shown
