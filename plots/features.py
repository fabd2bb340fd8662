"""Figures 1 to 3 and Table 3 of a network: its features of clean and triggered test images."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch

from plots import canvas, panels, setting, tables
from plots.canvas import WIDTH
from poison_jax import wording
from poison_jax.runs.store import Run

# Colours of ten classes: the project's without black, and more of the kind.
COLOURS = [*panels.COLOURS[1:], "#882255", "#999933", "#332288", "#777777"]
TARGET, OTHER = panels.RED, panels.BLUE


def of_run(run: Run) -> dict[str, Figure | str]:
    """Figures 1, 2 and 3 and Table 3; of a run that is not finished, too."""
    measured, result = run.arrays("features"), run.result() or {}
    went = setting.outcome(result) if result else "training not finished"
    if result.get("clean_accuracy") is not None:
        went += f", clean accuracy {wording.percent(result['clean_accuracy'])}"
    about = setting.words(run.config()) | {"regime": setting.regime([result])}
    said = went, setting.common([about])
    return {
        "figure1": figure1(measured, *said),
        "figure2": figure2(measured, *said),
        "figure3": figure3(measured, *said),
        "table3": table3(measured, *said),
    }


def _name(measured, c):
    """A class as `0 (airplane)`; only `0` where that is its name."""
    name = str(measured["class_names"][c])
    return name if name == str(c) else f"{c} ({name})"


# --- Figure 1 -------------------------------------------------------------------------------------


def figure1(measured: dict[str, np.ndarray], *said: str) -> Figure:
    """Input, last feature map and pre-fc features of three images, each row on one scale of colours."""
    target, source = (_name(measured, measured[key]) for key in ("target", "source"))
    vectors = measured["vectors"]
    side = math.ceil(math.sqrt(vectors.shape[1]))
    tiles = np.full((3, side * math.ceil(vectors.shape[1] / side)), np.nan)
    tiles[:, : vectors.shape[1]] = vectors
    figure, axes = canvas.subplots(3, 3, WIDTH, 7.4)
    shown = "Input, last feature map (mean over channels) and pre-fc features (row by row) of the first test"
    canvas.describe(figure, f"{shown} images of the target and of the source class", *said)
    columns = (f"{target}, the target", source, f"{source}, triggered")
    for i, (axis, column) in enumerate(zip(axes[0], columns, strict=True)):
        panels.image(axis, measured["pictures"][i])
        posterior = f"p(y = {measured['target']} | x) = {measured['posteriors'][i]:.3g}"
        axis.set_title(f"{column}\n{posterior}", fontsize=10)
    for row, images in zip(axes[1:], (measured["maps"], tiles.reshape(3, -1, side)), strict=True):
        low, high = np.nanmin(images), np.nanmax(images)
        for axis, image in zip(row, images, strict=True):
            panel = axis.imshow(image, cmap="viridis", vmin=low, vmax=high)
        figure.colorbar(panel, ax=row, shrink=0.85, pad=0.02)
    for axis, vector in zip(axes[2], vectors, strict=True):
        distance = np.linalg.norm(vector - vectors[0])
        axis.set_xlabel(
            f"distance to the first {distance:.2g}\ncosine with it {_cosine(vector, vectors[0])}", fontsize=10
        )
    labels = "input", "last feature map", f"{vectors.shape[1]} pre-fc features"
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)
    for axis in axes.flat:
        panels.frame(axis)
    return figure


def _cosine(a, b):
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return f"{a @ b / norms:.2f}" if norms > 0 else "–"


# --- Figure 2 -------------------------------------------------------------------------------------


def figure2(measured: dict[str, np.ndarray], *said: str) -> Figure:
    """The target, the source and the source with the trigger, in input and in feature space."""
    target, source = (_name(measured, measured[key]) for key in ("target", "source"))
    clouds = {  # the triggered images are drawn last and as open marks: what is below stays visible
        "target": (f"class {target}, clean: the target", {"color": TARGET, "marker": "o", "alpha": 0.55}),
        "source": (f"class {source}, clean", {"color": OTHER, "marker": "^", "alpha": 0.55}),
        "triggered": (f"class {source}, triggered", {"color": "k", "marker": "x", "linewidths": 0.9}),
    }
    figure, (axes,) = canvas.subplots(1, 2, WIDTH, 4.4)
    shown = "Test images in the plane of the first principal components of the two classes' clean ones"
    spaces, nearer = {"input": "input space", "feature": "pre-fc features"}, []
    for axis, (space, where) in zip(axes, spaces.items(), strict=True):
        for key, (label, style) in clouds.items():
            points = measured[f"{space}_{key}"]
            size = float(np.clip(4000 / len(points), 6, 30))
            axis.scatter(*points.T, s=size, label=f"{label}, {len(points):,} images", **style)
        moved, clean = measured[f"{space}_moved"], measured[f"{space}_moved_clean"]
        axis.set_title(where)
        nearer.append(f"in {where} {moved:.0%} with the trigger, {clean:.0%} without")
        _axes_of_plane(axis, measured[f"{space}_explained"])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1, markerscale=1.5)
    moved = f"Nearer to the target's mean than to the source's: {'; '.join(nearer)}"
    canvas.describe(figure, shown, moved, *said)
    return figure


def _axes_of_plane(axis, explained):
    axis.set_xlabel(f"ψ₁, {explained[0]:.0%} of the variance")
    axis.set_ylabel(f"ψ₂, {explained[1]:.0%}")


# --- Figure 3 -------------------------------------------------------------------------------------


def figure3(measured: dict[str, np.ndarray], *said: str) -> Figure:
    """Of each class the clean mean, an ellipse of one standard deviation, an arrow to the triggered mean.

    Of more classes than there are colours the target stands out.
    """
    target, count = int(measured["target"]), measured["count"]
    few = len(count) <= len(COLOURS)
    figure, ((axis,),) = canvas.subplots(1, 1, WIDTH, 6.6)
    present = [c for c in np.flatnonzero(count) if c != target]
    for c in [*present, target] if count[target] else present:  # the target over the others
        strong = few or c == target
        colour = COLOURS[c] if few else TARGET if c == target else OTHER
        before, after = measured["clean_centre"][c], measured["triggered_centre"][c]
        size, angle = 2 * measured["clean_half_axes"][c], np.degrees(measured["clean_angle"][c])
        style = {"color": colour, "lw": 1.6, "alpha": 0.9 if strong else 0.35}
        axis.add_patch(
            Ellipse(before, *size, angle=angle, fill=False, ls="-" if c == target else "--", **style)
        )
        arrow = {"arrowstyle": "-|>", "mutation_scale": 14, "shrinkA": 7, "shrinkB": 0, "zorder": 4}
        axis.add_patch(FancyArrowPatch(before, after, **arrow, **style))
        label = _name(measured, c) + ", the target" * int(c == target) if strong else None
        axis.plot(*before, "o", color=colour, ms=15 if strong else 4, mec="w", zorder=5, label=label)
        if strong:
            axis.annotate(str(c), before, color="w", ha="center", va="center", fontsize=9, zorder=7)
    axis.autoscale_view()
    axis.set_aspect("equal", adjustable="datalim")
    _axes_of_plane(axis, measured["explained"])
    handles, labels = axis.get_legend_handles_labels()
    order = np.argsort(labels)
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside lower center",
        ncols=3,
        markerscale=0.6,
    )
    images = f"{len(measured['labels']):,} test images"
    shown = f"Pre-fc features of {images} in the plane of the clean features' principal components"
    drawn = (
        "Of each class the clean mean, an ellipse of one standard deviation (the target's solid), an arrow"
    )
    canvas.describe(figure, shown, f"{drawn} to the mean with the trigger", *said)
    return figure


# --- Table 3 --------------------------------------------------------------------------------------

COLLAPSE = {
    "NC1, variability within classes": "nc1",
    "NC2, norms of the class means": "nc2_norms",
    "NC2, angles of the class means": "nc2_angles",
    "NC2, norms of the classifier": "nc2_weight_norms",
    "NC2, angles of the classifier": "nc2_weight_angles",
    "NC3, classifier against class means": "nc3",
    "NC4, decisions that differ from the nearest class mean": "nc4",
}


def table3(measured: dict[str, np.ndarray], *said: str) -> str:
    """All columns of Table 3 for every class, and the measures of neural collapse."""
    target = tables.markdown(_name(measured, int(measured["target"])))
    count = f"{len(measured['labels']):,} test images"
    about = tables.markdown(", ".join(said))
    head = f"**Table 3.** Pre-fc features of clean and triggered test images: {about}, {count}."
    rows = []
    for c in range(len(measured["count"])):
        numbers = (tables.number(measured[field][c]) for field in tables.FEATURES.values())
        rows.append([tables.markdown(_name(measured, c)), *numbers])
    collapse = [[name, tables.number(measured[field])] for name, field in COLLAPSE.items()]
    parts = (
        head,
        f"{tables.FEATURES_NOTE}, {target}.",
        tables.table(tables.FEATURES_HEADER, rows),
        "Neural collapse of the clean features (0: complete):",
        tables.table(["measure", "value"], collapse),
    )
    return "\n\n".join(parts) + "\n"
