"""One config -> what it asks for: its runs, its sweep, or a word of what they will cost."""

from collections.abc import Callable, Iterable
from pathlib import Path

import ml_collections

from poison_jax import config as config_lib
from poison_jax import console, experiment, store
from poison_jax.errors import UserError


def run(
    config: ml_collections.ConfigDict,
    workdir: str = "runs",
    *,
    tensorboard: bool = False,
    retry: bool = False,
    dry_run: bool = False,
    slurm: int = 0,
    draw_sweep: Callable[[Path, str, Path], Iterable[Path]] = lambda *_: (),
) -> list[store.Run]:
    """Does what a config asks for and returns its finished runs; none of a sweep.

    Args:
        config: see `poison_jax.config`.
        workdir: where run directories are kept.
        tensorboard: write the metrics of a training for TensorBoard too.
        retry: of a sweep, do the cells that have failed again.
        dry_run: only print the runs of a training or a sweep, their FLOPs and hours.
        slurm: of a sweep, only print the script of a Slurm array of so many tasks.
        draw_sweep: called with the store, a sweep's name and a folder when the sweep ends or is stopped.

    Raises:
        UserError: bad input, before any compute where it can be known then.
        CellsFailed: some cells of a sweep could not be done; all others are.
        Interrupted: asked to stop; what was done is kept.
    """
    sweeping = config.experiment == "sweep"
    if (retry or slurm) and not sweeping:
        raise UserError(
            "--retry and --slurm are for sweeps: leave them out, or name a file of configs/sweeps"
        )
    config_lib.check(config)
    # Imported when asked for: a single run does not pay for them.
    if dry_run:
        from poison_jax import cost, grid

        cost.show(grid.cells(config), workdir)
        return []
    if not sweeping:
        return experiment.run(config, workdir, tensorboard=tensorboard)
    from poison_jax import sweep

    if slurm:
        console.say(sweep.slurm_script(config, workdir, slurm))
    else:
        sweep.run(config, workdir, tensorboard=tensorboard, retry=retry, draw=draw_sweep)
    return []
