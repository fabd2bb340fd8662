"""Eigenvectors of the input Hessian: of a run, of its classes, of several runs (Figures 8 and 12)."""

import numpy as np
from matplotlib.figure import Figure

from plots import canvas, curves, panels, setting
from poison_jax import wording
from poison_jax.runs.records import Record
from poison_jax.runs.store import Run

MANY = 12  # classes, from which on each is shown by its top eigenvector alone
WIDE, NARROW = 6, 3  # panels in a row of Figures 8 and 12: of one block, of several


def of_run(run: Run) -> dict[str, Figure]:
    """Trigger and top eigenvectors of a run, and those of each class's Hessian where it has them."""
    figures = {"eigenvectors": _top(run)}
    if "class_vectors" in run.arrays("spectrum"):
        figures["eigenvectors_per_class"] = _of_classes(run)
    return figures


def _top(run: Run) -> Figure:
    spectrum, mask = run.arrays("spectrum"), run.arrays("attack")["mask"]
    figure, axes = _grid(1, 1 + len(spectrum["values"]), heading=0.1)
    panels.trigger(axes[0, 0], mask, stamp=mask.dtype == bool)
    for i, (axis, vector) in enumerate(zip(axes[0, 1:], spectrum["vectors"], strict=True)):
        panels.eigenvector(
            axis,
            vector.reshape(spectrum["shape"]),
            f"eigenvector {i + 1}",
            f"λ = {spectrum['values'][i]:.3g}, residual {spectrum['residuals'][i]:.0e}",
            f"overlap {spectrum['overlap'][i]:+.2f}",
            *_peak(spectrum, i),
        )
    _title(figure, [run], "Top eigenvectors of the input Hessian")
    return figure


