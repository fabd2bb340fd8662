"""A run that was killed and started again ends where an undisturbed one does, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK

from poison_jax.runs.store import Run

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

COMMAND = [
    sys.executable,
    str(ROOT / "main.py"),
    "--config.experiment=train",
    "--config.penalty.kappa=20.0",
    "--config.model.width=4",
    "--config.train.epochs=6",
    "--config.train.batch_size=32",
    "--config.data.n_train=640",
    "--config.spectrum.num_iters=5",
    "--config.spectrum.num_examples=64",
]


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    """One device, and a compilation cache so that starting again is quick."""
    cache = tmp_path_factory.mktemp("xla")
    return os.environ | {
        "XLA_FLAGS": QUICK,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(workdir, env, *more):
    return subprocess.Popen(
        [*COMMAND, "--workdir", str(workdir), *more],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def the_run(workdir):
    (run,) = Path(workdir).iterdir()
    return run


def outcome(workdir):
    """Whatever must not depend on how often the run was killed."""
    run = the_run(workdir)
    result = Run(run).result()
    newest = max((run / "checkpoints").iterdir(), key=lambda p: int(p.name))
    note = json.loads((newest / "note" / "metadata").read_text())
    with np.load(run / "spectrum.npz") as spectrum:
        arrays = {name: spectrum[name].tobytes() for name in spectrum.files}
    result.pop("wall_seconds")
    return note["digest"], (run / "metrics.jsonl").read_text(), arrays, result


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, env):
    workdir = tmp_path_factory.mktemp("undisturbed")
    finish(start(workdir, env))
    return outcome(workdir)


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)


def lines(workdir):
    """Epochs on record so far."""
    return sum(file.read_text().count("\n") for file in Path(workdir).glob("*/metrics.jsonl"))


def test_killed_at_several_moments(tmp_path, env, undisturbed):
    """Before the first epoch, in the middle of an epoch, and the moment a checkpoint is being written."""
    moments = [
        lambda: the_run_exists(tmp_path),
        lambda: lines(tmp_path) >= 1,
        lambda: any(tmp_path.glob("*/checkpoints/*tmp*")),
        lambda: lines(tmp_path) >= 4,
    ]
    for moment in moments:
        process = start(tmp_path, env)
        wait_for(moment, process)
        process.kill()
        process.communicate()
    out = finish(start(tmp_path, env))
    assert "resumed at epoch" in out
    assert outcome(tmp_path) == undisturbed


def the_run_exists(workdir):
    return any(Path(workdir).glob("*/config.json"))


def test_asked_to_stop(tmp_path, env, undisturbed):
    for epochs, number in enumerate([signal.SIGTERM, signal.SIGINT], start=2):
        process = start(tmp_path, env)
        wait_for(lambda epochs=epochs: lines(tmp_path) >= epochs, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 143
        assert "the same command goes on" in err
        assert "Traceback" not in err
    finish(start(tmp_path, env))
    assert outcome(tmp_path) == undisturbed


@pytest.mark.parametrize("name", ["läufe [x] *? {a} #50%\\b **"], ids=ascii)
def test_in_a_folder_of_any_name(tmp_path, env, undisturbed, name):
    workdir = tmp_path / name
    process = start(workdir, env)
    wait_for(lambda: lines(workdir) >= 2, process)
    process.kill()
    process.communicate()
    assert "resumed at epoch" in finish(start(workdir, env))
    assert outcome(workdir) == undisturbed


def test_a_truncated_checkpoint_falls_back_to_the_one_before(tmp_path, env, undisturbed):
    process = start(tmp_path, env)
    wait_for(lambda: lines(tmp_path) >= 4, process)
    process.kill()
    process.communicate()
    newest = max((the_run(tmp_path) / "checkpoints").glob("[0-9]*[0-9]"), key=lambda p: int(p.name))
    largest = max((f for f in (newest / "state").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 3)
    process = start(tmp_path, env)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0
    assert err.startswith(f"warning: checkpoint {newest.name}")
    assert len(err.splitlines()) == 1, err
    assert "resumed at epoch" in out
    assert outcome(tmp_path) == undisturbed


def test_diverged_run_keeps_the_last_good_checkpoint(tmp_path, env):
    process = start(tmp_path, env, "--config.train.learning_rate=1e30")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert len(err.splitlines()) == 1
    assert "not finite" in err
    assert not list(tmp_path.glob("*/result.json"))
