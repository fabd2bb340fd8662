"""Stored lines of finished cells: which cells they stand for, and what is added to them."""

import os
import runpy
import threading
import time
from pathlib import Path

import pytest
from small_stores import begin, finish, renamed, sweep, write_lines

import poison_jax.records as command
from poison_jax import sweeps
from poison_jax.errors import UserError
from poison_jax.runs import records
from poison_jax.sweeps import grid, stored

ROOT = Path(__file__).parents[2]
THETA = ("poison.fraction", (0.1, 0.2, 0.3))


def add(store, folder, *more):
    command.main(["--runs", str(store), "--out", str(folder), *more])


def results(tmp_path, *cells):
    """A folder of lines of the cells, made as a store's are, beside the store that they are of."""
    for cell in cells:
        finish(tmp_path / "there", cell, asr=0.5)
    add(tmp_path / "there", tmp_path / "results", "toy")
    return tmp_path / "results"


# --- lines as cells of a sweep --------------------------------------------------------------------


@pytest.mark.parametrize("older", [False, True])
def test_a_stored_line_is_the_cell_of_its_config(tmp_path, older):
    """By its name, or, of an older version, by what its config determines and looks at."""
    config = sweep((THETA, ("spectrum.num_examples", (10, 20))), sweep__name="toy")
    cells = begin(tmp_path / "there", config)
    folder = results(tmp_path, *cells[:4])
    if older:
        renamed(folder / "toy.jsonl")
    found = stored.matching(cells, folder)
    assert found.keys() == {cell.key for cell in cells[:4]}
    for cell in cells[:4]:
        assert found[cell.key].overrides == cell.overrides
        assert found[cell.key].setting("spectrum.num_examples") == cell.overrides["spectrum.num_examples"]
        assert found[cell.key].run.startswith("old-") == older


def test_a_line_of_another_config_is_no_cell(tmp_path):
    """Though it has the same place in a grid."""
    first, *_ = begin(tmp_path / "there", sweep((THETA,), sweep__name="toy", train__epochs=5))
    folder = results(tmp_path, first)
    assert stored.matching(grid.cells(sweep((THETA,))), folder) == {}


def test_a_cell_of_another_sweep_is_a_cell(tmp_path):
    """At its place in this one."""
    first, *_ = begin(tmp_path / "there", sweep((THETA,), sweep__name="toy"))
    folder = results(tmp_path, first)
    cells = grid.cells(sweep((("seed", (0, 1)), ("poison.fraction", (0.1,)))))
    (record,) = stored.matching(cells, folder).values()
    assert record.overrides == {"seed": 0, "poison.fraction": 0.1}


def test_lines_of_one_cell_that_differ_are_said(tmp_path, capsys):
    first, *_ = cells = begin(tmp_path / "there", sweep((THETA,), sweep__name="toy"))
    folder = results(tmp_path, first)
    (record,) = records.load(folder, "toy")
    other = record._replace(run="older-1", view="", result=record.result | {"asr": 0.75})
    write_lines([other], folder / "zoo.jsonl")
    capsys.readouterr()
    assert stored.matching(cells, folder)[first.key].result["asr"] == 0.5
    says = f"a line in {folder / 'zoo.jsonl'} is not taken: asr is 0.5 in the first, 0.75 in the other"
    assert capsys.readouterr().err == f"warning: theta 0.1: {says}\n"


def test_a_line_that_this_version_cannot_compare_is_no_cell(tmp_path):
    config = sweep((THETA,), sweep__name="toy")
    first, *_ = cells = begin(tmp_path / "there", config)
    folder = results(tmp_path, first)
    renamed(folder / "toy.jsonl", result={"asr": 0.5, "config": {"train": {}, "from_the_future": 1}})
    assert stored.matching(cells, folder) == {}