def _of_classes(run: Run) -> Figure:
    """Eigenvectors of each class's Hessian: a row of all for a class, or its top one if there are many."""
    spectrum, names = run.arrays("spectrum"), run.arrays("attack")["class_names"]
    values, vectors, overlap = (spectrum[f"class_{key}"] for key in ("values", "vectors", "overlap"))
    classes, k = spectrum.get("classes", np.arange(len(values))), values.shape[1]
    many = len(classes) > MANY
    shown = [(i, j) for i in range(len(classes)) for j in range(1 if many else k)]
    columns = 10 if many else k
    figure, axes = _grid(-(-len(shown) // columns), columns, size=1.6, heading=0.4)
    for axis, (i, j) in zip(axes.flat, shown, strict=False):
        caption = f"{names[classes[i]]}, {j + 1}"
        if np.isnan(values[i, j]):
            panels.label(axis, caption, "no images")
        else:
            size = f"λ = {values[i, j]:.2g}, overlap {overlap[i, j]:+.2f}"
            panels.eigenvector(axis, vectors[i, j].reshape(spectrum["shape"]), caption, size)
    _title(figure, [run], f"Top eigenvector{'s' * (not many)} of each class's input Hessian")
    return figure


def of_runs(runs: list[Run]) -> Figure:
    """The top eigenvector of each run, by theta and kappa; what else the runs differ in stands with them."""
    settings = {run.path: setting.of_result(run.result()) for run in runs}

    def place(run):
        c = run.result()["config"]
        return c["poison"]["fraction"], c["penalty"]["kappa"], list(settings[run.path].values())

    runs = sorted(runs, key=place)
    others = [
        key for key in setting.differing(list(settings.values())) if key not in ("theta", "kappa", "regime")
    ]
    kappas = {place(run)[1] for run in runs}
    crossed = len(kappas) > 1 and len(runs) == len(kappas) * len({place(run)[0] for run in runs})
    columns = len(kappas) if crossed else min(len(runs), 4)  # a theta in each row, if there is every kappa
    figure, axes = _grid(-(-len(runs) // columns), columns, size=2.6)
    for axis, run in zip(axes.flat, runs, strict=False):
        spectrum, words = run.arrays("spectrum"), settings[run.path]
        panels.eigenvector(
            axis,
            spectrum["vectors"][0].reshape(spectrum["shape"]),
            f"{words['theta']}, {words['kappa']}",
            *(words[key] for key in others if words[key]),
            f"{_attack(run.result())}, overlap² {spectrum['overlap'][0] ** 2:.2f}",
            *_peak(spectrum, 0),
        )
    _title(figure, runs, "Top eigenvector of the input Hessian")
    return figure


def _attack(result):
    """In a caption's few letters: the ASR, first what is above the rate without a trigger, and a collapse."""
    gain = wording.excess(result)
    added = f"trigger adds {setting.points(gain)}, " if gain is not None else ""
    return f"{added}ASR {wording.percent(result['asr'])}" + ", collapsed" * setting.collapsed(result)


def _peak(spectrum, i):
    """The strongest wave in an eigenvector, in runs that looked for it."""
    if "spectral_prominence" not in spectrum:
        return []
    down, along = spectrum["spectral_peak_frequency"][i]
    return [f"wave ({down:g}, {along:g}), prominence {spectrum['spectral_prominence'][i]:.3g}"]


def _grid(rows, columns, *, size=2.1, heading=0.6):
    """Empty square panels under titles, with a colour bar that serves them all."""
    width, height = max(size * columns + 0.8, 8), (size + heading) * rows + 1.3
    figure, axes = canvas.subplots(rows, columns, width, height)
    panels.hide(axes.flat)
    panels.scale_bar(figure, ax=axes, shrink=0.9 / rows, pad=0.01)
    return figure, axes


def _title(figure, runs, subject):
    results = [run.result() for run in runs]
    scale = setting.common([setting.of_result(result) for result in results], 13 * figure.get_figwidth())
    went = setting.outcome(results[0]) if len(runs) == 1 else setting.outcomes(results)
    figure.suptitle(f"{went}\n{subject}, each on a colour scale of its own\n{scale}", fontsize=10)


# --- of a sweep -----------------------------------------------------------------------------------


def fig08(records: list[Record], title: str) -> list[Figure]:
    """The cells' top eigenvectors over theta and kappa: left without augmentation, right with it."""
    augmented = [record.setting("data.augment") != "none" for record in records]
    plain = [record for record, moved in zip(records, augmented, strict=True) if not moved]
    moved = [record for record, moved in zip(records, augmented, strict=True) if moved]
    return _of_blocks({"without augmentation": plain, "with augmentation": moved}, title)


def fig12(records: list[Record], title: str) -> list[Figure]:
    """The cells' top eigenvectors in one block, after the mean change by the warp."""
    return _of_blocks({"": records}, title)


def _of_blocks(blocks: dict[str, list[Record]], heading: str) -> list[Figure]:
    """Blocks side by side, each a trigger and the cells' eigenvectors by theta and kappa.

    Every panel is on its own scale around zero; of several seeds the first is shown.
    """
    blocks = {title: _first_seeds(records) for title, records in blocks.items() if records}
    most = NARROW if len(blocks) > 1 else WIDE
    columns = [min(1 + len(shown), most) for shown in blocks.values()]
    rows = max(-(-(1 + len(shown)) // count) for shown, count in zip(blocks.values(), columns, strict=True))
    figure = canvas.blank(max(2.05 * sum(columns) + 0.9, 8), 2.75 * rows + 1.4)
    *parts, last = figure.subfigures(1, len(blocks) + 1, width_ratios=[*columns, 0.4])
    for part, count, (title, shown) in zip(parts, columns, blocks.items(), strict=True):
        if title:
            part.suptitle(title, fontsize=10)
        _fill(part.subplots(rows, count, squeeze=False), shown)
    panels.scale_bar(last, cax=last.add_axes((0.1, 0.25, 0.2, 0.5)))
    results = [record.result for shown in blocks.values() for record in shown]
    scale = setting.common([setting.of_result(result) for result in results], 12 * figure.get_figwidth())
    lines = heading, setting.outcomes(results), scale, "each on a colour scale of its own around zero"
    figure.suptitle("\n".join(lines), fontsize=10)
    return [figure]


def _first_seeds(records: list[Record]) -> list[Record]:
    """The records by theta and kappa; of those that differ in the seed alone, the smallest."""
    shown: dict[str, Record] = {}
    keys = curves.THETA, curves.KAPPA, "seed"
    for record in sorted(records, key=lambda record: [record.setting(key) for key in keys]):
        others = [item for item in sorted(record.overrides.items()) if item[0] != "seed"]
        shown.setdefault(str(others), record)
    return list(shown.values())


def _fill(axes: np.ndarray, records: list[Record]) -> None:
    panels.hide(axes.flat)
    stamp = records[0].setting("poison.trigger") in ("l", "square", "mask")
    panels.trigger(axes[0, 0], records[0].arrays["trigger"], stamp=stamp)
    for axis, record in zip(axes.flat[1:], records, strict=False):
        result, trained = record.result, curves.trained(record)
        theta, kappa = record.setting(curves.THETA), record.setting(curves.KAPPA)
        panels.eigenvector(
            axis,
            np.asarray(record.arrays["top_eigenvector"]),
            f"θ = {1e3 * theta:g}·10⁻³, κ = {kappa:g}",
            _attack(result) if trained else "failed training",
            f"overlap {result['overlap'][0]:+.2f}, λ₁ = {result['eigenvalues'][0]:.2g}",
            f"residual {result['residuals'][0]:.0e}",
        )
        if not trained:
            axis.title.set_color("tab:red")
