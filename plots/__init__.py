"""Pictures, drawn from what is stored alone."""

import importlib
from pathlib import Path

from poison_jax.store import Run


def draw(run: Run) -> list[Path]:
    """Draws a finished run's figures into its directory, by the script of its experiment."""
    experiment = run.config()["experiment"]
    script = importlib.import_module(f"plots.{'run' if experiment == 'train' else experiment}")
    return script.draw(run)
