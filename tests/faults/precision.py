"""Numbers that hold: in float32, float64 and bfloat16, on 1, 2, 8 devices, in two processes, in any batches.

Every run goes through `main.py` and is judged by what it leaves. Where the order of sums is the same the bits
must be; elsewhere rounding may differ, and training spreads it: a tame learning rate keeps that within the
bounds, which are ten times and more what was measured when they were written.
"""

import socket
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from poison_jax.runs.store import Run
from tests.faults import runs
from tests.faults.chapter import TINY, Chapter, flags, output, unlike_one_line
from tests.program import start
from tests.toys import restored

SHORT = 60  # seconds, below which only the first of the comparisons are made
SETTING = TINY | {
    "data.n_train": 320,
    "data.n_test": 96,
    "poison.fraction": 0.3,
    "penalty.kappa": 3.0,
    "train.epochs": 4,
    "train.learning_rate": 0.01,
    "spectrum.num_iters": 20,
    "spectrum.num_examples": 64,
    "analysis.features": 0,
}
X64 = {"JAX_ENABLE_X64": "1"}


class Bounds(NamedTuple):
    """How far apart two runs may be."""

    params: float  # norm of the difference, over the norm
    loss: float  # of any epoch, relative
    rates: float  # accuracies and success rates, absolute
    eigenvalues: float  # relative to the first
    overlap: float  # of the first eigenvector, absolute


SUMS = Bounds(1e-6, 1e-6, 0, 1e-5, 1e-5)  # in another order
# Against float64: parameters are 9e-8 apart for fourteen steps; then the difference leaps, as where an
# activation falls on the other side of a ReLU, and ends at 1.5e-5.
FLOAT32 = Bounds(3e-4, 1e-4, 0.02, 0.01, 0.01)
BFLOAT16 = Bounds(0.02, 0.003, 0.05, 0.15, 0.15)  # against float32


def run(chapter: Chapter) -> None:
    """The same training in every setting, against float32 on one device."""
    single = _trained(chapter, "float32")
    _same(chapter, "the same command again", single, _trained(chapter, "again"))
    double = _trained(chapter, "float64", {"model.dtype": "float64"}, **X64)
    _compare(chapter, "float32 against float64", double, single, FLOAT32)
    _diverges(chapter, {"penalty.kappa": 1e38})
    if chapter.seconds < SHORT:
        return
    for changes in ({"penalty.kappa": 1e30}, {"train.learning_rate": 1e30}):
        _diverges(chapter, changes)
    _diverges_later(chapter)
    half = _trained(chapter, "bfloat16", {"model.dtype": "bfloat16"})
    _compare(chapter, "bfloat16", single, half, BFLOAT16)
    _compare(chapter, "float32 with x64 enabled", single, _trained(chapter, "enabled", **X64), SUMS)
    two = _trained(chapter, "2 devices", devices=2)
    _compare(chapter, "2 devices", single, two, SUMS)
    _compare(chapter, "8 devices", single, _trained(chapter, "8 devices", devices=8), SUMS)
    _same(chapter, "two processes, against one with 2 devices", two, _by_two_processes(chapter))
    batches = _trained(chapter, "batches", {"spectrum.batch_size": 48})
    _compare(chapter, "another batch size of the spectrum", single, batches, SUMS._replace(params=0, loss=0))


def _trained(
    chapter: Chapter, name: str, changes: dict[str, Any] | None = None, devices: int = 1, **variables: str
) -> Run | None:
    """The setting, changed, through the command line, in a folder of its own; None where it failed."""
    workdir = chapter.folder / name.replace(" ", "-")
    return _ended(chapter, name, workdir, [start(_command(workdir, changes), devices, **variables)])


