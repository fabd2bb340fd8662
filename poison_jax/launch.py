"""One config -> what it asks for: its runs, its sweep, or a word of what they will cost."""

from collections.abc import Callable, Iterable
from pathlib import Path

import ml_collections

from poison_jax import config as config_lib
from poison_jax import console, experiments
from poison_jax.errors import RunsFailed, UserError
from poison_jax.runs import store


def run(
    config: ml_collections.ConfigDict,
    workdir: str = "runs",
    *,
    tensorboard: bool = False,
    retry: bool = False,
    dry_run: bool = False,
    slurm: int = 0,
    results: str = "",
    draw: Callable[[store.Run], Iterable[Path]] = lambda _: (),
    draw_sweep: Callable[[Path, str, Path], Iterable[Path]] = lambda *_: (),
) -> list[store.Run]:
    """Does what a config asks for, draws it, and returns its finished runs; none of a sweep.

    Args:
        config: see `poison_jax.config`.
        workdir: where run directories are kept.
        tensorboard: write the metrics of a training for TensorBoard too.
        retry: of a sweep, do the cells that have failed again.
        dry_run: only print the runs of a training or a sweep, their FLOPs and hours.
        slurm: of a sweep, only print the script of a Slurm array of so many tasks.
        results: of a sweep, folder of JSON lines (`runs.records`): a cell with a line is done.
        draw: called with every finished run; returns the figures' files.
        draw_sweep: called with the store, a sweep's name and a folder when the sweep ends or is stopped.

    Raises:
        UserError: bad input, before any compute where it can be known then.
        RunsFailed: some arms or cells could not be done; all others are, and are drawn.
        Interrupted: asked to stop; what was done is kept.
    """
    sweeping = config.experiment == "sweep"
    if (retry or slurm or results) and not sweeping:
        raise UserError(
            "--retry, --slurm and --results are for sweeps: leave them out, or name a file of configs/sweeps"
        )
    config_lib.check(config)
    # Imported when asked for: a single run does not pay for them.
    if dry_run:
        from poison_jax.sweeps import cost, grid

        cost.show(grid.cells(config), workdir, results)
        return []
    if not sweeping:
        failure = None
        try:
            finished = experiments.run(config, workdir, tensorboard=tensorboard)
        except RunsFailed as error:
            finished, failure = error.finished, error
        for run in finished:
            for figure in draw(run):
                console.say(f"figure: {figure}")
        if failure is not None:
            raise failure
        return finished
    if slurm:
        from poison_jax.sweeps import slurm as slurm_lib

        print(slurm_lib.script(config, workdir, slurm))
    else:
        from poison_jax.sweeps import sweep

        sweep.run(config, workdir, tensorboard=tensorboard, retry=retry, results=results, draw=draw_sweep)
    return []
