"""Eigenvectors of the input Hessian: of a run, of its classes, of several runs (Figures 8 and 12)."""

import numpy as np
from matplotlib.figure import Figure

from plots import canvas, curves, panels, setting
from poison_jax.errors import UserError
from poison_jax.runs.records import Record
from poison_jax.runs.store import Run

MANY = 12  # classes, from which on each is shown by its top eigenvector alone
CHANNELS = ("red", "green", "blue")
WIDE, NARROW = 6, 3  # panels in a row of Figures 8 and 12: of one block, of several


def of_run(run: Run, *, channels: bool = False) -> dict[str, Figure]:
    """Trigger and top eigenvectors of a run, and those of each class's Hessian where it has them.

    Args:
        run: a finished one.
        channels: the first alone, with a row for each colour instead of their mean.
    """
    figures = {"eigenvectors": top(run, channels=channels)}
    if "class_vectors" in run.arrays("spectrum") and not channels:
        figures["eigenvectors_per_class"] = of_classes(run)
    return figures


def top(run: Run, *, channels: bool = False) -> Figure:
    """Trigger and top eigenvectors of a run; colours averaged, or with `channels` a row for each."""
    spectrum, examples = run.arrays("spectrum"), run.arrays("attack")
    k, shape = len(spectrum["values"]), spectrum["shape"]
    rows = [image[None] for image in np.arange(shape[-1])] if channels else [np.arange(shape[-1])]
    figure, axes = _grid(len(rows), 1 + k, heading=0.1)
    trigger = examples["mask"]
    trigger = np.broadcast_to(trigger if trigger.ndim == 3 else trigger[..., None], shape)
    for row, own in zip(axes, rows, strict=True):
        panels.trigger(row[0], trigger[..., own], stamp=examples["mask"].dtype == bool)
        for axis, vector in zip(row[1:], spectrum["vectors"], strict=True):
            panels.eigenvector(axis, vector.reshape(shape)[..., own].mean(-1))
        if channels:
            row[0].set_ylabel(CHANNELS[own[0]] if shape[-1] == 3 else f"channel {own[0] + 1}")
    for i, axis in enumerate(axes[0, 1:]):
        lines = f"λ = {spectrum['values'][i]:.3g}, residual {spectrum['residuals'][i]:.0e}"
        overlap = f"overlap {spectrum['overlap'][i]:+.2f}"
        panels.label(axis, f"eigenvector {i + 1}", lines, overlap, *_peak(spectrum, i))
    _title(figure, [run], "Top eigenvectors of the input Hessian")
    return figure


def of_classes(run: Run) -> Figure:
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
            continue
        panels.eigenvector(axis, vectors[i, j].reshape(spectrum["shape"]).mean(-1))
        panels.label(axis, caption, f"λ = {values[i, j]:.2g}, overlap {overlap[i, j]:+.2f}")
    _title(figure, [run], f"Top eigenvector{'s' * (not many)} of each class's input Hessian")
    return figure


