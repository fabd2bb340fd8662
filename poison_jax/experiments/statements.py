"""The theory, checked: statements on synthetic data, the curves behind their figures, the laws on images."""

import functools
import json
from typing import Any

import ml_collections
import numpy as np

from poison_jax import console, poison
from poison_jax.arrays import digest
from poison_jax.errors import UserError
from poison_jax.experiments import views
from poison_jax.runs import provenance, store
from poison_jax.theory import STATEMENTS, THEOREMS, Entry, curves, images, report, theorem_curves
from poison_jax.theory.entry import VERDICTS

CURVES = curves.CURVES | theorem_curves.CURVES
DEFENCE_POINTS = 1000  # clean points of the penalised fits, which take an eigendecomposition each
_COLUMNS = {  # of the images' summary -> head, and how it is printed
    "lengthscale": ("l", "g"),
    "ridge": ("c", "g"),
    "clean_accuracy": ("accuracy", ".1%"),
    "asr": ("ASR", ".0%"),
    "efficacy": ("efficacy", ".3f"),
    "efficacy_of_law": ("/ law", ".2f"),
    "factor_of_law": ("R / R_k", ".3g"),
    "overlap": ("overlap", ".2f"),
    "m_works": ("m works", "d"),
    "m_seen": ("m seen", "d"),
    "m_seen_by_law": ("by law", "d"),
}
_LEGEND = """\
l in median distances; / law: measured efficacy over eq. 11; R: measured spike over squared efficacy, R_k:
eq. 17; overlap: squared, of the spike with the trigger; m works: clones at which half of the test images
flip; m seen: at which half of them show more of the poison's gradient than of the clean one (Remark 3.5); by
law: at which half should by the paper's law"""


def run(
    config: ml_collections.ConfigDict, workdir: str = "runs", *, tensorboard: bool = False
) -> list[store.Run]:
    """Runs the checks, prints their tables, returns the finished run: see `experiments.run`.

    Each statement's list, curve and data set is a stage. There are no curves for TensorBoard.

    Raises:
        UserError: what only the data can show to be wrong, before any compute.
    """
    names = [_file_name(name) for name in config.krr.data]
    if len(set(names)) < len(names):
        raise UserError(f"krr.data = {tuple(config.krr.data)}: two data sets would share their files")
    problems = [_load(config, name) for name in config.krr.data]
    run = views.open_run(config, workdir)
    arrays = (field for problem in problems for field in problem if isinstance(field, np.ndarray))
    run.pin_inputs(digest(arrays))
    if run.finished() is not None:
        console.say(f"already done in {run.path}")
    else:
        with run.claim():
            console.say(str(run.path))
            _fill(config, run, problems)
    _show(run, config)
    return [run]


def _load(config: ml_collections.ConfigDict, name: str) -> images.Problem:
    c = config.poison
    return images.load(
        name,
        data_dir=config.data.dir,
        num_points=config.krr.num_points,
        num_triggered=config.krr.num_triggered,
        mask_of=functools.partial(poison.trigger_mask, c.trigger, margin=c.margin, size=c.size, path=c.mask),
        value=c.value,
        target=c.target,
    )


def _fill(config: ml_collections.ConfigDict, run: store.Run, problems: list[images.Problem]) -> None:
    """Makes the stages that are not there, and the result."""
    c, most = config.krr, max(config.krr.clones)
    stages = [run.stage("statements", _statements)]
    for name, curve in CURVES.items():
        console.say(f"  curves: {name}")
        stages.append(run.stage(name, curve))
    summaries = {}
    for problem in problems:
        file_name, at = _file_name(problem.name), (problem, c.lengthscale, c.ridge)
        console.say(f"  {problem.name}: {problem.X.shape[0]} points in {problem.X.shape[1]} dimensions")
        with console.progress("  laws", len(c.lengthscales) * len(c.ridges)) as advance:
            sweep = functools.partial(images.sweep, problem, c.lengthscales, c.ridges, c.clones, advance)
            laws = run.stage(f"laws_{file_name}", sweep)
        approach = run.stage(f"approach_{file_name}", functools.partial(images.approach, *at, most))
        sizes = (
            min(most, c.num_triggered),
            min(c.num_points, DEFENCE_POINTS),
        )  # the cluster has no more images
        defence = run.stage(f"defence_{file_name}", functools.partial(images.defend, *at, *sizes))
        stages += [laws, approach, defence]
        summaries[problem.name] = images.summary(laws)
    entries = _entries(run)
    verdicts = [entry.verdict for entry in entries]
    run.save_text("corrections.md", report.markdown(entries))
    run.save_text("theory.json", json.dumps([entry._asdict() for entry in entries], indent=1) + "\n")
    run.finish(
        {
            "status": "ok",
            "statements": len(entries),
            **{verdict: verdicts.count(verdict) for verdict in VERDICTS},
            "images": summaries,
            "wall_seconds": sum(float(arrays["seconds"]) for arrays in stages),
            "config": config.to_dict(),
            **provenance.here(),
        }
    )


def _file_name(name: str) -> str:
    """A data set's name as part of a file's."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _statements() -> dict[str, np.ndarray]:
    entries = []
    with console.progress("  statements", len(STATEMENTS) + len(THEOREMS)) as advance:
        for statement in (*STATEMENTS, *THEOREMS):
            entries += [entry._asdict() for entry in statement()]
            advance()
    return {"json": np.array(json.dumps(entries))}


def _entries(run: store.Run) -> list[Entry]:
    return [Entry(**row) for row in json.loads(str(run.arrays("statements")["json"]))]


def _show(run: store.Run, config: ml_collections.ConfigDict) -> None:
    result = run.result()
    rows = [
        (
            entry.statement.partition(":")[0],
            *map(report.number, (entry.predicted, entry.measured)),
            report.error(entry),
            entry.verdict,
        )
        for entry in _entries(run)
    ]
    console.table("The paper's statements", ["statement", "predicted", "measured", "error", "verdict"], rows)
    for name, cells in result["images"].items():
        _show_images(name, cells, config.krr)
    console.say(f"the whole of it: {run.path / 'theory.json'}, {run.path / 'corrections.md'}")
    console.say(f"total {console.duration(result['wall_seconds'])} on {provenance.device()}")


def _show_images(name: str, cells: list[dict[str, Any]], c: ml_collections.ConfigDict) -> None:
    rows = [
        ["-" if cell.get(key) is None else format(cell[key], spec) for key, (_, spec) in _COLUMNS.items()]
        for cell in cells
    ]
    console.say("")
    console.table(
        f"{name}: {max(c.clones)} clones of one triggered image, {c.num_points} clean points, medians over "
        f"{c.num_triggered} triggered test images",
        [head for head, _ in _COLUMNS.values()],
        rows,
    )
    console.say(_LEGEND)
