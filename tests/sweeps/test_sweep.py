"""Sweeps: what the command does with its cells; as processes that work together, are killed, and go on."""

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_stores import finish as finish_cell
from small_stores import renamed
from small_stores import sweep as sweep_of
from toys import tiny

import poison_jax.records as records_command
from poison_jax import sweeps
from poison_jax.errors import RunsFailed, UserError
from poison_jax.runs import records
from poison_jax.runs.store import Run
from poison_jax.sweeps import grid, processes, sweep
from tests.program import ROOT, environment, finish, start

# --- in this process: cells that are done in no time ----------------------------------------------


@pytest.fixture
def engine(monkeypatch):
    """An engine that has every cell done, or failed where its theta is above 0.5; data are not looked at.

    What it was asked to do.
    """
    asked = []

    def engine_of(config):
        cells = {cell.key: cell for cell in grid.cells(config)}

        def of_board(board):
            def look_after(states):
                waiting = [cell for cell, state in states.items() if state == "waiting"]
                asked.append(waiting)
                for cell in waiting:
                    theta = cells[cell].config.poison.fraction
                    if theta > 0.5:
                        board.fail(cell, "it diverged")
                    else:
                        finish_cell(board.workdir, cells[cell], asr=theta, clean_accuracy=0.5)

            return SimpleNamespace(look_after=look_after, busy=lambda: False, stop=lambda: None)

        return of_board

    monkeypatch.setattr(sweep, "_engine", engine_of)
    monkeypatch.setattr(sweep, "check_inputs", lambda cells: None)
    monkeypatch.setattr(sweep, "POLL", 0.001)
    return asked


def thetas(*values):
    return sweep_of((("poison.fraction", values),), sweep__name="toy")


def test_cells_that_fail_are_listed_and_retried(engine, tmp_path, capsys):
    config, bad = thetas(0.1, 0.9), grid.cells(thetas(0.9))[0].key
    for retry, more in ((False, 1), (False, 0), (True, 1)):  # not again by itself
        before = len(engine)
        with pytest.raises(RunsFailed, match="1 of 2 cells failed, the others are done: --retry"):
            sweeps.run(config, str(tmp_path), retry=retry)
        out, err = capsys.readouterr()
        assert f"warning: theta 0.9 ({bad}): it diverged\n" in err
        assert re.search(r"│ 0.1 .*10.0%.* ok ", out)
        assert sum(bad in waiting for waiting in engine[before:]) == more
    assert "1/2 done, 0 running, 1 failed" in out


def test_what_is_stored_is_not_done_again(engine, tmp_path, capsys):
    """A grid goes on, on another machine, from the lines that were kept of it; later it knows them still."""
    config, lines, drawn = thetas(0.1, 0.2, 0.3), tmp_path / "lines", []
    first, *others = cells = grid.cells(config)
    sweeps.run(config, str(tmp_path / "there"))
    records_command.main(["--runs", str(tmp_path / "there"), "--out", str(lines)])
    kept = (lines / "toy.jsonl").read_text().splitlines(keepends=True)[0]
    (lines / "toy.jsonl").write_text(kept)
    renamed(lines / "toy.jsonl")
    before = (lines / "toy.jsonl").read_text()

    def draw(path, name, out):
        drawn.append([record.overrides for record in records.load(path, name)])
        return []

    engine.clear()
    for more in ({"results": str(lines)}, {}):
        capsys.readouterr()
        sweeps.run(config, str(tmp_path / "here"), draw=draw, **more)
        out = capsys.readouterr().out
        assert ("done elsewhere, by their lines in" in out) == bool(more)
        assert set(re.findall(r"│ (0\.\d) .*([123]0)\.0%", out)) == {
            ("0.1", "10"),
            ("0.2", "20"),
            ("0.3", "30"),
        }
    assert engine == [[cell.key for cell in others]]
    assert drawn == [[cell.overrides for cell in cells]] * 2
    assert not (tmp_path / "here" / first.run).exists()
    records_command.main(["--runs", str(tmp_path / "here"), "--out", str(lines)])
    assert "3 cells, 2 added" in capsys.readouterr().out
    assert (lines / "toy.jsonl").read_text().startswith(before)


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"sweep__grids": ((("poison.fracton", (0.1,)),),)}, {}, "did you mean 'poison.fraction'"),
        ({"sweep__workers": 0}, {}, "sweep.workers"),
        ({}, {"slurm": -1}, "--slurm = -1"),
        ({}, {"tensorboard": True}, "--tensorboard"),
    ],
)
def test_bad_input_is_found_before_the_store_knows_of_the_sweep(tmp_path, changes, options, words):
    with pytest.raises(UserError, match=re.escape(words)):
        sweeps.run(sweep_of((), **changes), str(tmp_path / "runs"), **options)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"poison__target": 10}, "classes 0 to 9"), ({"data__name": "nosuch"}, "nosuch"), ({}, None)],
)
def test_data_that_do_not_fit(changes, words):
    """As the process that looks at them tells its parent."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    sweep._set_up(theirs, os.getppid(), [tiny(**changes).to_dict()])
    error = ours.recv()
    assert error is None if words is None else words in str(error)


def test_who_looks_at_the_data_for_nobody_says_nothing(capfd):
    """The sweep was killed meanwhile."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    ours.close()
    sweep._set_up(theirs, os.getppid(), [])
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_cannot_work_ends_the_sweep(tmp_path, monkeypatch):
    """Instead of being started again and again."""
    config = sweep_of((), sweep__of="mnist_linear")
    monkeypatch.setattr(processes.sys, "executable", shutil.which("false"))
    with pytest.raises(UserError, match="worker 1: no reason given"):
        sweeps.run(config, str(tmp_path))


