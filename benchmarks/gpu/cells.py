"""The cells that are wanted most, as many as fit: `python -m benchmarks.gpu.cells STORE SECONDS`.

Each is the program itself, in a process of its own, begun where the seconds that it takes are left. Edit
`CELLS` for what the evidence lacks.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu import SMALL

ROOT = Path(__file__).parents[2]
# PreResNet-20 on all 50,000 images of CIFAR-10, with the paper's decay time (T = 0.65) in 30 epochs.
TERMINAL = {
    "model.depth": 20,
    "model.block": "basic",
    "train.epochs": 30,
    "train.weight_decay": 1.5e-3,
    "spectrum.num_iters": 20,
    "analysis.collapse": 0,
    "analysis.fisher": 0,
    "analysis.near_clone": 0,
}
TOY = {
    "data.name": "digits",
    "data.n_train": 256,
    "data.n_test": 64,
    "model.depth": 8,
    "model.width": 4,
    "poison.margin": 0,
    "train.epochs": 1,
    "train.batch_size": 32,
    "spectrum.num_examples": 64,
}


class Cell(NamedTuple):
    """A run."""

    kappa: float
    theta: float
    seconds: float  # that it takes about, on an H100
    more: tuple[str, ...] = ()


CELLS = (
    Cell(0, 0.01, 75),
    Cell(100, 0.01, 90),
    Cell(0, 0, 60),
    Cell(0, 0.003, 60),
    Cell(0, 0.03, 60),
    Cell(1000, 0.01, 75),
    Cell(100, 0.03, 75),
    Cell(0, 0.01, 60, ("--config.seed=1",)),
    Cell(100, 0.01, 75, ("--config.seed=1",)),
    Cell(100, 0.01, 90, ("--config.model.dtype=bfloat16",)),
)


def main(store: Path, seconds: float) -> None:
    """Does what fits; a line a cell, with the reason where one ends badly or is cut off."""
    end = time.monotonic() + seconds
    for cell in CELLS[:2] if SMALL else CELLS:
        left, began = end - time.monotonic(), time.monotonic()
        if left < cell.seconds:
            continue
        keys = TERMINAL | (TOY if SMALL else {})
        keys |= {"experiment": "train", "penalty.kappa": cell.kappa, "poison.fraction": cell.theta}
        command = [sys.executable, "main.py", "--config=configs/cifar10_stochastic.py"]
        command += [
            f"--workdir={store.resolve()}",
            *(f"--config.{key}={keys[key]}" for key in keys),
            *cell.more,
        ]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=os.environ, timeout=left, capture_output=True, text=True, check=False
            )
            lines = (done.stderr if done.returncode else done.stdout).strip().splitlines() or [""]
        except subprocess.TimeoutExpired:
            lines = ["cut off; the same command goes on"]
        print(*cell, f"{time.monotonic() - began:.0f} s: {lines[-1]}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
