"""Clean reference networks for an audit: trained once, by a sweep, kept in a store."""

from pathlib import Path

import ml_collections
import numpy as np

from poison_jax import config as config_lib
from poison_jax import data, sweeps
from poison_jax.errors import UserError
from poison_jax.experiments import subjects
from poison_jax.runs.store import Run
from poison_jax.subject import Subject
from poison_jax.sweeps import grid

FIRST_SEED = 1000  # of the references: no experiment's


def references(
    config: ml_collections.ConfigDict, n: int = 19, *, workdir: str = "runs", workers: int = 1
) -> list[Subject]:
    """Clean networks of a config's recipe; those that are there are not trained again.

    They are trained on the config's data without its attack. If the data themselves are poisoned (a file of
    poisoned images), so are the references: a file that says so is refused, of another nobody knows.

    Args:
        config: of a network, poisoned or not: its data, architecture and training are the recipe.
        n: how many; 19 can reach p = .05, 99 can reach .01.
        workdir: store in which they are kept.
        workers: processes that train them.

    Raises:
        UserError: n below 1, bad config, data that are said to be poisoned.
        RunsFailed: some could not be trained.
        Interrupted: asked to stop; what was done is kept.
    """
    sweep = sweep_of(config, n, workers)
    sweeps.run(sweep, workdir)
    return subjects.of_runs([Run(Path(workdir) / cell.run) for cell in grid.cells(sweep)])[0]


def sweep_of(config: ml_collections.ConfigDict, n: int, workers: int = 1) -> ml_collections.ConfigDict:
    """The sweep that trains references.

    Raises:
        UserError: n below 1, bad config, data that are said to be poisoned.
    """
    if n < 1:
        raise UserError(f"{n} references: train at least one, 19 to reach p = 0.05")
    check_data(config.data.name)
    made = subjects.clean(config)
    made.experiment, made.sweep.of = "sweep", "train"
    made.sweep.name = f"reference-{subjects.recipe(config)}-{n}"
    made.sweep.workers = workers
    made.sweep.grids = ((("seed", tuple(range(FIRST_SEED, FIRST_SEED + n))),),)
    config_lib.check(made)
    return made


def check_data(name: str) -> None:
    """Refuses a file of training data that says that some are poisoned, as `poison_jax.poison` writes it.

    Args:
        name: as `data.load` has it, which refuses what cannot be read.

    Raises:
        UserError: an `.npz` file whose array `poisoned` is true anywhere.
    """
    path = Path(name).expanduser()
    if not data.is_path(name) or not path.is_file():
        return
    try:
        with open(path, "rb") as stream:
            marks = np.load(stream, allow_pickle=False)["poisoned"]  # nothing else is read
    except Exception:  # mostly: it has no such array
        return
    if marks.dtype.kind in "biu" and marks.any():
        raise UserError(
            f"{name} says that {np.count_nonzero(marks):,} of its images are poisoned, and references "
            "trained on it would be, too: train them on clean images (--model with --data)"
        )
