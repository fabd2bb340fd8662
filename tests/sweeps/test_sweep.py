"""Sweeps as a person starts them: processes that work together, are killed, fail, and go on."""

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

import pytest
from conftest import QUICK

from poison_jax import config as config_lib
from poison_jax.errors import UserError
from poison_jax.runs.store import Run
from poison_jax.sweeps import inputs, processes, sweep

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
TINY = (
    "--config=configs/sweeps/fig06.py:small",
    "--config.sweep.name=toy",
    "--config.data.name=digits",
    "--config.data.n_train=256",
    "--config.data.n_test=100",
    "--config.model.width=4",
    "--config.poison.margin=1",
    "--config.train.epochs=3",
    "--config.spectrum.k=2",
    "--config.spectrum.num_iters=4",
    "--config.spectrum.num_examples=32",
    "--config.analysis.features=0",
)


def grids(text):
    return f"--config.sweep.grids={text}"


FOUR = grids("((('poison.fraction',(0.1,0.3)),('penalty.kappa',(0.0,5.0))),)")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return os.environ | {"XLA_FLAGS": QUICK, "JAX_PLATFORMS": "cpu", "POISON_JAX_CACHE": str(cache)}


@pytest.fixture(scope="module")
def start(environment):
    def start(workdir, *more):
        command = [sys.executable, "-u", "main.py", f"--workdir={workdir}", *TINY, *more]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)

    return start


def finish(process, status=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, out + err
    assert "Traceback" not in err
    return out, err


def runs(workdir):
    return {path.name: path for path in sorted(workdir.iterdir()) if (path / "config.json").exists()}


def outcome(workdir):
    """Whatever must not depend on how the sweep was done."""
    found = {}
    for name, path in runs(workdir).items():
        result = Run(path).result()
        del result["wall_seconds"]
        found[name] = result, (path / "metrics.jsonl").read_text()
    return found


def wait_for(condition, *processes):
    while not condition():
        for process in processes:
            assert process.poll() is None, ("ended too early", process.returncode, *process.communicate())
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, start):
    workdir = tmp_path_factory.mktemp("undisturbed")
    out, _ = finish(start(workdir, FOUR))
    return workdir, out


def test_all_cells_are_done_and_shown(undisturbed):
    workdir, out = undisturbed
    assert len(runs(workdir)) == 4
    assert "4/4 done, 0 running, 0 failed" in out
    assert re.search(r"┃ theta, kappa ┃ .* ┃ +clean accuracy ┃", out)
    for cell in ("0.1, 0.0", "0.3, 5.0"):
        assert re.search(rf"│ {cell} .*%.*%", out), cell
    log = (workdir / "sweeps" / "toy" / "worker-1.log").read_text()
    assert log.count("epoch   3/3") == 4


def test_what_is_done_is_not_done_again(undisturbed, start):
    workdir, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*.json*")}
    out, _ = finish(start(workdir, FOUR))
    assert "0.3, 5.0" in out
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*.json*")} == before


def test_what_is_stored_is_not_done_again(undisturbed, start, environment, tmp_path):
    """A grid goes on, on another machine, from the lines that were kept of it."""
    records_of = [sys.executable, "-m", "poison_jax.records", f"--out={tmp_path / 'lines'}"]
    subprocess.run([*records_of, f"--runs={undisturbed[0]}"], cwd=ROOT, env=environment, check=True)
    file = tmp_path / "lines" / "toy.jsonl"
    whole = file.read_text().splitlines(keepends=True)
    file.write_text("".join(whole[:2]))
    out, _ = finish(start(tmp_path / "runs", FOUR, f"--results={file.parent}", "--dry_run"))
    assert "to do: 2 cells" in out
    out, _ = finish(start(tmp_path / "runs", FOUR, f"--results={file.parent}"))
    assert len(runs(tmp_path / "runs")) == 2
    assert "4/4 done, 0 running, 0 failed" in out
    assert len(set(re.findall(r"│ (0\.\d+, \S+)", out))) == 4  # rows, whose columns may be folded
    subprocess.run([*records_of, f"--runs={tmp_path / 'runs'}"], cwd=ROOT, env=environment, check=True)
    again = file.read_text().splitlines(keepends=True)
    assert again[:2] == whole[:2]
    assert len(again) == 4


def test_killed_at_once_it_leaves_no_process_behind(start, tmp_path):
    """What looks at the data, before there are workers, would wait for more to do for ever."""
    process = start(tmp_path / "runs", FOUR)
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


def test_killed_while_two_work_together(undisturbed, start, tmp_path):
    """Two commands, three workers; one command is killed with its worker, the other finishes."""
    first, second = start(tmp_path, FOUR, "--config.sweep.workers=2"), start(tmp_path, FOUR)
    lines = lambda: sum(f.read_text().count("\n") for f in tmp_path.glob("*/metrics.jsonl"))  # noqa: E731
    wait_for(lambda: lines() >= 2, first, second)
    first.kill()  # its workers notice that nobody looks after them
    first.communicate()
    finish(second)
    assert outcome(tmp_path) == outcome(undisturbed[0])
    assert not list(tmp_path.rglob("*.tmp"))
    for path in runs(tmp_path).values():
        epochs = [json.loads(line)["epoch"] for line in (path / "metrics.jsonl").read_text().splitlines()]
        assert epochs == [1, 2, 3]


def test_asked_to_stop(undisturbed, start, tmp_path):
    process = start(tmp_path, FOUR)
    wait_for(lambda: list(tmp_path.glob("*/metrics.jsonl")), process)
    process.send_signal(signal.SIGTERM)
    _, err = finish(process, status=143)
    assert err.strip().endswith("the same command goes on with what is not done")
    assert not list(tmp_path.glob("*/*.tmp"))
    finish(start(tmp_path, FOUR))
    assert outcome(tmp_path) == outcome(undisturbed[0])


