"""The table of figures: what each shows, what it is drawn of, and what has to be stored for it.

A figure of a run gives `{name of the file: figure or Markdown}`, one of several runs a figure, one of a sweep
a list of figures and Markdown texts.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from plots import (
    audit,
    canvas,
    collapse,
    eigenvectors,
    epochs,
    features,
    frontier,
    krr_theory,
    lag,
    mnist_linear,
    near_clone,
    over_key,
    run,
    tables,
    trade_off,
)
from poison_jax.errors import UserError
from poison_jax.runs import records
from poison_jax.runs.records import Record
from poison_jax.runs.store import Run

SIZES = "", "-small", "-short"  # of a sweep's name: the paper's grid, its regime on two cores, a quick look


class OfRun(NamedTuple):
    """A figure of one run, or of several together, or both."""

    title: str
    draw: Callable[..., dict[str, Figure | str]] | None = None
    needs: str = ""  # a file `<needs>.npz` in the run's directory
    several: Callable[..., Figure] | None = None
    finished: bool = True  # of finished runs only


class OfSweep(NamedTuple):
    """A figure or table of a sweep's finished cells."""

    draw: Callable[[list[Record], str], list]
    title: str
    networks: bool = True  # of trained networks


_OVERLAP = "Attack success and overlap with the trigger over the poison fraction"
RUNS = {
    "run": OfRun(
        "Trigger, images, top eigenvectors, training curves; runs side by side",
        run.figure,
        "spectrum",
        run.of_runs,
    ),
    "summary": OfRun("In a row: an image, the trigger, the top eigenvector of each run", several=run.summary),
    "eigenvectors": OfRun(
        "Top eigenvectors of the input Hessian", eigenvectors.of_run, "spectrum", eigenvectors.of_runs
    ),
    "features": OfRun("Figures 1 to 3 and Table 3: features", features.of_run, "features", finished=False),
    "near_clone": OfRun(
        "The kernel theory beside a network", near_clone.of_run, "near_clone", near_clone.of_runs
    ),
    "krr_theory": OfRun("The theory: laws, lost capacity, filter, decay", krr_theory.of_run, "spike_law"),
    "mnist_linear": OfRun("Figures 4 and 5: linear regression on MNIST", mnist_linear.of_run, "measures"),
    "epochs": OfRun("Training, epoch by epoch, of several runs", several=epochs.of_runs),
    "frontier": OfRun("Accuracy against attack success as a defence grows", several=frontier.of_runs),
}
SWEEPS = {
    "fig05": OfSweep(mnist_linear.fig05, "Figure 5. Linear regression over the poison fraction", False),
    "fig06": OfSweep(over_key.with_overlap, f"Figure 6. {_OVERLAP}"),
    "fig07": OfSweep(
        over_key.with_accuracy, "Figure 7. Attack success and clean accuracy over the poison fraction"
    ),
    "fig08": OfSweep(
        eigenvectors.fig08,
        "Figure 8. Top eigenvectors of the input Hessian over poison fraction θ and gradient penalty κ",
    ),
    "fig09": OfSweep(over_key.with_overlap, f"Figure 9. {_OVERLAP}"),
    "fig10": OfSweep(
        trade_off.fig10,
        "Figure 10. Clean accuracy against robustness, and the gap before the attack is seen",
    ),
    "fig11": OfSweep(
        over_key.fig11, "Figure 11. Clean accuracy and attack success over the gradient penalty"
    ),
    "fig12": OfSweep(
        eigenvectors.fig12, "Figure 12. Top eigenvectors of the input Hessian, the gradient penalty κ rising"
    ),
    "fig13": OfSweep(
        partial(over_key.with_overlap, overlap=lag.LARGEST, index=True),
        "Figure 13. Attack success and the largest overlap of the top eigenvectors over the poison fraction",
    ),
    "table1": OfSweep(
        tables.table1,
        "Table 1. More epochs: clean accuracy and attack success over the gradient penalty, "
        "beside the paper's.",
    ),
    "table2": OfSweep(
        tables.table2,
        "Table 2. Deterministic poison: the largest overlap and the eigenvector that has it, "
        "beside the paper's.",
    ),
    "table3": OfSweep(tables.table3, "Table 3. Pre-fc features of clean and triggered test images."),
    "audit": OfSweep(audit.page, "Is it poisoned? The audit's power and false alarms"),
    "audit_map": OfSweep(audit.twilight, "The measured twilight zone: where each detector sees the attack"),
    "collapse": OfSweep(collapse.of_sweep, "The law of collapse: triggered features over the decay time"),
    "lag": OfSweep(
        lambda records, title: [lag.report(records, title)],
        "Detectability lag: poison fractions at which the attack works and is seen",
    ),
    "sweep": OfSweep(over_key.of_sweep, "Attack, clean accuracy and overlap over whatever a sweep varies"),
}


def of_run(found: Run) -> dict[str, Figure | str]:
    """All figures of a finished run: those whose arrays it holds, and that were not left out.

    Raises:
        UserError: it is not finished, or holds nothing to draw.
    """
    result = found.result()
    if result is None:
        raise UserError(f"{found.path} holds no finished run: name a finished run's directory")
    entries = [e for e in RUNS.values() if e.draw and f"{e.needs}_left_out" not in result]
    held = [entry for entry in entries if (found.path / f"{entry.needs}.npz").exists()]
    if not held:
        raise UserError(f"{found.path} holds nothing that can be drawn: make the run again")
    with canvas.settings():
        return {name: made for entry in held for name, made in entry.draw(found).items()}


def of_records(records: list[Record], name: str, sweep: str) -> list[Figure | str]:
    """The figures and texts of a sweep's finished cells.

    Args:
        records: the cells.
        name: of the figure, in `SWEEPS`.
        sweep: of the sweep, for the title where the figure is none of the paper's.

    Raises:
        UserError: there is no cell, or the cells are of an experiment that the figure is not about.
    """
    entry = SWEEPS[name]
    if not records:
        raise UserError(f"no cell of sweep {sweep} is finished yet: run it first")
    for record in records:
        if entry.networks and "overlap" not in record.result:
            raise UserError(f"{record.run} is not a trained network's: name a sweep of trained networks")
    own = {"sweep": f"Sweep {sweep}: attack success and overlap", "lag": f"Sweep {sweep}: detectability lag"}
    with canvas.settings():
        return entry.draw(records, own.get(name, entry.title))


def name_of(records: list[Record], sweep: str) -> str:
    """The figure of a sweep: the paper's of its name, or what there is for its cells.

    Raises:
        UserError: there is none.
    """
    name = sweep.partition("-")[0]  # of fig06-small, fig06-digits
    if name in SWEEPS and name not in ("lag", "sweep"):
        return name
    if all("overlap" in record.result for record in records):
        return "sweep"
    experiments = {str(record.setting("experiment")) for record in records}
    if experiments == {"mnist_linear"}:
        return "fig05"
    raise UserError(
        f"sweep {sweep} has no figure: there is none over runs of {', '.join(sorted(experiments))}; "
        "each run draws its own"
    )


def first_held(path: Path, figure: str) -> str:
    """A figure's sweep that a store or folder holds: the first of `SIZES`; the paper's if none is there."""
    held = records.names(path)
    return next((figure + size for size in SIZES if figure + size in held), figure)


def named(parts: list[Figure | str], stem: str) -> Iterable[tuple[str, Figure | str]]:
    """Names for the parts of a sweep's figure: the stem, of further figures with a number."""
    count = 0
    for part in parts:
        count += not isinstance(part, str)
        yield (stem if isinstance(part, str) or count == 1 else f"{stem}-{count}"), part
