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

from poison_jax import evaluate
from poison_jax.runs.store import Run
from tests.faults.chapter import QUICK, Chapter, ended_in_one_line, start
from tests.toys import restored

SHORT = 60  # seconds, below which only the first of the comparisons are made
LASTS = 600  # seconds after which a process hangs
SETTING = {
    "experiment": "train",
    "data.n_train": 320,
    "data.n_test": 96,
    "model.depth": 8,
    "model.width": 4,
    "poison.fraction": 0.3,
    "penalty.kappa": 3.0,
    "train.epochs": 4,
    "train.batch_size": 32,
    "train.learning_rate": 0.01,
    "spectrum.k": 2,
    "spectrum.num_iters": 20,
    "spectrum.num_examples": 64,
    "spectrum.batch_size": 32,
    "analysis.features": 0,
}
X64 = {"JAX_ENABLE_X64": "1"}


class Outcome(NamedTuple):
    """What a run leaves, less what tells of time."""

    params: list[np.ndarray]
    rows: list[dict[str, float]]
    arrays: dict[str, np.ndarray]
    result: dict[str, Any]


class Bounds(NamedTuple):
    """How far apart two runs may be."""

    params: float  # norm of the difference, over the norm
    loss: float  # of any epoch, relative
    rates: float  # accuracies and success rates, absolute
    eigenvalues: float  # relative to the first
    overlap: float  # of the first eigenvector, absolute


SAME = Bounds(0, 0, 0, 0, 0)
SUMS = Bounds(1e-6, 1e-6, 0, 1e-5, 1e-5)  # in another order
# Against float64: parameters are 9e-8 apart for fourteen steps; then the difference leaps, as where an
# activation falls on the other side of a ReLU, and ends at 1.5e-5.
FLOAT32 = Bounds(3e-4, 1e-4, 0.02, 0.01, 0.01)
BFLOAT16 = Bounds(0.02, 0.003, 0.05, 0.15, 0.15)  # against float32


def run(chapter: Chapter) -> None:
    """The same training in every setting, against float32 on one device."""
    trained = _Trained(chapter)
    single = trained("float32")
    _compare(chapter, "the same command again", single, trained("again"), SAME)
    _compare(
        chapter,
        "float32 against float64",
        trained("float64", {"model.dtype": "float64"}, **X64),
        single,
        FLOAT32,
    )
    _diverges(chapter, {"penalty.kappa": 1e38})
    if chapter.seconds < SHORT:
        return
    for changes in ({"penalty.kappa": 1e30}, {"train.learning_rate": 1e30}):
        _diverges(chapter, changes)
    _diverges_later(chapter)
    _needs_x64(chapter)
    _compare(chapter, "bfloat16", single, trained("bfloat16", {"model.dtype": "bfloat16"}), BFLOAT16)
    _compare(chapter, "float32 with x64 enabled", single, trained("enabled", **X64), SUMS)
    two = trained("2 devices", XLA_FLAGS=_devices(2))
    _compare(chapter, "2 devices", single, two, SUMS)
    _compare(chapter, "8 devices", single, trained("8 devices", XLA_FLAGS=_devices(8)), SUMS)
    _compare(chapter, "two processes, against one with 2 devices", two, trained.by_two("processes"), SAME)
    batches = trained("batches", {"spectrum.batch_size": 48})
    _compare(chapter, "another batch size of the spectrum", single, batches, SUMS._replace(params=0, loss=0))
    _evaluation(chapter)


class _Trained:
    """Runs the setting through the command line, each time in a folder of its own."""

    def __init__(self, chapter: Chapter):
        self._chapter = chapter

    def __call__(self, name: str, changes: dict[str, Any] = {}, **variables: str) -> Outcome | None:  # noqa: B006
        workdir = self._chapter.folder / name.replace(" ", "-")
        process = start(_command(workdir, changes), **variables)
        return self._outcome(name, workdir, [process])

    def by_two(self, name: str) -> Outcome | None:
        """As two processes that meet on this machine."""
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            address = f"localhost:{listener.getsockname()[1]}"
        workdir = self._chapter.folder / name
        command = [*_command(workdir), f"--coordinator={address}", "--num_processes=2"]
        processes = [start([*command, f"--process_id={i}"], XLA_FLAGS=_devices(1)) for i in range(2)]
        return self._outcome(name, workdir, processes)

    def _outcome(self, name: str, workdir: Path, processes: list[subprocess.Popen]) -> Outcome | None:
        said = [_ended(process) for process in processes]
        self._chapter.count("trainings")
        for process, err in zip(processes, said, strict=True):
            if not self._chapter.check(process.returncode == 0, f"{name}: {err[-500:]!r}"):
                return None
        (path,) = [path.parent for path in workdir.glob("*/result.json")]
        run = Run(path)
        result = {key: value for key, value in run.result().items() if key != "wall_seconds"}
        return Outcome(_params(run), run.metrics(), run.arrays("spectrum"), result)


def _command(workdir: Path, changes: dict[str, Any] = {}) -> list[str]:  # noqa: B006
    keys = [f"--config.{key}={value}" for key, value in (SETTING | changes).items()]
    return ["main.py", f"--workdir={workdir}", *keys]


