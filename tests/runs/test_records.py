"""Records of a sweep: from runs to lines and back, and what is said of files that are not right."""

import numpy as np
import pytest

from poison_jax import config as config_lib
from poison_jax.errors import UserError
from poison_jax.runs import files, records, store
from poison_jax.runs.records import Sweep

SHAPE = (4, 5, 3)


@pytest.fixture
def swept(tmp_path):
    """A store with a sweep of two networks, one of them finished, and a linear regression."""
    workdir = tmp_path / "runs"
    workdir.mkdir()
    network, linear = config_lib.default().to_dict(), config_lib.default().to_dict()
    linear["experiment"] = "mnist_linear"
    cells = []
    for theta in (0.1, 0.2):
        network["poison"]["fraction"] = theta
        run = store.open_run(workdir, "cell", network)
        cells.append({"run": run.path.name, "overrides": {"poison.fraction": theta}})
        if theta == 0.2:
            _finish(run, {"asr": 0.123456789, "near": float("nan"), "config": network})
    run = store.open_run(workdir, "linear", linear)
    run.save_arrays("measures", asr=np.array([[0.5, np.nan]]), methods=np.array(["exact", "ridge 1"]))
    run.finish({"config": linear})
    records.write_sweep(workdir, Sweep("small", network, cells))
    records.write_sweep(workdir, Sweep("linear", linear, [{"run": run.path.name, "overrides": {}}]))
    return workdir


def _finish(run, result):
    rng = np.random.default_rng(0)
    run.save_arrays("spectrum", vectors=rng.standard_normal((2, 60)), shape=np.array(SHAPE))
    run.save_arrays("examples", mask=rng.uniform(-1, 1, SHAPE))
    table = {name: np.arange(3.0) for name in (*records.COLUMNS, "class_names", "target")}
    table |= {"class_names": np.array(["a", "bb", "ü"]), "target": np.array(2)}
    run.save_arrays("features", **table | {"distance_ratio": np.array([np.nan, 1 / 3, 12345.6])})
    run.finish(result)


def test_runs_of_a_store(swept):
    """Those that are finished, with what figures need of them."""
    assert records.names(swept) == ["linear", "small"]
    (record,) = records.load(swept, "small")
    assert record.overrides == {"poison.fraction": 0.2}
    assert record.setting("poison.fraction") == 0.2
    assert record.setting("data") == record.result["config"]["data"]
    run = store.Run(swept / record.run)
    vector = run.arrays("spectrum")["vectors"][0].reshape(SHAPE)
    np.testing.assert_array_equal(record.arrays["top_eigenvector"], vector.mean(-1))
    np.testing.assert_array_equal(record.arrays["trigger"], np.abs(run.arrays("examples")["mask"]).mean(-1))
    np.testing.assert_array_equal(record.arrays["shape"], SHAPE)


def test_lines_hold_what_the_store_does_to_three_digits(swept, tmp_path, capsys):
    records.main(["--runs", str(swept), "--out", str(tmp_path / "lines")])
    assert capsys.readouterr().out.splitlines()[1].endswith("small.jsonl: 1 cells")
    assert records.names(tmp_path / "lines") == ["linear", "small"]
    for name in ("linear", "small"):
        (there,), (here,) = records.load(swept, name), records.load(tmp_path / "lines", name)
        assert (here.run, here.overrides) == (there.run, there.overrides)
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
    (small,) = records.load(tmp_path / "lines", "small")
    assert small.result["asr"] == 0.123456789  # the result itself is not rounded
    assert small.result["near"] is None
    np.testing.assert_array_equal(small.arrays["distance_ratio"], [np.nan, 0.333, 12300.0])
    again = tmp_path / "again"
    records.write_lines(records.load(tmp_path / "lines", "small"), again / "small.jsonl")
    assert (again / "small.jsonl").read_bytes() == (tmp_path / "lines" / "small.jsonl").read_bytes()


def test_one_sweep_by_name(swept, tmp_path):
    records.main(["--runs", str(swept), "--out", str(tmp_path / "lines"), "linear"])
    assert records.names(tmp_path / "lines") == ["linear"]


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
        (lambda line: line.replace("0.123456789", "0.723456789"), "line 2 does not match its checksum"),
        (lambda line: line.replace('"run"', '"walk"'), "line 2 does not match its checksum"),
        (lambda line: sealed(line, arrays=[]), "line 2 is not a record"),
        (lambda line: sealed(line, run=None), "line 2 is not a record"),
        (lambda line: sealed(line, run="../../etc"), "'../../etc' is no name of a run"),
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
    records.write_lines(records.load(swept, "small"), file)
    (line,) = file.read_text().splitlines()
    file.write_bytes(f"{line}\n".encode() + change(line).encode("latin-1") + b"\n")
    with pytest.raises(UserError, match=says) as caught:
        records.load(tmp_path, "small")
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_an_absent_sweep_is_one_line(swept, tmp_path, capsys):
    with pytest.raises(UserError, match=r"no sweep 'fig99' \(it holds linear, small\)"):
        records.load(swept, "fig99")
    with pytest.raises(UserError, match="it holds none"):
        records.load(tmp_path / "nowhere", "fig99")
    for arguments in (["--runs", str(swept), "fig99"], ["--runs", str(tmp_path)]):
        with pytest.raises(SystemExit) as left:
            records.main([*arguments, "--out", str(tmp_path / "lines")])
        assert left.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "lines").exists()


def test_a_sweep_keeps_its_cells(swept):
    """Written again in any order it is the same; with other cells it is another sweep."""
    sweep = records.read_sweep(swept, "small")
    records.write_sweep(swept, sweep._replace(cells=sweep.cells[::-1]))
    assert records.read_sweep(swept, "small") == sweep
    with pytest.raises(UserError, match="other cells"):
        records.write_sweep(swept, sweep._replace(cells=sweep.cells[:1]))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"format": 9}, "update poison_jax"),
        ({}, "move it away"),
        ({"format": 1, "name": "small", "config": {}}, "does not say what its cells are"),
        ({"format": 1, "name": "small", "config": {}, "cells": [{"run": "x"}]}, "does not say"),
        ({"format": 1, "name": "small", "config": {}, "cells": ["x"]}, "does not say"),
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
