"""Records of a sweep: from runs to lines and back, and what is said of files that are not right."""

import numpy as np
import pytest
from small_stores import INPUT, begin, finish, network_arrays, sweep, write_lines

from poison_jax import config as config_lib
from poison_jax.errors import UserError
from poison_jax.runs import files, records, store
from poison_jax.runs.records import Sweep

THETA = ("poison.fraction", (0.1, 0.2))


@pytest.fixture
def swept(tmp_path):
    """A store with a sweep of two networks, one of them finished, and a linear regression."""
    workdir = tmp_path / "runs"
    _, last = begin(workdir, sweep((THETA,), sweep__name="small"))
    finish(workdir, last, asr=0.123456789, near=float("nan"))
    (linear,) = begin(workdir, sweep((), sweep__name="linear", sweep__of="mnist_linear"))
    finish(workdir, linear)
    return workdir


def test_runs_of_a_store(swept):
    """Those that are finished, with what figures need of them."""
    assert records.names(swept) == ["linear", "small"]
    (record,) = records.load(swept, "small")
    assert record.overrides == {"poison.fraction": 0.2}
    assert record.setting("poison.fraction") == 0.2
    assert record.setting("data") == record.result["config"]["data"]
    run = store.Run(swept / record.run)
    vector = run.arrays("spectrum")["vectors"][0].reshape(INPUT)
    np.testing.assert_array_equal(record.arrays["top_eigenvector"], vector.mean(-1))
    np.testing.assert_array_equal(record.arrays["trigger"], np.abs(run.arrays("attack")["mask"]).mean(-1))
    np.testing.assert_array_equal(record.arrays["shape"], INPUT)
    assert {*records.COLUMNS, "class_names", "target"} < record.arrays.keys()


def test_cells_of_one_run_are_records_of_their_views(tmp_path):
    axis = ("spectrum.num_examples", (10, 20))
    cells = begin(tmp_path, sweep((axis,)))
    for cell in cells:
        finish(tmp_path, cell, asr=cell.config.spectrum.num_examples / 100)
    first, second = records.load(tmp_path, "sweep")
    assert first.run == second.run
    assert (first.key, second.key) == tuple(cell.key for cell in cells)
    assert (first.result["asr"], second.result["asr"]) == (0.1, 0.2)
    assert first.setting("spectrum.num_examples") == 10
    assert not np.array_equal(first.arrays["top_eigenvector"], second.arrays["top_eigenvector"])
    np.testing.assert_array_equal(first.arrays["trigger"], second.arrays["trigger"])


def test_an_older_store_and_older_lines_say_nothing_of_views(tmp_path):
    """The attack's arrays had another name, and there was one choice of stages."""
    config = config_lib.default().to_dict()
    run = store.open_run(tmp_path, "cell", config, {})
    arrays = network_arrays(0)
    run.save_arrays("spectrum", **arrays["spectrum"])
    run.save_arrays("attack", **arrays["attack"])
    run.finish({"asr": 0.5, "config": config})
    cells = [{"run": run.path.name, "overrides": {}}]
    records.write_sweep(tmp_path, Sweep("old", config, cells))
    (record,) = records.load(tmp_path, "old")
    assert (record.view, record.key) == ("", run.path.name)
    np.testing.assert_array_equal(record.arrays["trigger"], np.abs(arrays["attack"]["mask"]).mean(-1))
    assert "mean_norm" not in record.arrays
    content = files.loads(records.line(record).encode(), "")
    del content["view"]
    assert records.of_line(files.dumps(content).encode(), "")[:3] == record[:3]


def test_a_stage_that_was_left_out_leaves_its_arrays_out(tmp_path):
    (cell,) = begin(tmp_path, sweep(()))
    finish(tmp_path, cell, features_left_out="too few images")
    (record,) = records.load(tmp_path, "sweep")
    assert record.arrays.keys() == {"top_eigenvector", "shape", "trigger"}


def test_a_cell_that_is_stored_is_a_record(swept):
    """With the name that it has elsewhere; a result of the store's own comes first."""
    waiting, done = records.read_sweep(swept, "small").cells
    (record,) = records.load(swept, "small")
    stored = record._replace(run="elsewhere-1", view="", overrides=waiting["overrides"], result={"asr": 0.7})
    for cell in (waiting, done):
        records.store_record(swept, "small", records.key_of(cell), stored)
    first, second = records.load(swept, "small")
    assert first[:3] == ("elsewhere-1", {"poison.fraction": 0.1}, {"asr": 0.7})
    np.testing.assert_allclose(first.arrays["trigger"], record.arrays["trigger"], rtol=5.1e-3)
    assert second[:3] == record[:3]


def test_lines_hold_what_the_store_does_to_three_digits(swept, tmp_path):
    for name in ("linear", "small"):
        (there,) = records.load(swept, name)
        write_lines([there], tmp_path / f"{name}.jsonl")
        (here,) = records.load(tmp_path, name)
        assert (here.run, here.view, here.overrides) == (there.run, there.view, there.overrides)
        assert here.result == there.result
        assert here.arrays.keys() == there.arrays.keys()
        for key, array in there.arrays.items():
            assert here.arrays[key].shape == array.shape, key
            assert here.arrays[key].dtype.kind == array.dtype.kind, key
            if array.dtype.kind == "f":
                np.testing.assert_allclose(here.arrays[key], array, rtol=5.1e-3)
                shown = [f"{x:.3g}" for x in array.ravel()]
                assert [f"{x:.10g}" for x in here.arrays[key].ravel()] == [f"{float(x):.10g}" for x in shown]
            else:
                np.testing.assert_array_equal(here.arrays[key], array)
    assert here.result["asr"] == 0.123456789  # the result itself is not rounded
    assert here.result["near"] is None
    np.testing.assert_array_equal(here.arrays["distance_ratio"], [np.nan, 0.333, 12300.0])
    write_lines([here], tmp_path / "again" / "small.jsonl")
    assert (tmp_path / "again" / "small.jsonl").read_bytes() == (tmp_path / "small.jsonl").read_bytes()