def test_cells_that_fail_are_listed_and_retried(start, tmp_path):
    rates = grids("((('train.learning_rate',(0.05,1e30)),),)")
    out, err = finish(start(tmp_path, rates), status=1)
    assert "1/2 done, 0 running, 1 failed" in out
    assert re.search(r"warning: learning_rate 1e\+30 \(cifar10-\w+@\w+\): .*not finite", err)
    assert "1 of 2 cells failed" in err
    log = tmp_path / "sweeps" / "toy" / "worker-1.log"
    before = log.read_text()
    finish(start(tmp_path, rates), status=1)  # not again by itself
    assert log.read_text() == before
    finish(start(tmp_path, rates, "--retry"), status=1)
    assert log.read_text().count("not finite") == 2 * before.count("not finite") > 0


def test_a_worker_that_cannot_work_ends_the_sweep(tmp_path, monkeypatch):
    """Instead of being started again and again."""
    config = config_lib.default()
    config.experiment, config.sweep.of, config.sweep.grids = "sweep", "mnist_linear", ((),)
    monkeypatch.setattr(processes.sys, "executable", shutil.which("false"))
    with pytest.raises(UserError, match="worker 1: no reason given"):
        sweep.run(config, str(tmp_path))


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


def test_whoever_looks_at_the_data_is_killed(tmp_path, monkeypatch):
    config = config_lib.default()
    config.experiment, config.sweep.of, config.sweep.grids = "sweep", "train", ((),)
    monkeypatch.setattr(inputs, "_set_up", killed)
    with pytest.raises(UserError, match="looks at the data was killed"):
        sweep.run(config, str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([grids("()")], "sweep.grids is empty"),
        ([grids("((('poison.fracton',(0.1,)),),)")], "did you mean 'poison.fraction'"),
        (["--config.poison.target=10"], "classes 0 to 9"),
        (["--config.data.name=nosuch"], "nosuch"),
        (["--config.sweep.workers=0"], "sweep.workers"),
        (["--slurm=-1"], "--slurm = -1"),
        (["--tensorboard"], "--tensorboard"),
    ],
)
def test_bad_input(start, tmp_path, more, words):
    _, err = finish(start(tmp_path / "runs", *more), status=2)
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("damage", ["other cells", "newer"])
def test_a_store_that_does_not_fit(undisturbed, start, tmp_path, damage):
    workdir = tmp_path / "runs"
    shutil.copytree(undisturbed[0], workdir)
    file, grid, words = workdir / "sweeps" / "toy.json", FOUR, "update poison_jax"
    if damage == "other cells":
        grid, words = grids("((('seed',(0,1)),),)"), "choose another sweep.name"
    else:
        file.write_text(file.read_text().replace('"format": 1', '"format": 2'))
    before = file.read_bytes()
    _, err = finish(start(workdir, grid), status=2)
    assert words in err
    assert str(file) in err
    assert len(err.splitlines()) == 1
    assert file.read_bytes() == before


def test_a_damaged_result_is_made_again(undisturbed, start, tmp_path):
    """From the cell's last checkpoint; what was there is kept."""
    workdir = tmp_path / "runs"
    shutil.copytree(undisturbed[0], workdir)
    file = min(workdir.glob("*/result.json"))
    damaged = file.read_bytes()[:100]
    file.write_bytes(damaged)
    _, err = finish(start(workdir, FOUR))
    assert err.startswith(f"warning: {file} cannot be read")
    assert len(err.splitlines()) == 1
    assert outcome(workdir) == outcome(undisturbed[0])
    assert (file.parent / "damaged" / "result.json").read_bytes() == damaged


def test_who_looks_at_the_data_for_nobody_says_nothing(capfd):
    """The sweep was killed meanwhile."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    ours.close()
    inputs._set_up(theirs, os.getppid(), [])
    assert capfd.readouterr() == ("", "")


def test_dry_run(undisturbed, start, tmp_path):
    out, _ = finish(start(undisturbed[0], FOUR, "--dry_run"))
    assert "to do: 0 cells, 0 TFLOP" in out
    assert "median of 4 finished cells" in out
    out, _ = finish(start(tmp_path / "runs", FOUR, "--dry_run"))
    assert re.search(r"to do: 4 cells, \d.* hours on one 1 x cpu", out)
    assert not (tmp_path / "runs").exists()


def test_slurm_array(undisturbed, start, tmp_path):
    """The script's tasks are the command: one that is run does the sweep."""
    out, _ = finish(start(undisturbed[0], FOUR, "--slurm=3"))
    script, log = tmp_path / "array.sh", tmp_path / "srun"
    script.write_text(out)
    assert "#SBATCH --array=1-3" in out
    log.write_text('#!/bin/sh\nshift\nexec "$@"\n')  # srun --ntasks=1 COMMAND
    log.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "XLA_FLAGS": QUICK, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        ["bash", str(script)], capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "0.3, 5.0" in done.stdout


def test_ray_tasks(undisturbed, start, tmp_path):
    pytest.importorskip("ray")
    out, _ = finish(start(tmp_path, FOUR, "--config.sweep.engine=ray"))
    assert "4/4 done, 0 running, 0 failed" in out
    assert outcome(tmp_path) == outcome(undisturbed[0])


def test_a_cluster_that_has_no_such_node(start, tmp_path):
    pytest.importorskip("ray")
    more = ["--config.sweep.engine=ray", "--config.sweep.gpus=64"]
    _, err = finish(start(tmp_path, FOUR, *more), status=2)
    assert "no node of the Ray cluster has" in err
    assert len(err.splitlines()) == 1
