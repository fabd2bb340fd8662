"""Eigenvectors of the input Hessian: of a run, of its classes, of several runs (Figures 8 and 12)."""

import numpy as np
from matplotlib.figure import Figure

from plots import canvas, curves, panels, setting
from plots.canvas import WIDTH
from plots.curves import KAPPA, THETA
from poison_jax import wording
from poison_jax.runs.files import Json
from poison_jax.runs.records import Record
from poison_jax.runs.store import Run

ROW = 5  # eigenvectors in a row
MANY = 12  # classes, from which on each is shown by its top eigenvector alone
OWN_SCALE = "each on a colour scale of its own around zero"
_ATTACK = "Points: ASR above the rate without a trigger; overlap: cosine of the eigenvector and the trigger"
_WAVES = "Wave: the strongest, in cycles down and across, and its prominence"


def of_run(run: Run) -> dict[str, Figure]:
    """Top eigenvectors of a run, and those of each class's Hessian where it has them."""
    figures = {"eigenvectors": _top(run)}
    if "class_vectors" in run.arrays("spectrum"):
        figures["eigenvectors_per_class"] = _of_classes(run)
    return figures


def _top(run: Run) -> Figure:
    spectrum, mask = run.arrays("spectrum"), run.arrays("attack")["mask"]
    count, aside = len(spectrum["values"]), 0 if panels.is_stamp(mask) else 1
    columns = min(count, ROW)
    figure, axes = _grid(-(-count // columns), columns + aside, heading=0.75)
    if aside:
        panels.mean_change(axes[0, 0], mask)
    for i, axis in enumerate(axes[:, aside:].flat[:count]):
        panels.eigenvector(
            axis,
            spectrum["vectors"][i].reshape(spectrum["shape"]),
            f"v{i + 1}, λ = {spectrum['values'][i]:.2g}",
            f"overlap {setting.signed(spectrum['overlap'][i])}",
            *_peak(spectrum, i),
            change=mask,
        )
    residuals = f"Ritz residuals at most {max(spectrum['residuals']):.0e}"
    _describe(figure, run, f"Top {count} eigenvectors v of the input Hessian", residuals)
    return figure


def _of_classes(run: Run) -> Figure:
    """Eigenvectors of each class's Hessian: a row for a class, or its top one if there are many."""
    spectrum, names = run.arrays("spectrum"), run.arrays("attack")["class_names"]
    values, vectors, overlap = (spectrum[f"class_{key}"] for key in ("values", "vectors", "overlap"))
    classes = spectrum.get("classes", np.arange(len(values)))
    many, each = len(classes) > MANY, min(values.shape[1], ROW)
    shown = [(i, j) for i in range(len(classes)) for j in range(1 if many else each)]
    columns = 8 if many else each
    figure, axes = _grid(-(-len(shown) // columns), columns, heading=0.45)
    for axis, (i, j) in zip(axes.flat, shown, strict=False):
        words = f"{names[classes[i]]}, {j + 1}"
        if np.isnan(values[i, j]):
            panels.label(axis, words, "no images")
        else:
            about = f"λ = {values[i, j]:.2g}, " * (not many) + setting.signed(overlap[i, j])
            panels.eigenvector(axis, vectors[i, j].reshape(spectrum["shape"]), words, about)
    which = "Top eigenvector" if many else f"Top {each} eigenvectors"
    _describe(figure, run, f"{which} of each class's input Hessian, with the overlap with the trigger")
    return figure


def of_runs(runs: list[Run]) -> Figure:
    """The top eigenvector of each run: theta and whatever else they differ in down, kappa across."""
    return _of_blocks({"": list(map(_record, runs))}, "Top eigenvector of the input Hessian")


def _record(run: Run) -> Record:
    """A run as a cell of a sweep over all that it is set to."""
    result, spectrum = run.result(), run.arrays("spectrum")
    settings = {
        k: v for k, v in curves.flat(result["config"]).items() if not k.startswith(curves.NO_SETTINGS)
    }
    vector = spectrum["vectors"][0].reshape(spectrum["shape"])
    arrays = {"top_eigenvector": vector, "trigger": run.arrays("attack")["mask"]}
    return Record(run.path.name, settings, result, lambda: arrays)


def _attack(result: Json) -> list[str]:
    """How the attack went and is seen, in a panel's few letters."""
    gain = wording.excess(result)
    said = "no attack" if gain is None else setting.points(gain)
    said += ", collapsed" if setting.collapsed(result) else " points" * (gain is not None)
    return [said, f"overlap {setting.signed(result['overlap'][0])}"]


def _peak(spectrum, i):
    """The strongest wave in an eigenvector, in runs that looked for it."""
    if "spectral_prominence" not in spectrum:
        return []
    down, along = spectrum["spectral_peak_frequency"][i]
    return [f"wave ({down:g}, {along:g}), {spectrum['spectral_prominence'][i]:.2g}"]


def _grid(rows, columns, *, heading):
    """Empty square panels under words, with a colour bar that serves them all."""
    size = min((WIDTH - 0.9) / columns, 1.7)
    figure, axes = canvas.subplots(rows, columns, size * columns + 0.9, (size + heading) * rows)
    panels.hide(axes.flat)
    panels.scale_bar(figure, ax=axes, shrink=0.8 / rows, aspect=15, pad=0.02)
    return figure, axes


def _describe(figure, run, subject, *more):
    result = run.result()
    waves = _WAVES * ("spectral_prominence" in run.arrays("spectrum"))
    scale = setting.common([setting.of_result(result)])
    canvas.describe(figure, f"{subject}, {OWN_SCALE}", setting.outcome(result), scale, *more, waves)


# --- of a sweep -----------------------------------------------------------------------------------


def fig08(records: list[Record], title: str) -> list[Figure]:
    """The cells' top eigenvectors over theta and kappa: left without augmentation, right with it."""
    augmented = [record.setting("data.augment") != "none" for record in records]
    plain = [record for record, moved in zip(records, augmented, strict=True) if not moved]
    moved = [record for record, moved in zip(records, augmented, strict=True) if moved]
    blocks = {"without augmentation": _first_seeds(plain), "with augmentation": _first_seeds(moved)}
    return [_of_blocks(blocks, title)]


def fig12(records: list[Record], title: str) -> list[Figure]:
    """The cells' top eigenvectors in one block, after the mean change by the warp."""
    return [_of_blocks({"": _first_seeds(records)}, title)]


def _of_blocks(blocks: dict[str, list[Record]], heading: str) -> Figure:
    """Blocks side by side: theta down, kappa across, a cell's top eigenvector, a stamp outlined in it.

    What the cells differ in besides is told with theta.
    """
    blocks = {title: records for title, records in blocks.items() if records}
    records = [record for some in blocks.values() for record in some]
    change = records[0].arrays["trigger"]
    aside = 0 if panels.is_stamp(change) else 1  # a column for what cannot be outlined
    columns = [aside + len(curves.by(some, KAPPA)) for some in blocks.values()]
    rows = max(len(_rows(some)) for some in blocks.values())
    size = min((WIDTH - 0.8 - 0.4 * len(blocks)) / sum(columns), 1.7)
    width = size * sum(columns) + 0.8 + 0.4 * len(blocks)
    height = (size + 0.8) * rows + (0.4 if any(blocks) else 0.1)
    figure = canvas.blank(width, height)
    widths = [*(size * count + 0.4 for count in columns), 0.8]
    *parts, last = figure.subfigures(1, len(widths), width_ratios=widths)
    for part, count, (title, some) in zip(parts, columns, blocks.items(), strict=True):
        if title:
            part.suptitle(title)
        axes = part.subplots(rows, count, squeeze=False)
        panels.hide(axes.flat)
        if aside:
            panels.mean_change(axes[0, 0], change)
        _fill(axes[:, aside:], some)
    panels.scale_bar(last, cax=last.add_axes((0.05, 0.3, 0.15, min(0.4, 1.8 / height))))
    results = [record.result for record in records]
    largest = max(result["residuals"][0] for result in results)
    seen = "the trigger's mean change at the left, in grey" if aside else "the trigger's outline is black"
    canvas.describe(
        figure,
        heading,
        setting.outcomes(results),
        setting.scale(results),
        _ATTACK,
        f"Each panel is on a colour scale of its own around zero, {seen}; "
        f"Ritz residuals at most {largest:.0e}",
    )
    return figure


def _first_seeds(records: list[Record]) -> list[Record]:
    """Of records that differ in the seed alone, that of the smallest."""
    return [
        min(group, key=lambda record: record.setting("seed"))
        for _, group in curves.by(records, THETA, KAPPA, *curves.varied(records))
    ]


def _rows(records: list[Record]) -> list[tuple[str, list[Record]]]:
    """The records by theta and whatever else they differ in but kappa, and words for that."""
    others = [key for key in curves.varied(records) if key not in (THETA, KAPPA)]
    others += ["seed"] * (len(curves.by(records, "seed")) > 1)
    found = curves.by(records, THETA, *others)
    return [("\n".join(map(curves.label, (THETA, *others), shown)), group) for shown, group in found]


def _fill(axes: np.ndarray, records: list[Record]) -> None:
    kappas = [kappa for (kappa,), _ in curves.by(records, KAPPA)]
    for row, (words, group) in zip(axes, _rows(records), strict=False):
        for record in group:
            result, trained = record.result, curves.trained(record)
            column = kappas.index(record.setting(KAPPA))
            panels.eigenvector(
                row[column],
                np.asarray(record.arrays["top_eigenvector"]),
                f"κ = {kappas[column]:g}",
                *(_attack(result) if trained else ["failed training", *_attack(result)[1:]]),
                f"λ₁ = {result['eigenvalues'][0]:.2g}",
                change=record.arrays["trigger"],
            )
            if not trained or setting.collapsed(result):
                row[column].title.set_color(panels.RED)
        if not row[0].images:  # no such cell, but words for the row
            row[0].axis("on")
            row[0].set(xticks=[], yticks=[], frame_on=False)
        row[0].set_ylabel(words)