def sealed(line, **changes):
    """The line with other contents and the checksum that goes with them."""
    return files.dumps(files.loads(line.encode(), "") | changes)


def array(dtype, shape=(1,)):
    return {"shape": shape, "dtype": dtype, "values": ["x"]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda line: line[: len(line) // 2], "line 2 cannot be read"),
        (lambda line: "", "line 2 cannot be read"),
        (lambda line: "[1, 2]", "line 2 is not a JSON object"),
        (lambda line: '"text"', "line 2 is not a JSON object"),
        (lambda line: "\xff", "line 2 cannot be read"),
        (lambda line: '{"a":' * 10**5, "line 2 cannot be read"),
        (lambda line: f'{{"format": 1, "a": {"1" * 5000}}}', "line 2 cannot be read"),
        (lambda line: line.replace("checksum", "checksun"), "line 2 has no checksum"),
        (lambda line: line.replace("0.123456789", "0.723456789"), "line 2 does not match its checksum"),
        (lambda line: line.replace('"run"', '"walk"'), "line 2 does not match its checksum"),
        (lambda line: sealed(line, arrays=[]), "line 2 is not a record"),
        (lambda line: sealed(line, run=None), "line 2 is not a record"),
        (lambda line: sealed(line, run="../../etc"), "'../../etc' is no name of a run"),
        (lambda line: sealed(line, view="../../etc"), "'../../etc' is no name of a run"),
        (lambda line: sealed(line, view=3), "3 is no name of a run"),
        (lambda line: sealed(line, overrides=[]), "line 2 is not a record"),
        (lambda line: sealed(line, arrays={"a": array("O")}), "line 2 is not a record"),
        (lambda line: sealed(line, arrays={"a": array("U1000000000")}), "line 2 is not a record"),
        (lambda line: sealed(line, arrays={"a": array("float64", shape=[2**40])}), "line 2 is not a record"),
        (lambda line: line.replace('"format": 1', '"format": 2'), "line 2 has format 2.*update"),
        (lambda line: line.replace('"format": 1', '"format": "x"'), "line 2 has format x.*move it away"),
    ],
)
def test_a_damaged_or_newer_line_is_named(swept, tmp_path, change, says):
    file = tmp_path / "small.jsonl"
    write_lines(records.load(swept, "small"), file)
    (line,) = file.read_text().splitlines()
    file.write_bytes(f"{line}\n".encode() + change(line).encode("latin-1") + b"\n")
    with pytest.raises(UserError, match=says) as caught:
        records.load(tmp_path, "small")
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_an_absent_sweep_is_one_line(swept, tmp_path):
    with pytest.raises(UserError, match=r"no sweep 'fig99' \(it holds linear, small\)"):
        records.load(swept, "fig99")
    with pytest.raises(UserError, match="it holds none"):
        records.load(tmp_path / "nowhere", "fig99")


def test_a_sweep_keeps_its_cells(swept):
    """In their order; what is no cell's identity, as where the data lie, is what was given last."""
    kept = records.read_sweep(swept, "small")
    file = swept / "sweeps" / "small.json"
    before = file.read_bytes()
    records.write_sweep(swept, kept._replace(cells=kept.cells[::-1]))
    with pytest.raises(UserError, match=r"other cells: choose another sweep\.name or --workdir"):
        records.write_sweep(swept, kept._replace(cells=kept.cells[:1]))
    assert file.read_bytes() == before
    moved = kept._replace(config=kept.config | {"data": {"dir": "/elsewhere"}}, attempts=7)
    records.write_sweep(swept, moved._replace(cells=kept.cells[::-1]))
    assert records.read_sweep(swept, "small") == moved


def test_an_older_sweep_gives_a_cell_three_attempts(swept):
    file = swept / "sweeps" / "small.json"
    content = files.read_json(file)
    assert content.pop("attempts") == 3
    files.write_json(file, content)
    assert records.read_sweep(swept, "small").attempts == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"format": 9}, "update poison_jax"),
        ({}, "move it away"),
        ({"format": 1, "name": "small", "config": {}}, "does not say what its cells are"),
        ({"format": 1, "name": "small", "config": {}, "cells": [{"run": "x"}]}, "does not say"),
        ({"format": 1, "name": "small", "config": {}, "cells": ["x"]}, "does not say"),
        ({"format": 1, "name": "small", "config": {}, "cells": [], "attempts": "3"}, "does not say"),
        *(
            (
                {"format": 1, "name": "small", "config": {}, "cells": [{"run": name, "overrides": {}}]},
                "no name",
            )
            for name in ("", "..", "/etc", "../x", "a/b", "a\\b", "a\0b")
        ),
    ],
)
def test_a_sweep_s_file_that_is_not_right(swept, content, says):
    files.write_json(swept / "sweeps" / "small.json", content)
    with pytest.raises(UserError, match=says):
        records.load(swept, "small")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[]", "not a JSON object"),
        (b'{"format": 1, "name": "small", "config": {}, "cells": []}', "has no checksum"),
    ],
)
def test_a_sweep_s_file_that_somebody_else_wrote(swept, content, says):
    (swept / "sweeps" / "small.json").write_bytes(content)
    with pytest.raises(UserError, match=says):
        records.load(swept, "small")
