"""One config -> its experiment -> finished runs."""

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path

import ml_collections

from poison_jax import config as config_lib
from poison_jax import store
from poison_jax.errors import UserError

# Imported when asked for: no experiment pays for another's imports.
_MODULES = {
    "train": "training",
    "compare": "training",
    "krr_theory": "krr_experiment",
    "mnist_linear": "linear_experiment",
}


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
    """Runs a config's experiment, prints its summary, returns the finished runs; none of a sweep.

    What is already done is not done again; what was interrupted goes on where it stopped.

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
    config_lib.check(config)
    sweeping = config.experiment == "sweep"
    if (retry or slurm) and not sweeping:
        raise UserError(
            "--retry and --slurm are for sweeps: leave them out, or choose a file of configs/sweeps"
        )
    if dry_run:
        from poison_jax import cost, grid

        cost.show(grid.cells(config), workdir)
        return []
    if sweeping:
        from poison_jax import sweep

        if slurm:
            print(sweep.slurm_script(config, workdir, slurm))
            return []
        options = {"tensorboard": tensorboard, "retry": retry, "draw": draw_sweep}
        return sweep.run(config, workdir, **options)
    module = importlib.import_module(f"poison_jax.{_MODULES[config.experiment]}")
    return module.run(config, workdir, tensorboard=tensorboard)
