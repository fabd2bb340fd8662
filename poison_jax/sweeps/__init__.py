"""Sweeps: the grid of runs behind a figure or table, who does its cells, and what they cost."""

from collections.abc import Callable, Iterable
from pathlib import Path

import ml_collections

from poison_jax import config as config_lib
from poison_jax import console


def run(
    config: ml_collections.ConfigDict,
    workdir: str = "runs",
    *,
    tensorboard: bool = False,
    retry: bool = False,
    dry_run: bool = False,
    slurm: int = 0,
    results: str = "",
    draw: Callable[[Path, str, Path], Iterable[Path]] = lambda *_: (),
) -> None:
    """Does a sweep, or says what it, or single runs, will cost.

    Args:
        config: of experiment=sweep; any, for `dry_run`.
        workdir: the store.
        tensorboard: not for sweeps.
        retry: do the cells that have failed again.
        dry_run: only print the runs, their FLOPs and hours.
        slurm: only print the script of a Slurm array of so many tasks.
        results: folder of JSON lines (`runs.records`): a cell with a line is done.
        draw: called with the store, the sweep's name and a folder when it ends or is stopped.

    Raises:
        UserError: bad input, before any compute.
        RunsFailed: some cells could not be done; all others are, and are drawn.
        Interrupted: asked to stop; what was done is kept.
    """
    config_lib.check(config)
    # Imported when asked for: each alternative pays for itself alone.
    if dry_run:
        from poison_jax.sweeps import cost, grid

        cost.show(grid.cells(config), workdir, results)
    elif slurm:
        from poison_jax.sweeps import slurm as slurm_lib

        console.say(slurm_lib.script(config, workdir, slurm))
    else:
        from poison_jax.sweeps import sweep

        sweep.run(config, workdir, tensorboard=tensorboard, retry=retry, results=results, draw=draw)
