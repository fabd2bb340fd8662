"""Much data, deep networks, many epochs, large stores: what is held does not grow; times are reported."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import numpy as np

from poison_jax.experiments import views
from poison_jax.runs import files, records, store
from poison_jax.sweeps import grid
from tests.faults.chapter import TINY, Chapter, flags
from tests.program import ROOT, environment

SHORT = 150  # seconds, below which all is done at a smaller size
SETTING = TINY | {"data.n_train": 128, "data.n_test": 64, "spectrum.k": 3, "analysis.features": 0}
DEEP = {"train.batch_size": 16, "penalty.kappa": 1.0, "train.learning_rate": 0.01}
SWEEP = """
from poison_jax import config as config_lib

def get_config():
    config = config_lib.default()
    config.update_from_flattened_dict({setting})
    config.experiment, config.sweep.name, config.name = "sweep", "many", "digits"
    theta = "poison.fraction", tuple(i / 1000 for i in range(10))
    kappa = "penalty.kappa", tuple(10.0 * i for i in range(10))
    config.sweep.grids = ((("seed", tuple(range({seeds}))), theta, kappa),)
    return config
"""
# By how much what a process holds may be more at the end than early on, and for each step between.
GROWTH = {"arrays": (0, 0), "blocks": (5000, 400), "threads": (2, 0), "files": (2, 0)}


def run(chapter: Chapter) -> None:
    """A deep network, many epochs of a small one, and a sweep of 10,000 cells."""
    short = chapter.seconds < SHORT
    _store(chapter, seeds=1 if short else 100)
    _epochs(chapter, epochs=20 if short else 400)
    _deep(chapter, steps=30 if short else 100, depth=8 if short else 110)


# --- memory of training ---------------------------------------------------------------------------


def _deep(chapter: Chapter, *, steps: int, depth: int) -> None:
    """The paper's own scale: 50,000 images, PreResNet-110, with the penalty."""
    settings = DEEP | {"model.depth": depth}
    if depth < 20:  # the bottleneck's depths are 9n + 2
        settings["model.block"] = "basic"
    if not (Path(os.environ.get("TFDS_DATA_DIR", "")) / "cifar10").is_dir():
        settings["data.name"] = _random_images(chapter.folder)
    arguments = ["--config=configs/cifar10_stochastic.py", *flags(settings)]
    seen = _watched(chapter, "deep", steps, arguments, status=143, XLA_FLAGS="")
    if seen:
        _measure(chapter, f"PreResNet-{depth}, 50,000 images", seen, settled=len(seen) // 5)
        chapter.count("steps on 50,000 images", len(seen))


def _epochs(chapter: Chapter, *, epochs: int) -> None:
    """Epochs of four steps each: metrics, two evaluations and a checkpoint after every one."""
    seen = _watched(chapter, "epochs", 10**9, flags(SETTING | {"train.epochs": epochs}))
    if seen:
        _measure(chapter, f"{epochs} epochs with a checkpoint each", seen, settled=len(seen) // 5)
        chapter.count("epochs", epochs)


def _measure(chapter: Chapter, of: str, seen: list[dict], *, settled: int) -> None:
    """After `settled` steps what the process holds must not grow; both ends are seen in the same process.

    Resident memory and seconds are reported without a verdict: they are also the C library's and the other
    programs' doing. (TensorStore 0.1.86 leaks the statistics that orbax asks it for: 4 MiB in 90 epochs.)
    """
    early, late = seen[settled : 2 * settled], seen[-settled:]
    steps = len(seen) - 2 * settled
    for what, (once, each_step) in GROWTH.items():
        before, after = (max(look[what] for look in looks) for looks in (early, late))
        chapter.measured[f"{of}: {what} early on, and at the end"] = f"{before:,}, {after:,}"
        grew = after - before
        chapter.check(grew <= once + each_step * steps, f"{of}: {what} grew by {grew:,} in {steps} steps")
    seconds = (seen[-1]["seconds"] - seen[settled]["seconds"]) / (len(seen) - 1 - settled)
    chapter.measured[f"{of}: seconds a step"] = f"{seconds:.3g}"
    memory = f"{seen[settled - 1]['memory']:.0f}, {seen[-1]['memory']:.0f}"
    chapter.measured[f"{of}: resident MiB after {settled} steps, and after {len(seen)}"] = memory


def _watched(
    chapter: Chapter, name: str, steps: int, arguments: list[str], *, status: int = 0, **variables: str
) -> list[dict]:
    """What `watched` saw of a training; nothing if it ended otherwise than with `status`."""
    file = chapter.folder / f"{name}.json"
    command = ["-m", "tests.faults.watched", file, steps, *arguments, f"--workdir={chapter.folder / name}"]
    said, ended, _, _ = _timed(command, **variables)
    if not chapter.check(ended == status, f"{name}: status {ended} instead of {status}: {said[-500:]!r}"):
        return []
    return json.loads(file.read_text())


def _random_images(folder: Path) -> Path:
    """A data set of CIFAR-10's size and shape."""
    images = np.random.default_rng(0).integers(0, 256, (60_000, 32, 32, 3), np.uint8)
    labels = np.arange(60_000, dtype=np.int32) % 10
    train = {"images": images[:50_000], "labels": labels[:50_000]}
    np.savez(folder / "random.npz", **train, test_images=images[50_000:], test_labels=labels[50_000:])
    return folder / "random.npz"


# --- a large store --------------------------------------------------------------------------------


def _store(chapter: Chapter, *, seeds: int) -> None:
    """What a store of many finished cells costs whoever reads it."""
    config, runs, out = chapter.folder / "many.py", chapter.folder / "runs", chapter.folder / "out"
    setting = {key: value for key, value in SETTING.items() if key != "experiment"}
    config.write_text(SWEEP.format(setting=setting, seeds=seeds))
    began = time.monotonic()
    count = _fill(chapter, config, runs)
    if not count:
        return
    chapter.count("cells of a store", count)
    chapter.measured["seconds to make the store"] = round(time.monotonic() - began)
    sweep = ["main.py", f"--config={config}", f"--workdir={runs}"]
    commands = {
        "the sweep, all done": sweep,
        "--dry_run": [*sweep, "--dry_run"],
        "poison_jax.records": ["-m", "poison_jax.records", "--runs", runs, "--out", out],
        "plots fig06": ["-m", "plots", "fig06", "--runs", runs, "--out", out, "--sweep", "many"],
        "fig06 from JSON lines": ["-m", "plots", "fig06", "--runs", out, "--out", out, "--sweep", "many"],
        "poison_jax.report": ["-m", "poison_jax.report", "--runs", runs, "--out", out / "report.html"],
    }
    for what, command in commands.items():
        said, status, seconds, memory = _timed(command)
        chapter.check(status == 0, f"{what}: status {status}: {said[-500:]!r}")
        chapter.measured[f"{what}: seconds of CPU, MiB"] = f"{seconds:.1f}, {memory:.0f}"
    lines = (out / "many.jsonl").read_bytes().count(b"\n")
    chapter.check(lines == count, f"poison_jax.records wrote {lines} of {count} cells")


def _fill(chapter: Chapter, file: Path, runs: Path) -> int:
    """A store in which all cells of a config's sweep are done, each with its files; returns how many.

    The first one is really run; the others have its arrays, and numbers of their own in their results.
    """
    scope: dict = {}
    exec(compile(file.read_text(), file, "exec"), scope)
    config = scope["get_config"]()
    cells = grid.cells(config)
    records.write_sweep(runs, grid.described(config, cells))
    first = flags(SETTING | {"name": "digits"} | cells[0].overrides)
    said, status, _, _ = _timed(["main.py", f"--workdir={runs}", *first])
    made = store.Run(runs / cells[0].run)
    if not chapter.check(status == 0 and made.done, f"the first cell could not be done: {said[-500:]!r}"):
        return 0
    result, inputs = made.result(), files.read_json(made.path / "inputs.json")
    luck = random.Random(chapter.seed)
    with mock.patch("os.fsync"):  # a store to be read, soon thrown away
        for cell in cells[1:]:
            run = views.open_run(cell.config, runs)
            files.write_json(run.path / "inputs.json", inputs)
            for name in ("spectrum.npz", "attack.npz", "metrics.jsonl"):
                shutil.copyfile(made.path / name, run.path / name)
            own = {"config": cell.config.to_dict(), "seed": cell.config.seed, "status": "ok"}
            drawn = {"asr": luck.random(), "clean_accuracy": 0.5 + luck.random() / 2}
            run.finish(result | own | drawn, cell.view)
    return len(cells)


def _timed(command: Iterable, **variables: str) -> tuple[str, int, float, float]:
    """What a Python process says; its exit status, seconds of CPU and MiB at most.

    Of CPU: how long it takes is that and the other programs of the machine.
    """
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with process.stdout:
        said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return said, process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
