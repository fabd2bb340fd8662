"""Figures 8 and 12, from stored runs: `python plots/eigenvectors.py RUN [RUN ...] [--out FILE.png]`.

One run: the top eigenvectors of its input Hessian beside its trigger, and those of each class's Hessian
where it has them. Several runs: an eigenvector of each (`--index`, 1 is the top one), by theta and kappa.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from plots import command, foreign, setting
from poison_jax.errors import UserError
from poison_jax.runs.store import Run

MANY = 12  # classes, from which on each is shown by its top eigenvector alone
CHANNELS = ("red", "green", "blue")


def draw(run: Run) -> list[Path]:
    """`eigenvectors.png`, and `eigenvectors_per_class.png` if there is anything to show, beside the run."""
    figures = {"eigenvectors.png": of_run(run)}
    if "class_vectors" in run.arrays("spectrum"):
        figures["eigenvectors_per_class.png"] = of_classes(run)
    return [_save(figure, run.path / name) for name, figure in figures.items()]


def of_run(run: Run, *, channels: bool = False) -> plt.Figure:
    """Trigger and top eigenvectors of a run; colours averaged, or with `channels` a row for each."""
    spectrum, examples = run.arrays("spectrum"), run.arrays("attack")
    k, shape = len(spectrum["values"]), spectrum["shape"]
    rows = [image[None] for image in np.arange(shape[-1])] if channels else [np.arange(shape[-1])]
    figure, axes = _panels(len(rows), 1 + k, heading=0.1)
    trigger = np.abs(examples["mask"].astype(float))  # of a stamp; of a warp or a blend the mean change
    trigger = np.broadcast_to(trigger if trigger.ndim == 3 else trigger[..., None], shape)
    for row, own in zip(axes, rows, strict=True):
        image = trigger[..., own].mean(-1)
        row[0].imshow(image, cmap="gray_r", vmin=0, vmax=image.max() or 1)
        row[0].axis("on")
        row[0].set(xticks=[], yticks=[])
        for axis, vector in zip(row[1:], spectrum["vectors"], strict=True):
            show(axis, vector.reshape(shape)[..., own].mean(-1))
        if channels:
            row[0].set_ylabel(CHANNELS[own[0]] if shape[-1] == 3 else f"channel {own[0] + 1}")
    label(axes[0, 0], "trigger" if examples["mask"].dtype == bool else "mean change by the trigger")
    for i, axis in enumerate(axes[0, 1:]):
        label(axis, *_caption(spectrum, i))
    _title(figure, [run], "Top eigenvectors of the input Hessian")
    return figure


def of_classes(run: Run) -> plt.Figure:
    """Eigenvectors of each class's Hessian: a row of all for a class, or its top one if there are many."""
    spectrum, names = run.arrays("spectrum"), run.arrays("attack")["class_names"]
    values, vectors, overlap = (spectrum[f"class_{key}"] for key in ("values", "vectors", "overlap"))
    classes, k = spectrum.get("classes", np.arange(len(values))), values.shape[1]
    many = len(classes) > MANY
    panels = [(i, j) for i in range(len(classes)) for j in range(1 if many else k)]
    columns = 10 if many else k
    figure, axes = _panels(-(-len(panels) // columns), columns, size=1.6, heading=0.4)
    for axis, (i, j) in zip(axes.flat, panels, strict=False):
        caption = f"{foreign.literal(names[classes[i]])}, {j + 1}"
        if np.isnan(values[i, j]):
            label(axis, caption, "no images")
            continue
        show(axis, vectors[i, j].reshape(spectrum["shape"]).mean(-1))
        label(axis, caption, f"λ = {values[i, j]:.2g}, overlap {overlap[i, j]:+.2f}")
    _title(
        figure, [run], f"{'Top eigenvector' if many else 'Top eigenvectors'} of each class's input Hessian"
    )
    return figure


def of_runs(runs: list[Run], *, index: int = 1) -> plt.Figure:
    """One eigenvector of each run, by theta and kappa; what else the runs differ in stands with them.

    Args:
        runs: finished.
        index: which eigenvector, from 1.
    """
    settings = {run.path: setting.words(run.result()) for run in runs}

    def place(run):
        c = run.result()["config"]
        return c["poison"]["fraction"], c["penalty"]["kappa"], list(settings[run.path].values())

    runs = sorted(runs, key=place)
    differing = setting.differing(list(settings.values()))
    kappas = {place(run)[1] for run in runs}
    crossed = len(kappas) > 1 and len(runs) == len(kappas) * len({place(run)[0] for run in runs})
    columns = len(kappas) if crossed else min(len(runs), 4)  # a theta in each row, if there is every kappa
    figure, axes = _panels(-(-len(runs) // columns), columns, size=2.6)
    for axis, run in zip(axes.flat, runs, strict=False):
        result, spectrum = run.result(), run.arrays("spectrum")
        words = settings[run.path]
        label(
            axis,
            f"{words['theta']}, {words['kappa']}",
            *(words[key] for key in differing if key not in ("theta", "kappa") and words[key]),
            f"ASR {_percent(result['asr'])}, overlap² {spectrum['overlap'][index - 1] ** 2:.2f}",
            *_peak(spectrum, index - 1),
        )
        show(axis, spectrum["vectors"][index - 1].reshape(spectrum["shape"]).mean(-1))
    which = "Top eigenvector" if index == 1 else f"Eigenvector {index}"
    _title(figure, runs, f"{which} of the input Hessian")
    return figure


def _caption(spectrum, i):
    return (
        f"eigenvector {i + 1}",
        f"λ = {spectrum['values'][i]:.3g}, residual {spectrum['residuals'][i]:.0e}",
        f"overlap {spectrum['overlap'][i]:+.2f}",
        *_peak(spectrum, i),
    )


def _peak(spectrum, i):
    """The strongest wave in an eigenvector, in runs that looked for it."""
    if "spectral_prominence" not in spectrum:
        return []
    down, along = spectrum["spectral_peak_frequency"][i]
    return [f"wave ({down:g}, {along:g}), prominence {spectrum['spectral_prominence'][i]:.3g}"]


def _panels(rows, columns, *, size=2.1, heading=0.6):
    """Empty square panels under titles, with a colour bar that serves them all."""
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(max(size * columns + 0.8, 8), (size + heading) * rows + 1.3),
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat:
        axis.axis("off")
    scale_bar(figure, ax=axes, shrink=0.9 / rows, pad=0.01)
    return figure, axes


def scale_bar(figure: plt.Figure, **where: Any) -> None:
    """The colour bar that serves every panel; `where` as `plt.colorbar` takes it."""
    scale = plt.cm.ScalarMappable(plt.Normalize(-1, 1), "RdBu_r")
    bar = figure.colorbar(scale, **where)
    bar.ax.tick_params(labelsize=8)
    bar.set_ticks([-1, 0, 1], labels=["-max", "0", "+max"])


def label(axis: plt.Axes, *lines: str) -> None:
    """A panel's caption."""
    axis.set_title("\n".join(lines), fontsize=8)


def show(axis: plt.Axes, image: np.ndarray) -> None:
    """An eigenvector on its own scale around zero; colours are averaged, since they would hide the sign."""
    limit = np.abs(image).max() or 1
    axis.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)


def _title(figure, runs, subject):
    text = setting.common([run.result() for run in runs], int(13 * figure.get_figwidth()))
    figure.suptitle(f"{subject}, each on a colour scale of its own\n{text}", fontsize=10)


def _percent(value):
    return "-" if value is None else f"{value:.1%}"


def _save(figure, file):
    (written,) = command.write(figure, file, dpi=110)
    return written


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Run, metavar="RUN", help="directory of a finished run")
    parser.add_argument("--out", type=Path, help="PNG file to write (default: in the run's directory)")
    parser.add_argument("--index", type=int, default=1, help="of several runs: which eigenvector, from 1")
    parser.add_argument("--channels", action="store_true", help="of one run: a row for each colour")
    options = parser.parse_args(arguments)
    with command.one_line(", ".join(str(run.path) for run in options.runs)):
        print(*_chosen(options))


def _chosen(options: argparse.Namespace) -> list[Path]:
    """The pictures that the command line asks for."""
    for run in options.runs:
        result = run.result()
        if result is None or "eigenvalues" not in result:
            raise UserError(f"{run.path} holds no finished run of a trained network")
        if not 1 <= options.index <= len(result["eigenvalues"]):
            raise UserError(
                f"--index {options.index}: {run.path} has {len(result['eigenvalues'])} eigenvectors"
            )
    if len(options.runs) > 1:
        figure = of_runs(options.runs, index=options.index)
        return [_save(figure, options.out or Path("eigenvectors.png"))]
    (run,) = options.runs
    if options.out or options.channels:
        figure = of_run(run, channels=options.channels)
        return [_save(figure, options.out or run.path / "eigenvectors.png")]
    return draw(run)


if __name__ == "__main__":
    main()