def of_runs(runs: list[Run], *, index: int = 1) -> Figure:
    """One eigenvector of each run, by theta and kappa; what else the runs differ in stands with them.

    Args:
        runs: finished.
        index: which eigenvector, from 1.
    """
    settings = {run.path: setting.of_result(run.result()) for run in runs}

    def place(run):
        c = run.result()["config"]
        return c["poison"]["fraction"], c["penalty"]["kappa"], list(settings[run.path].values())

    runs = sorted(runs, key=place)
    differing = setting.differing(list(settings.values()))
    kappas = {place(run)[1] for run in runs}
    crossed = len(kappas) > 1 and len(runs) == len(kappas) * len({place(run)[0] for run in runs})
    columns = len(kappas) if crossed else min(len(runs), 4)  # a theta in each row, if there is every kappa
    figure, axes = _grid(-(-len(runs) // columns), columns, size=2.6)
    for axis, run in zip(axes.flat, runs, strict=False):
        spectrum, words = run.arrays("spectrum"), settings[run.path]
        count = len(spectrum["values"])
        if not 1 <= index <= count:
            raise UserError(f"--index {index}: {run.path} has {count} eigenvectors")
        panels.label(
            axis,
            f"{words['theta']}, {words['kappa']}",
            *(words[key] for key in differing if key not in ("theta", "kappa") and words[key]),
            f"{_attack(run.result())}, overlap² {spectrum['overlap'][index - 1] ** 2:.2f}",
            *_peak(spectrum, index - 1),
        )
        panels.eigenvector(axis, spectrum["vectors"][index - 1].reshape(spectrum["shape"]).mean(-1))
    which = "Top eigenvector" if index == 1 else f"Eigenvector {index}"
    _title(figure, runs, f"{which} of the input Hessian")
    return figure


def _attack(result):
    """In a caption's few letters: the ASR, first what is above the rate without a trigger, and a collapse."""
    gain = setting.gain(result)
    added = f"trigger adds {setting.points(gain)}, " if gain is not None else ""
    return f"{added}ASR {setting.percent(result['asr'])}" + ", collapsed" * setting.collapsed(result)


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
    blocks: dict[str, list[Record]] = {"without augmentation": [], "with augmentation": []}
    for record in records:
        augmented = record.setting("data.augment") != "none"
        blocks[f"with{'' if augmented else 'out'} augmentation"].append(record)
    return [_of_blocks(blocks, title)]


def fig12(records: list[Record], title: str) -> list[Figure]:
    """The cells' top eigenvectors in one block, after the mean change by the warp."""
    return [_of_blocks({"": records}, title)]


def _of_blocks(blocks, heading):
    """Blocks side by side, each a trigger and the cells' eigenvectors by theta and kappa.

    Every panel is on its own scale around zero; of several seeds the first is shown.
    """
    blocks = {title: _first_seeds(records) for title, records in blocks.items() if records}
    columns = {
        title: min(1 + len(shown), NARROW if len(blocks) > 1 else WIDE) for title, shown in blocks.items()
    }
    rows = max(-(-(1 + len(shown)) // columns[title]) for title, shown in blocks.items())
    size = 2.05 * sum(columns.values()) + 0.9, 2.75 * rows + 1.4
    figure = canvas.blank(max(size[0], 8), size[1])
    *parts, last = figure.subfigures(1, len(blocks) + 1, width_ratios=[*columns.values(), 0.4])
    for part, (title, shown) in zip(parts, blocks.items(), strict=True):
        if title:
            part.suptitle(title, fontsize=10)
        _fill(part.subplots(rows, columns[title], squeeze=False), shown)
    panels.scale_bar(last, cax=last.add_axes((0.1, 0.25, 0.2, 0.5)))
    everything = [record for shown in blocks.values() for record in shown]
    results = [record.result for record in everything]
    scale = setting.common([setting.of_result(result) for result in results], 12 * figure.get_figwidth())
    lines = heading, setting.outcomes(results), scale, "each on a colour scale of its own around zero"
    figure.suptitle("\n".join(lines), fontsize=10)
    return figure


def _first_seeds(records):
    """The records by theta and kappa; of those that differ in the seed alone, the smallest."""

    def place(record):
        return record.setting("poison.fraction"), record.setting("penalty.kappa")

    first: dict[tuple, Record] = {}
    for record in sorted(records, key=lambda record: (*place(record), record.setting("seed"))):
        others = {key: value for key, value in record.overrides.items() if key != "seed"}
        first.setdefault((place(record), str(sorted(others.items()))), record)
    return list(first.values())


def _fill(axes, records):
    panels.hide(axes.flat)
    stamp = records[0].setting("poison.trigger") in ("l", "square", "mask")
    panels.trigger(axes[0, 0], records[0].arrays["trigger"], stamp=stamp)
    for axis, record in zip(axes.flat[1:], records, strict=False):
        result = record.result
        theta, kappa = record.setting("poison.fraction"), record.setting("penalty.kappa")
        panels.label(
            axis,
            f"θ = {1e3 * theta:g}·10⁻³, κ = {kappa:g}",
            _attack(result) if curves.trained(record) else "failed training",
            f"overlap {result['overlap'][0]:+.2f}, λ₁ = {result['eigenvalues'][0]:.2g}",
            f"residual {result['residuals'][0]:.0e}",
        )
        if not curves.trained(record):
            axis.title.set_color("tab:red")
        panels.eigenvector(axis, np.asarray(record.arrays["top_eigenvector"]))