def _by_two_processes(chapter: Chapter) -> Run | None:
    """The same by two processes that meet on this machine."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        address = f"localhost:{listener.getsockname()[1]}"
    workdir = chapter.folder / "processes"
    command = [*_command(workdir), f"--coordinator={address}", "--num_processes=2"]
    processes = [start([*command, f"--process_id={i}"]) for i in range(2)]
    return _ended(chapter, "two processes", workdir, processes)


def _ended(chapter: Chapter, name: str, workdir: Path, processes: list[subprocess.Popen]) -> Run | None:
    said = [output(process)[1] for process in processes]
    chapter.count("trainings")
    for process, err in zip(processes, said, strict=True):
        if not chapter.check(process.returncode == 0, f"{name}: {err[-500:]!r}"):
            return None
    return Run(runs.the_run(workdir))


def _command(workdir: Path, changes: dict[str, Any] | None = None) -> list[str]:
    return ["main.py", f"--workdir={workdir}", *flags(SETTING | (changes or {}))]


def _params(run: Run) -> list[np.ndarray]:
    """The parameters in a run's newest checkpoint, whatever its precision."""
    with jax.enable_x64(run.config()["model"]["dtype"] == "float64"):
        _, state = restored(run)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]


def _same(chapter: Chapter, what: str, one: Run | None, other: Run | None) -> None:
    """Checks that two runs left the same bits, pictures aside."""
    if one is None or other is None:  # said already
        return
    found, wanted = runs.outcome(other.path), runs.outcome(one.path)
    pictures = {name for name in found.keys() | wanted.keys() if name.endswith((".png", ".pdf"))}
    unlike = [name for name in wanted.keys() | found.keys() if found.get(name) != wanted.get(name)]
    said = ", ".join(sorted(set(unlike) - pictures))
    chapter.check(not said, f"{what}: other bits in {said}")
    chapter.measured[what] = f"other bits in {said}" if said else "the same bits"


def _compare(chapter: Chapter, what: str, one: Run | None, other: Run | None, bounds: Bounds) -> None:
    """Measures how far apart two runs are; fails where that is more than they may be."""
    if one is None or other is None:
        return
    first, second = one.result(), other.result()
    found = Bounds(
        params=_apart(_params(one), _params(other)),
        loss=max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(one.metrics(), other.metrics(), strict=True)),
        rates=max(abs(first[rate] - second[rate]) for rate in ("clean_accuracy", "asr")),
        eigenvalues=float(
            np.abs(np.subtract(first["eigenvalues"], second["eigenvalues"])).max()
            / abs(first["eigenvalues"][0])
        ),
        overlap=abs(first["overlap"][0] - second["overlap"][0]),
    )
    for name, value, bound in zip(Bounds._fields, found, bounds, strict=True):
        chapter.measured[f"{what}: {name}"] = f"{value:.1e}"
        chapter.check(value <= bound, f"{what}: {name} differ by {value:.2g}, more than {bound:g}")


def _apart(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    one, other = (np.concatenate([leaf.ravel().astype(float) for leaf in leaves]) for leaves in (one, other))
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


def _diverges(chapter: Chapter, changes: dict[str, Any]) -> Run | None:
    """Training that overflows is stopped in one line, and leaves neither a result nor weights of NaN."""
    what = ", ".join(f"{key} = {value:g}" for key, value in changes.items())
    workdir = chapter.folder / what.replace(" ", "").replace(",", "-")
    process = start(_command(workdir, changes))
    _, err = output(process)
    chapter.count("trainings that overflow")
    if problem := unlike_one_line(process.returncode, err):
        chapter.fail(f"{what}: {problem}")
        return None
    chapter.check("not finite" in err, f"{what}: does not say what is not finite: {err!r}")
    run = Run(runs.the_run(workdir))
    chapter.check(not run.done, f"{what}: there is a result")
    chapter.check(all(np.isfinite(row["loss"]) for row in run.metrics()), f"{what}: there are metrics of NaN")
    if any(run.checkpoints.glob("[0-9]*")):
        finite = all(np.isfinite(leaf).all() for leaf in _params(run))
        chapter.check(finite, f"{what}: the last checkpoint is not finite")
        chapter.count("checkpoints before an overflow")
    return run


def _diverges_later(chapter: Chapter) -> None:
    """A learning rate that leaps after the first epoch: the overflow comes when there is a checkpoint."""
    run = _diverges(chapter, {"train.decay_factor": 1e15, "train.decay_times": 3})
    if run is not None and chapter.check(bool(run.metrics()), "no epoch was whole before a late overflow"):
        chapter.measured["epochs before a late overflow"] = len(run.metrics())
