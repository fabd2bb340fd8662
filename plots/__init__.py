"""Pictures and tables, drawn from what is stored alone."""

import importlib
from pathlib import Path

from poison_jax.errors import UserError
from poison_jax.runs import records
from poison_jax.runs.store import Run

# Of a trained network: a script and the file that it needs besides.
_TRAINED = {"run": "spectrum", "eigenvectors": "spectrum", "features": "features", "near_clone": "near_clone"}
# The paper's: a script each, for the sweep of its name and for that of a small grid.
PAPER = (*(f"fig{number:02d}" for number in range(5, 14)), "table1", "table2", "table3")


def draw(run: Run) -> list[Path]:
    """Draws a finished run's figures into its directory, by the scripts of its experiment.

    Raises:
        UserError: it is not finished, or damaged.
    """
    if run.result() is None:
        raise UserError(f"{run.path} holds no finished run: name a finished run's directory")
    experiment = run.config()["experiment"]
    if experiment == "train":
        names = [name for name, needed in _TRAINED.items() if (run.path / f"{needed}.npz").exists()]
    else:
        names = [experiment]
    return [file for name in names for file in importlib.import_module(f"plots.{name}").draw(run)]


def draw_sweep(path: Path, name: str, out: Path) -> list[Path]:
    """Draws the finished cells of a sweep.

    A figure or table of the paper, or its `-small` grid, by its script; any other sweep of trained networks
    whose poison fraction varies as attack, overlap and accuracy over it.

    Args:
        path: a store, or a folder that holds `<name>.jsonl`.
        name: of the sweep.
        out: folder for the files.

    Returns:
        `<name>.png` and `<name>.pdf`, `<name>.md`, as there are; empty if no cell is finished, or there is
        no figure for such a sweep.

    Raises:
        UserError: the sweep is absent or damaged, or not what its name says.
    """
    found = records.load(path, name)
    script = name.removesuffix("-small")
    if not found:
        return []
    if script in PAPER:
        return importlib.import_module(f"plots.{script}").draw(found, Path(out), name)
    if not all("overlap" in record.result for record in found):
        return []
    if len({record.setting("poison.fraction") for record in found}) < 2:
        return []
    over_theta = importlib.import_module("plots.over_theta")
    return over_theta.with_overlap(found, Path(out), name, f"Sweep {name}: attack success and overlap")