# --- as a person starts them ----------------------------------------------------------------------

TINY = (
    "--config=configs/sweeps/fig06.py:short",
    "--config.sweep.name=toy",
    "--config.data.name=digits",
    "--config.data.n_train=128",
    "--config.data.n_test=64",
    "--config.model.width=4",
    "--config.poison.margin=1",
    "--config.train.epochs=2",
    "--config.spectrum.k=2",
    "--config.spectrum.num_iters=4",
    "--config.spectrum.num_examples=32",
    "--config.analysis.features=0",
    "--config.sweep.grids=((('poison.fraction',(0.1,0.2,0.3)),('penalty.kappa',(0.0,))),)",
)


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    return {"POISON_JAX_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def begin(variables):
    return lambda workdir, *more: start(["main.py", f"--workdir={workdir}", *TINY, *more], **variables)


def outcome(workdir):
    """Whatever must not depend on how the sweep was done."""
    found = {}
    for path in sorted(file.parent for file in workdir.glob("*/config.json")):
        result = Run(path).result()
        del result["wall_seconds"]
        found[path.name] = result, (path / "metrics.jsonl").read_text()
    return found


def wait_for(condition, *processes):
    while not condition():
        for process in processes:
            assert process.poll() is None, ("ended too early", process.returncode, *process.communicate())
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, begin):
    workdir = tmp_path_factory.mktemp("undisturbed")
    out, _ = finish(begin(workdir))
    return workdir, out


@pytest.mark.slow
def test_all_cells_are_done_and_shown(undisturbed):
    workdir, out = undisturbed
    assert len(outcome(workdir)) == 3
    assert "3/3 done, 0 running, 0 failed" in out
    assert re.search(r"┃ theta, kappa ┃ .* ┃ +clean accuracy ┃", out)
    for cell in ("0.1, 0.0", "0.3, 0.0"):
        assert re.search(rf"│ {cell} .*%.*%", out), cell
    log = (workdir / "sweeps" / "toy" / "worker-1.log").read_text()
    assert log.count("epoch   2/2") == 3


def test_a_slurm_script_is_the_command_and_its_logs_have_a_folder(tmp_path, monkeypatch, capsys):
    store = tmp_path / "slurm-runs"
    monkeypatch.setattr(sys, "argv", ["main.py", "--workdir", str(store), "--slurm", "8", "--config.seed=3"])
    sweeps.run(sweep_of((("seed", (0, 1)),)), str(store), slurm=8)
    out = capsys.readouterr().out
    assert f"main.py --workdir {store} --slurm 8 --config.seed=3 --slurm=0\n" in out
    (logs,) = re.findall(r"--output=(.*)/slurm-%A_%a.log", out)
    assert Path(logs).is_dir()


