"""Pictures, drawn from what is stored alone."""

import importlib
from pathlib import Path

from poison_jax.store import Run

# Of a trained network: a script and the file that it needs besides.
_TRAINED = {"run": "spectrum", "eigenvectors": "spectrum", "features": "features", "near_clone": "near_clone"}


def draw(run: Run) -> list[Path]:
    """Draws a finished run's figures into its directory, by the scripts of its experiment."""
    experiment = run.config()["experiment"]
    if experiment == "train":
        names = [name for name, needed in _TRAINED.items() if (run.path / f"{needed}.npz").exists()]
    else:
        names = [experiment]
    return [file for name in names for file in importlib.import_module(f"plots.{name}").draw(run)]


def draw_sweep(path, name, out):
    return []
