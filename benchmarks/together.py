"""`python -m benchmarks.together [--depth D] [--batch B] [--json FILE]`: runs trained at once or one by one.

n runs of different seeds and kappas take a step each: one after the other, and all in one program
(`train.train_steps`). Both ways in turn, in every round; above 1 in a ratio, together is faster, and
`train.together` worth setting on that device. One run is the same program both ways: its ratio is the noise.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import ours, scale, timing
from benchmarks.__main__ import Parser, fail
from poison_jax import cache, console, kernels, models, together, train
from poison_jax.errors import UserError

MEMBERS = (1, 2, 4)
ROUNDS = timing.Rounds(5, 30, 20)


class Row(NamedTuple):
    """A step of n runs: medians over the rounds in seconds, and the rounds' ratios."""

    step: str
    members: int
    one_by_one: float
    together: float
    ratio: float  # median of one_by_one / together
    low: float  # the smallest of them
    high: float


class Alone:
    """Runs that take their steps one after the other."""

    def __init__(self, runs: Sequence[scale.Step]):
        self._runs = runs

    def step(self) -> None:
        for run in self._runs:
            run.step()

    def objectives(self) -> np.ndarray:
        return np.array([float(run.state.totals.objective) for run in self._runs])


class Together:
    """The same runs in one program."""

    def __init__(self, runs: Sequence[scale.Step]):
        self._program = runs[0].program
        mesh = self._program.mesh
        data, orders, knobs = zip(*(run.arguments for run in runs), strict=True)
        self._state, data, knobs = together.stack([run.state for run in runs], data, knobs, mesh)
        order = orders[0] if len(runs) == 1 else train.replicate(np.stack(orders), mesh)
        self._arguments = data, order, knobs

    def step(self) -> None:
        step = train.train_steps if self._state.step.ndim else train.train_step
        self._state = step(self._state, *self._arguments, program=self._program)
        jax.block_until_ready(self._state)

    def objectives(self) -> np.ndarray:
        return np.array([float(totals.objective) for totals in train.totals_of(self._state)])


def members(count: int, *, penalised: bool, depth: int, batch: int) -> list[scale.Step]:
    """Runs that differ in kappa and in the seed of who is poisoned."""
    runs = [scale.Step(batch=batch, depth=depth, width=16, penalised=penalised) for _ in range(count)]
    for seed, run in enumerate(runs):
        data, order, knobs = run.arguments
        changed = knobs._replace(key=jax.random.key(seed), kappa=np.float32(ours.KAPPA * (seed + 1) / count))
        run.arguments = data, order, train.replicate(changed, run.program.mesh)
    return runs


def row(count: int, rounds: timing.Rounds, *, penalised: bool, depth: int, batch: int) -> Row:
    """Measures n runs both ways, after a step in which they must agree."""
    alone, at_once = (
        side(members(count, penalised=penalised, depth=depth, batch=batch)) for side in (Alone, Together)
    )
    for side in (alone, at_once):
        side.step()
    if not np.allclose(alone.objectives(), at_once.objectives(), rtol=1e-4):
        print(f"error: {alone.objectives()} one by one, {at_once.objectives()} together", file=sys.stderr)
        sys.exit(1)
    seconds = scale.measured({"alone": alone.step, "together": at_once.step}, rounds)
    ratios = [a / b for a, b in zip(seconds["alone"], seconds["together"], strict=True)]
    medians = (statistics.median(seconds[side]) for side in ("alone", "together"))
    name = "penalised step" if penalised else "plain step"
    return Row(name, count, *medians, statistics.median(ratios), min(ratios), max(ratios))


def main(argv: list[str] | None = None, rounds: timing.Rounds = ROUNDS) -> None:
    arguments = parse(argv)
    cache.keep_compilations()
    size = {"depth": arguments.depth, "batch": arguments.batch}
    console.say(f"{scale.device()}; PreResNet-{arguments.depth}, batch {arguments.batch} of each run")
    rows = [row(count, rounds, penalised=p, **size) for p in (False, True) for count in MEMBERS]
    console.table(
        "above 1 in a ratio: together is faster (median of paired ratios, smallest to largest)",
        ("", "runs", "ms one by one", "ms together", "ratio", ""),
        [
            [
                r.step,
                str(r.members),
                *(f"{1000 * s:.0f}" if s >= 0.1 else f"{1000 * s:.2g}" for s in (r.one_by_one, r.together)),
                f"{r.ratio:.2f}",
                f"{r.low:.2f} to {r.high:.2f}",
            ]
            for r in rows
        ],
    )
    if arguments.json:
        written = {"device": scale.device(), **size, "rows": [r._asdict() for r in rows]}
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m benchmarks.together", description=__doc__.partition(": ")[2], allow_abbrev=False
    )
    parser.add_argument("--depth", type=int, default=8, help="of the PreResNet, 6n + 2 (default 8)")
    parser.add_argument("--batch", type=int, default=32, help="images of each run in a step (default 32)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there, too")
    arguments = parser.parse_args(argv)
    try:
        models.check_architecture(arguments.depth, "basic", 16)
    except UserError as error:
        fail(str(error))
    if arguments.batch < 1:
        fail(f"--batch {arguments.batch}: use at least 1 image")
    file = arguments.json
    if file and (file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK)):
        fail(f"cannot write {file}")
    return arguments


if __name__ == "__main__":
    kernels.keep_memory()
    main()