@pytest.mark.slow
def test_a_slurm_array_and_what_is_done_is_not_done_again(undisturbed, begin, variables, tmp_path):
    """The script's tasks are the command: one that is run looks after the sweep."""
    workdir, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*.json*")}
    out, _ = finish(begin(workdir, "--slurm=3"))
    assert "#SBATCH --array=1-3" in out
    (tmp_path / "array.sh").write_text(out)
    (tmp_path / "srun").write_text('#!/bin/sh\nshift\nexec "$@"\n')  # srun --ntasks=1 COMMAND
    (tmp_path / "srun").chmod(0o755)
    variables = environment(PATH=f"{tmp_path}:{os.environ['PATH']}", **variables)
    command = ["bash", str(tmp_path / "array.sh")]
    pipe = subprocess.PIPE
    out, _ = finish(subprocess.Popen(command, env=variables, stdout=pipe, stderr=pipe, text=True))
    assert "0.3, 0.0" in out
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*.json*")} == before


@pytest.mark.slow
def test_killed_at_once_it_leaves_no_process_behind(begin, tmp_path):
    """What looks at the data, before there are workers, would wait for more to do for ever."""
    process = begin(tmp_path / "runs")
    children = lambda: _children(process.pid)  # noqa: E731
    wait_for(lambda: any("spawn_main" in command for command in children().values()), process)
    left = children().keys()
    process.kill()
    process.communicate()
    end = time.monotonic() + 300
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in left):
        assert time.monotonic() < end
        time.sleep(0.1)


def _children(parent):
    """Process number -> command line."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(file.read_text().rpartition(")")[2].split()[1]) == parent:
                found[int(file.parent.name)] = (file.parent / "cmdline").read_text()
    return found


@pytest.mark.slow
def test_killed_while_two_work_together(undisturbed, begin, tmp_path):
    """Two commands, three workers; one command is killed with its worker, the other finishes."""
    first, second = begin(tmp_path, "--config.sweep.workers=2"), begin(tmp_path)
    lines = lambda: sum(f.read_text().count("\n") for f in tmp_path.glob("*/metrics.jsonl"))  # noqa: E731
    wait_for(lambda: lines() >= 2, first, second)
    first.kill()  # its workers notice that nobody looks after them
    first.communicate()
    finish(second)
    assert outcome(tmp_path) == outcome(undisturbed[0])
    assert not list(tmp_path.rglob("*.tmp"))
    for file in tmp_path.glob("*/metrics.jsonl"):
        assert [json.loads(line)["epoch"] for line in file.read_text().splitlines()] == [1, 2]


@pytest.mark.slow
def test_asked_to_stop(undisturbed, begin, tmp_path):
    process = begin(tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/metrics.jsonl")), process)
    process.send_signal(signal.SIGTERM)
    _, err = finish(process, status=143)
    assert err.strip().endswith("the same command goes on with what is not done")
    assert not list(tmp_path.glob("*/*.tmp"))
    finish(begin(tmp_path))
    assert outcome(tmp_path) == outcome(undisturbed[0])


@pytest.mark.slow
def test_a_worker_whose_log_is_on_the_full_disk(tmp_path, monkeypatch):
    """It cannot say why it ended; its exit status is that of a full disk all the same."""
    command = [sys.executable, "-m", "poison_jax.worker", str(tmp_path), "nosuch"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=full, check=False, timeout=300)
    assert done.returncode == 2
    log = tmp_path / "worker-1.log"
    log.write_text("  epoch   3/4\n")
    assert processes._last_line(log) == "  epoch   3/4".strip()
    monkeypatch.setattr(processes.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0))
    assert processes._last_line(log) == f"no space is left for its log, {log}: free some"
    log.write_text("error: no\n")
    assert processes._last_line(log) == "no"


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(("dies", "words"), [(True, "looks at the data was killed"), (False, "nosuch")])
def test_what_a_process_finds_wrong_with_the_data_is_said_here(tmp_path, monkeypatch, dies, words):
    if dies:
        monkeypatch.setattr(sweep, "_set_up", killed)
    with pytest.raises(UserError, match=words):
        sweeps.run(sweep_of((), data__name="nosuch"), str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_ray_tasks(undisturbed, begin, tmp_path):
    pytest.importorskip("ray")
    out, _ = finish(begin(tmp_path, "--config.sweep.engine=ray"))
    assert "3/3 done, 0 running, 0 failed" in out
    assert outcome(tmp_path) == outcome(undisturbed[0])


@pytest.mark.slow
def test_a_cluster_that_has_no_such_node(begin, tmp_path):
    pytest.importorskip("ray")
    _, err = finish(begin(tmp_path, "--config.sweep.engine=ray", "--config.sweep.gpus=64"), status=2)
    assert "no node of the Ray cluster has" in err
    assert len(err.splitlines()) == 1
