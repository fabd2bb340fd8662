"""A run that was killed and started again ends where an undisturbed one does, bit for bit."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from poison_jax.runs.store import Run
from tests.program import finish, start

pytestmark = pytest.mark.slow

COMMAND = [
    "main.py",
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
def begin(tmp_path_factory):
    """The command in a folder of its own; a compilation cache makes starting again quick."""
    cache = tmp_path_factory.mktemp("xla")
    return lambda workdir, *more: start(
        [*COMMAND, f"--workdir={workdir}", *more], JAX_COMPILATION_CACHE_DIR=str(cache)
    )


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
def undisturbed(tmp_path_factory, begin):
    workdir = tmp_path_factory.mktemp("undisturbed")
    finish(begin(workdir))
    return outcome(workdir)


def stop(begin, workdir, number, moment):
    """Starts the command and sends it a signal at a moment; the ended process, and what it said on stderr."""
    process = begin(workdir)
    while not moment():
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    return process, err


def epochs(workdir):
    """How many are on record."""
    return sum(file.read_text().count("\n") for file in Path(workdir).glob("*/metrics.jsonl"))


def test_killed_at_several_moments(tmp_path, begin, undisturbed):
    """Before the first epoch, while a checkpoint is written, in an epoch; then the newest one is cut off.

    In a folder whose name no pattern or format string survives.
    """
    workdir = tmp_path / "läufe [x] *? {a} #50%\\b **"
    moments = [
        lambda: any(workdir.glob("*/config.json")),
        lambda: any(workdir.glob("*/checkpoints/*tmp*")),
        lambda: epochs(workdir) >= 4,
    ]
    for moment in moments:
        stop(begin, workdir, signal.SIGKILL, moment)
    newest = max((the_run(workdir) / "checkpoints").glob("[0-9]*[0-9]"), key=lambda p: int(p.name))
    largest = max((f for f in (newest / "state").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 3)
    process = begin(workdir)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0
    assert err.startswith(f"warning: checkpoint {newest.name}")
    assert len(err.splitlines()) == 1, err
    assert "resumed at epoch" in out
    assert outcome(workdir) == undisturbed


def test_asked_to_stop(tmp_path, begin, undisturbed):
    for number, done in ((signal.SIGTERM, 2), (signal.SIGINT, 3)):
        process, err = stop(begin, tmp_path, number, lambda done=done: epochs(tmp_path) >= done)
        assert process.returncode == 143
        assert "the same command goes on" in err
        assert "Traceback" not in err
    finish(begin(tmp_path))
    assert outcome(tmp_path) == undisturbed


def test_diverged_run_ends_in_one_line(tmp_path, begin):
    process = begin(tmp_path, "--config.train.learning_rate=1e30")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert len(err.splitlines()) == 1
    assert "not finite" in err
    assert not list(tmp_path.glob("*/result.json"))