def test_results_that_are_none(tmp_path):
    cells = grid.cells(sweep((THETA,)))
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"holds no <sweep>\.jsonl"):
            stored.matching(cells, folder)
    with pytest.raises(UserError, match="holds no"):
        sweeps.run(sweep((THETA,)), str(tmp_path / "runs"), results=str(tmp_path))
    assert not (tmp_path / "runs").exists()
    (tmp_path / "toy.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="line 1"):
        stored.matching(cells, tmp_path)


# --- cells as lines -------------------------------------------------------------------------------


@pytest.fixture
def there(tmp_path):
    """A store, two of its three cells in a folder of lines, and the third done since."""
    cells = begin(tmp_path / "there", sweep((THETA,), sweep__name="toy"))
    folder = results(tmp_path, *cells[:2])
    finish(tmp_path / "there", cells[2], asr=0.25)
    return tmp_path / "there", folder


def test_lines_are_added_and_none_is_lost(there, tmp_path, capsys):
    store, folder = there
    before = (folder / "toy.jsonl").read_bytes()
    add(store, folder)
    after = (folder / "toy.jsonl").read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == 3
    out, err = capsys.readouterr()
    assert out.endswith("toy.jsonl: 3 cells, 1 added, 0 replaced\n")
    assert err == ""
    # A store that holds other cells takes nothing away; once more changes nothing.
    (other, *_) = begin(tmp_path / "other", sweep((THETA,), sweep__name="toy", seed=1))
    finish(tmp_path / "other", other, asr=0.1)
    for _ in range(2):
        add(tmp_path / "other", folder)
        lines = (folder / "toy.jsonl").read_bytes()
        assert lines.startswith(after)
        assert lines.count(b"\n") == 4
    assert [record.result["asr"] for record in records.load(folder, "toy")] == [0.5, 0.5, 0.25, 0.1]


def test_of_two_that_add_at_once_neither_loses_the_other_s(there, tmp_path):
    """The second one waits, and reads what the first one has written."""
    store, folder = there
    (other, *_) = begin(tmp_path / "other", sweep((THETA,), sweep__name="toy", seed=1))
    finish(tmp_path / "other", other, asr=0.1)
    with stored._alone(folder):
        second = threading.Thread(target=add, args=(tmp_path / "other", folder))
        second.start()
        time.sleep(0.3)
        stored._merge(records.load(store, "toy"), folder / "toy.jsonl", replace=False)
    second.join()
    assert [record.result["asr"] for record in records.load(folder, "toy")] == [0.5, 0.5, 0.25, 0.1]


@pytest.mark.parametrize("older", [False, True])
def test_a_line_that_says_something_else_is_kept(there, tmp_path, capsys, older):
    """Unless it is to be replaced."""
    store, folder = there
    add(store, folder)
    if older:
        renamed(folder / "toy.jsonl")
    before = (folder / "toy.jsonl").read_bytes()
    (cell, *_) = begin(tmp_path / "again", sweep((THETA,), sweep__name="toy"))
    finish(tmp_path / "again", cell, asr=0.75)
    capsys.readouterr()
    add(tmp_path / "again", folder)
    assert (folder / "toy.jsonl").read_bytes() == before
    out, err = capsys.readouterr()
    assert "0 added, 0 replaced" in out
    assert ("old-0" if older else cell.key) in err
    assert "asr is 0.5 in the first, 0.75 in the other) is kept: --replace takes" in err
    assert err.count("\n") == 1
    add(tmp_path / "again", folder, "--replace")
    assert "0 added, 1 replaced" in capsys.readouterr().out
    after = records.load(folder, "toy")
    assert [record.result["asr"] for record in after] == [0.75, 0.5, 0.25]
    assert (folder / "toy.jsonl").read_bytes().splitlines()[1:] == before.splitlines()[1:]


def test_another_machine_is_no_difference(there, tmp_path, capsys):
    """The same numbers in another time, by another version that measures more."""
    _, folder = there
    before = (folder / "toy.jsonl").read_bytes()
    (cell, *_) = begin(tmp_path / "again", sweep((THETA,), sweep__name="toy"))
    finish(
        tmp_path / "again", cell, asr=0.5, wall_seconds=1.0, device="another", versions={}, new=float("nan")
    )
    add(tmp_path / "again", folder)
    assert (folder / "toy.jsonl").read_bytes() == before
    assert capsys.readouterr().err == ""
    # What is measured more is taken where the line may be replaced.
    add(tmp_path / "again", folder, "--replace")
    assert "0 added, 1 replaced" in capsys.readouterr().out
    assert "new" in records.load(folder, "toy")[0].result


def test_a_damaged_line_stops_it(there):
    store, folder = there
    file = folder / "toy.jsonl"
    os.truncate(file, 100)
    before = file.read_bytes()
    with pytest.raises(SystemExit):
        add(store, folder)
    assert file.read_bytes() == before


def test_the_command(there, tmp_path, capsys):
    store, _ = there
    begin(store, sweep((), sweep__name="other"))
    add(store, tmp_path / "one", "toy")
    assert records.names(tmp_path / "one") == ["toy"]
    add(store, tmp_path / "all")
    assert records.names(tmp_path / "all") == ["other", "toy"]
    capsys.readouterr()
    for arguments in ((store, tmp_path / "lines", "fig99"), (tmp_path / "nowhere", tmp_path / "lines")):
        with pytest.raises(SystemExit) as left:
            add(*arguments)
        assert left.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "lines").exists()


def test_the_lines_of_this_project_stand_for_its_sweeps():
    """Those of `results/`, of whichever version."""
    for name, size in (("fig06", "short"), ("table1", "short"), ("fig05", "small")):
        config = runpy.run_path(str(ROOT / "configs" / "sweeps" / f"{name}.py"))["get_config"](size)
        cells = grid.cells(config)
        assert stored.matching(cells, ROOT / "results").keys() == {cell.key for cell in cells}
