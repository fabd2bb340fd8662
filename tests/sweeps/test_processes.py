"""A worker, in this process."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest
from small_stores import begin, finish
from toys import tiny

from poison_jax import environment
from poison_jax.errors import Diverged, RunsFailed
from poison_jax.experiments import views
from poison_jax.runs import records
from poison_jax.sweeps import grid, processes
from poison_jax.sweeps.board import Board


def board(tmp_path, *axes):
    toy = {"sweep__name": "toy", "train__epochs": 1, "analysis__features": 0}
    begin(tmp_path, tiny(experiment="sweep", sweep__grids=(axes,), **toy))
    return Board(tmp_path, "toy")


def test_cells_of_one_run_train_it_once(tmp_path, capsys):
    """And have what each looks at."""
    made = board(tmp_path, ("spectrum.num_examples", (16, 32)))
    processes.work(made)
    assert [made.state(cell) for cell in made.cells] == ["done"] * 2
    first, second = map(made.result, made.cells)
    assert (first["hessian_examples"], second["hessian_examples"]) == (16, 32)
    assert first["eigenvalues"] != second["eigenvalues"]
    assert first["asr"] == second["asr"]
    assert capsys.readouterr().out.count("epoch   1/1") == 1
    assert len([path for path in tmp_path.iterdir() if path.name != "sweeps"]) == 1
    vectors = [made.record(cell).arrays["top_eigenvector"] for cell in made.cells]
    assert not np.array_equal(*vectors)


def test_a_cell_that_another_holds_is_passed_over(tmp_path):
    made = board(tmp_path, ("seed", (0, 1)))
    held, free = made.cells
    folder = made.run(held)
    folder.path.mkdir()
    with folder.claim():
        processes.work(made)
        assert made.state(held) == "running"
    assert made.state(free) == "done"


def test_a_damaged_result_is_made_again(tmp_path, capsys):
    """From the cell's last checkpoint; what was there is kept."""
    made = board(tmp_path, ("seed", (0,)))
    processes.work(made)
    (cell,) = made.cells
    before, file = made.result(cell), made.run(cell).path / "result.json"
    damaged = file.read_bytes()[:100]
    file.write_bytes(damaged)
    capsys.readouterr()
    again = Board(tmp_path, "toy")
    again.recover()
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"warning: {file} cannot be read")
    assert again.state(cell) == "waiting"
    processes.work(again)
    assert "epoch   1/1" not in capsys.readouterr().out  # nothing is trained
    assert again.result(cell) | {"wall_seconds": before["wall_seconds"]} == before
    assert (file.parent / "damaged" / "result.json").read_bytes() == damaged


@pytest.mark.parametrize(
    ("error", "traceback"),
    [
        (Diverged("loss not finite"), False),
        (RunsFailed("2 of 3 runs failed: why"), False),
        (ZeroDivisionError("by zero"), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_cell_that_fails_is_kept_and_the_others_are_done(tmp_path, monkeypatch, capsys, error, traceback):
    """In one line; an error of the program has its traceback besides."""

    def run(config, workdir):
        if config.penalty.kappa > 0:
            raise error
        finish(tmp_path, grid.Cell({}, config, grid.name(config)[0], views.view(config)))

    made = board(tmp_path, ("penalty.kappa", (1e30, 0.0)))
    monkeypatch.setattr(processes.experiments, "run", run)
    processes.work(made)
    states = {made.overrides(cell)["penalty.kappa"]: made.state(cell) for cell in made.cells}
    assert states == {0.0: "done", 1e30: "failed"}
    (failed,) = (cell for cell in made.cells if made.state(cell) == "failed")
    assert made.why(failed) == str(error)
    *before, last = capsys.readouterr().err.splitlines()
    assert last == f"warning: {failed} failed: {error}"
    assert any("Traceback" in line for line in before) == bool(before) == traceback


def test_a_cell_of_another_version_is_refused(tmp_path):
    """Its run would have another name: the cell would wait for ever."""
    made = board(tmp_path, ("seed", (0,)))
    old = [cell | {"run": "run-01234567"} for cell in made.sweep.cells]
    records.write_sweep(tmp_path, made.sweep._replace(name="old", cells=old))
    other = Board(tmp_path, "old")
    processes.work(other)
    assert "choose another sweep.name" in other.why(other.cells[0])
    assert made.state(made.cells[0]) == "waiting"


def test_a_full_disk_is_no_failure_of_a_cell(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    made = board(tmp_path, ("seed", (0,)))
    monkeypatch.setattr(processes.experiments, "run", full)
    with pytest.raises(OSError, match="No space"):
        processes.work(made)
    assert made.state(made.cells[0]) == "waiting"


@pytest.mark.parametrize(
    ("gpus", "platform", "workers", "expected"),
    [
        ("4,7", "cuda", 2, {}),
        ("4,7", "", 5, {"XLA_CLIENT_MEM_FRACTION": "0.300"}),
        ("", "", 2, {}),
        ("4,7", "cpu", 2, {}),
    ],
    ids=["one each", "three share the fuller one", "none", "JAX takes none"],
)
def test_workers_share_the_gpus_and_their_memory(tmp_path, monkeypatch, gpus, platform, workers, expected):
    started = []

    class Started:
        def __init__(self, command, *, env, **_):
            started.append((command, env))

        def send_signal(self, number):
            pass

        wait = poll = lambda self, **_: 0

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    found = [EntryPoint("xla_cuda13", "jax_plugins", "jax_plugins")]
    monkeypatch.setattr(environment.importlib.metadata, "entry_points", lambda group: found)
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.setattr(processes.subprocess, "Popen", Started)
    made = board(tmp_path, ("seed", tuple(range(workers))))
    made.folder.mkdir(exist_ok=True)
    engine = processes.Processes(made, workers)
    engine.look_after(dict.fromkeys(made.cells, "waiting"))
    engine.stop()
    assert len(started) == workers
    for i, (command, env) in enumerate(started):
        taken = gpus and platform != "cpu"
        assert env["CUDA_VISIBLE_DEVICES"] == (gpus.split(",")[i % 2] if taken else gpus)
        assert {name: value for name, value in env.items() if "MEM_FRACTION" in name} == expected
        assert ("--share" in command) == (not taken)


def test_a_worker_that_died_is_replaced_while_the_others_have_cells(tmp_path, monkeypatch):
    """And none is started beside one that is about to take a cell."""
    started = []

    class Started:
        returncode = None

        def __init__(self, command, **_):
            started.append(self)

        def send_signal(self, number):
            pass

        poll = wait = lambda self, **_: self.returncode

    monkeypatch.setattr(processes.subprocess, "Popen", Started)
    made = board(tmp_path, ("seed", tuple(range(5))))
    made.folder.mkdir(exist_ok=True)
    engine = processes.Processes(made, 4)

    def look_after(running, waiting):
        states = ["done"] * (5 - running - waiting) + ["running"] * running + ["waiting"] * waiting
        engine.look_after(dict(zip(made.cells, states, strict=True)))
        return len(started)

    assert look_after(running=0, waiting=5) == 4
    assert look_after(running=2, waiting=3) == 4
    assert look_after(running=4, waiting=1) == 4
    started[2].returncode = -9
    assert look_after(running=3, waiting=2) == 5
    assert look_after(running=3, waiting=2) == 5
    assert look_after(running=4, waiting=1) == 5
    started[3].returncode = 0
    assert look_after(running=3, waiting=0) == 5
    engine.stop()