def _devices(count: int) -> str:
    return f"{QUICK} --xla_force_host_platform_device_count={count}"


def _ended(process: subprocess.Popen) -> str:
    """What a process said on stderr; killed if it hangs."""
    try:
        return process.communicate(timeout=LASTS)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return "it hung: " + process.communicate()[1]


def _params(run: Run) -> list[np.ndarray]:
    """The parameters in a run's newest checkpoint, whatever its precision."""
    double = run.config()["model"]["dtype"] == "float64"
    with jax.enable_x64(double):
        _, state = restored(run)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]


def _compare(chapter: Chapter, what: str, one: Outcome | None, other: Outcome | None, bounds: Bounds) -> None:
    """Measures how far apart two runs are; fails where that is more than they may be."""
    if one is None or other is None:  # said already
        return
    if bounds == SAME:
        parts = {
            "parameters": _same(one.params, other.params),
            "metrics": one.rows == other.rows,
            "arrays": one.arrays.keys() == other.arrays.keys()
            and _same(one.arrays.values(), other.arrays.values()),
            "result": one.result == other.result,
        }
        unlike = [name for name, same in parts.items() if not same]
        chapter.check(not unlike, f"{what}: other bits in {', '.join(unlike)}")
        chapter.measured[what] = f"other bits in {', '.join(unlike)}" if unlike else "the same bits"
        return
    found = Bounds(
        params=_apart(one.params, other.params),
        loss=max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(one.rows, other.rows, strict=True)),
        rates=max(abs(one.result[rate] - other.result[rate]) for rate in ("clean_accuracy", "asr")),
        eigenvalues=float(
            np.abs(np.subtract(one.result["eigenvalues"], other.result["eigenvalues"])).max()
            / abs(one.result["eigenvalues"][0])
        ),
        overlap=abs(one.result["overlap"][0] - other.result["overlap"][0]),
    )
    for name, value, bound in zip(Bounds._fields, found, bounds, strict=True):
        chapter.measured[f"{what}: {name}"] = f"{value:.1e}"
        chapter.check(value <= bound, f"{what}: {name} differ by {value:.2g}, more than {bound:g}")


def _same(one, other) -> bool:
    return all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in zip(one, other, strict=True)
    )


def _apart(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    one, other = (np.concatenate([leaf.ravel().astype(float) for leaf in leaves]) for leaves in (one, other))
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


# --- what is not finite ---------------------------------------------------------------------------


def _diverges(chapter: Chapter, changes: dict[str, Any]) -> Run | None:
    """Training that overflows is stopped in one line, and leaves neither a result nor weights of NaN."""
    what = ", ".join(f"{key} = {value:g}" for key, value in changes.items())
    workdir = chapter.folder / what.replace(" ", "").replace(",", "-")
    process = start(_command(workdir, changes))
    err = _ended(process)
    chapter.count("trainings that overflow")
    if problem := ended_in_one_line(process, err):
        chapter.fail(f"{what}: {problem}")
        return None
    chapter.check("not finite" in err, f"{what}: does not say what is not finite: {err!r}")
    (path,) = [path.parent for path in workdir.glob("*/config.json")]
    run = Run(path)
    chapter.check(not run.done, f"{what}: there is a result")
    chapter.check(all(np.isfinite(row["loss"]) for row in run.metrics()), f"{what}: there are metrics of NaN")
    if any(run.checkpoints.glob("[0-9]*")):
        finite = all(np.isfinite(leaf).all() for leaf in _params(run))
        chapter.check(finite, f"{what}: the last checkpoint is not finite")
        chapter.count("checkpoints before an overflow")
    return run


def _diverges_later(chapter: Chapter) -> None:
    """A learning rate that leaps after the first epoch: the overflow comes when there is a checkpoint."""
    changes = {"train.decay_factor": 1e15, "train.decay_times": 3}
    run = _diverges(chapter, changes)
    if run is not None and chapter.check(bool(run.metrics()), "no epoch was whole before a late overflow"):
        chapter.measured["epochs before a late overflow"] = len(run.metrics())


def _needs_x64(chapter: Chapter) -> None:
    process = start(_command(chapter.folder / "x64", {"model.dtype": "float64"}))
    err = _ended(process)
    problem = ended_in_one_line(process, err)
    chapter.check(not problem and "JAX_ENABLE_X64=1" in err, f"float64 without x64: {problem or err}")
    chapter.check(not (chapter.folder / "x64").exists(), "float64 without x64 leaves a directory")


# --- evaluation -----------------------------------------------------------------------------------


def _evaluation(chapter: Chapter) -> None:
    """Logits of one network in batches of several sizes, a ragged last one among them."""
    (path,) = (chapter.folder / "float32").glob("*/")
    made, state = restored(Run(path))
    whole, *others = (
        np.stack(
            evaluate.predict(state.variables, made.test_set.images, made.knobs, made.program, batch_size=size)
        )
        for size in (96, 32, 7)
    )
    apart = max(float(np.abs(logits - whole).max() / np.abs(whole).max()) for logits in others)
    chapter.measured["logits in batches of 7, 32 and 96"] = f"{apart:.1e} apart"
    chapter.check(apart < 1e-5, f"logits in other batches differ by {apart:.2g}")
