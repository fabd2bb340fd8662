"""Figures 1 to 3 and Table 3 of a network: its features of clean and triggered test images."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerPatch
from matplotlib.patches import Ellipse, FancyArrowPatch

from plots import canvas, panels, setting, tables
from poison_jax import wording
from poison_jax.runs.store import Run

# Okabe and Ito's colours without black, and two more: told apart by the colour-blind.
# fmt: off
COLOURS = (
    "#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7",
    "#56B4E9", "#882255", "#999933", "#332288", "#777777",
)
# fmt: on
TARGET, OTHER = COLOURS[0], COLOURS[1]


def of_run(run: Run) -> dict[str, Figure | str]:
    """Figures 1, 2 and 3 and Table 3; of a run that is not finished, too."""
    measured, result = run.arrays("features"), run.result() or {}
    went = setting.outcome(result) if result else "training not finished"
    if result.get("clean_accuracy") is not None:
        went += f", clean accuracy {wording.percent(result['clean_accuracy'])}"
    about = setting.words(run.config()) | {"regime": setting.regime([result])}
    title = f"{went}\n{setting.common([about], 100)}"
    return {
        "figure1": figure1(measured, title),
        "figure2": figure2(measured, title),
        "figure3": figure3(measured, title),
        "table3": table3(measured, title),
    }


def _name(measured, c):
    """A class as `0 (airplane)`; only `0` where that is its name."""
    name = str(measured["class_names"][c])
    return name if name == str(c) else f"{c} ({name})"


# --- Figure 1 -------------------------------------------------------------------------------------


def figure1(measured: dict[str, np.ndarray], title: str) -> Figure:
    """Input, last feature map and pre-fc features of three images, each row on one scale of colours."""
    target, source = (_name(measured, measured[key]) for key in ("target", "source"))
    vectors = measured["vectors"]
    side = math.ceil(math.sqrt(vectors.shape[1]))
    tiles = np.full((3, side * math.ceil(vectors.shape[1] / side)), np.nan)
    tiles[:, : vectors.shape[1]] = vectors
    figure, axes = canvas.subplots(3, 3, 9.5, 10.6)
    figure.suptitle(f"{title}\nthe first test images of the target and of the source class", fontsize=11)
    columns = (f"class {target}: the target", f"class {source}", f"class {source}, triggered")
    for i, (axis, column) in enumerate(zip(axes[0], columns, strict=True)):
        panels.image(axis, measured["pictures"][i])
        posterior = f"p(y = {measured['target']} | x) = {measured['posteriors'][i]:.3g}"
        axis.set_title(f"{column}\n{posterior}", fontsize=11)
    for row, images in zip(axes[1:], (measured["maps"], tiles.reshape(3, -1, side)), strict=True):
        low, high = np.nanmin(images), np.nanmax(images)
        for axis, image in zip(row, images, strict=True):
            panel = axis.imshow(image, cmap="viridis", vmin=low, vmax=high)
        figure.colorbar(panel, ax=row, shrink=0.85, pad=0.02)
    for axis, vector in zip(axes[2], vectors, strict=True):
        distance = np.linalg.norm(vector - vectors[0])
        axis.set_xlabel(f"distance to the first {distance:.2g}\ncosine with it {_cosine(vector, vectors[0])}")
    labels = "last feature map\n(mean over channels)", f"pre-fc features\n({vectors.shape[1]}, row by row)"
    for axis, label in zip(axes[:, 0], ("input", *labels), strict=True):
        axis.set_ylabel(label, fontsize=11)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure


def _cosine(a, b):
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return f"{a @ b / norms:.2f}" if norms > 0 else "–"


# --- Figure 2 -------------------------------------------------------------------------------------


def figure2(measured: dict[str, np.ndarray], title: str) -> Figure:
    """The target, the source and the source with the trigger, in input and in feature space."""
    target, source = (_name(measured, measured[key]) for key in ("target", "source"))
    clouds = {  # the triggered images are drawn last and as open marks: what is below stays visible
        "target": (f"class {target}, clean: the target", {"color": TARGET, "marker": "o", "alpha": 0.55}),
        "source": (f"class {source}, clean", {"color": OTHER, "marker": "^", "alpha": 0.55}),
        "triggered": (f"class {source}, triggered", {"color": "k", "marker": "x", "linewidths": 0.9}),
    }
    figure, (axes,) = canvas.subplots(1, 2, 13, 6.8)
    figure.suptitle(f"{title}\nprincipal components of the two classes' clean test images", fontsize=11)
    for axis, (space, where) in zip(
        axes, {"input": "input space", "feature": "pre-fc features"}.items(), strict=True
    ):
        for key, (label, style) in clouds.items():
            points = measured[f"{space}_{key}"]
            size = float(np.clip(4000 / len(points), 6, 30))
            axis.scatter(*points.T, s=size, label=f"{label}, {len(points):,} images", **style)
        moved, clean = measured[f"{space}_moved"], measured[f"{space}_moved_clean"]
        axis.set_title(
            f"{where}: nearer to the target's mean than to the source's\n"
            f"{moved:.0%} of the source's images with the trigger, {clean:.0%} without",
            fontsize=11,
        )
        _axes_of_plane(axis, measured[f"{space}_explained"])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, markerscale=1.5)
    return figure


def _axes_of_plane(axis, explained):
    axis.set_xlabel(f"ψ₁, {explained[0]:.0%} of the variance")
    axis.set_ylabel(f"ψ₂, {explained[1]:.0%}")
    axis.grid(alpha=0.3)


# --- Figure 3 -------------------------------------------------------------------------------------


def figure3(measured: dict[str, np.ndarray], title: str) -> Figure:
    """Means and ellipses of all classes; of more classes than there are colours, only the target's own."""
    target, count = int(measured["target"]), measured["count"]
    few = len(count) <= len(COLOURS)
    figure, ((axis,),) = canvas.subplots(1, 1, 10, 9.8)
    images = f"{len(measured['labels']):,} test images"
    figure.suptitle(f"{title}\npre-fc features of {images}, means and spreads of the classes", fontsize=11)
    handles, labels = [], []

    def spread(kind, c, **style):
        for sigmas, line in ((1, "-"), (2, "--")):
            if few or c == target or sigmas == 1:
                width, height = 2 * sigmas * measured[f"{kind}_half_axes"][c]
                angle = np.degrees(measured[f"{kind}_angle"][c])
                centre = measured[f"{kind}_centre"][c]
                axis.add_patch(Ellipse(centre, width, height, angle=angle, fill=False, ls=line, **style))

    # The target last, over the others.
    present = [c for c in np.flatnonzero(count) if c != target]
    for c in [*present, target]:
        if not count[c]:
            continue
        strong = few or c == target
        colour = COLOURS[c] if few else TARGET if c == target else OTHER
        before, after = measured["clean_centre"][c], measured["triggered_centre"][c]
        spread("clean", c, color=colour, lw=1.8 if strong else 0.6, alpha=0.9 if strong else 0.35)
        spread("triggered", c, color="k", lw=0.9 if strong else 0.4, alpha=0.65 if strong else 0.3)
        arrow = {"arrowstyle": "-|>", "mutation_scale": 13 if strong else 6, "shrinkA": 8 if few else 0}
        line = {"color": colour, "lw": 1.6 if strong else 0.6, "alpha": 0.9 if strong else 0.5}
        axis.add_patch(FancyArrowPatch(before, after, shrinkB=0, zorder=4, **arrow, **line))
        (dot,) = axis.plot(*before, "o", color=colour, ms=14 if strong else 4, mec="w", zorder=5)
        axis.plot(*after, "o", color="k", ms=4 if strong else 2, zorder=6)
        if strong:
            axis.annotate(str(c), before, color="w", ha="center", va="center", fontsize=8, zorder=7)
        if few:
            handles.append(dot)
            labels.append(_name(measured, c) + (", the target" if c == target else ""))
    order = sorted(range(len(labels)), key=lambda i: labels[i]) if few else []
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    if not few:
        for colour, size, label in (
            (TARGET, 12, f"{_name(measured, target)}, the target"),
            (OTHER, 4, "others"),
        ):
            handles += axis.plot([], [], "o", color=colour, ms=size, mec="w")
            labels.append(f"clean mean of {label}")
    handles += axis.plot([], [], "o", color="k", ms=4)
    labels.append("mean with the trigger")
    for line, label in (("-", "1σ"), ("--", "2σ" if few else "2σ, target only")):
        handles += axis.plot([], [], line, color="0.45")
        labels.append(f"{label} (coloured: clean, black: triggered)")
    handles.append(FancyArrowPatch((0, 0), (1, 0), color="0.45"))
    labels.append("shift of the mean by the trigger")
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=3,
        fontsize=9,
        handler_map={FancyArrowPatch: HandlerPatch(patch_func=_arrow)},
    )
    axis.autoscale_view()
    axis.set_aspect("equal", adjustable="datalim")
    _axes_of_plane(axis, measured["explained"])
    return figure


def _arrow(legend, orig_handle, xdescent, ydescent, width, height, fontsize):
    """The arrow of a legend's line."""
    middle = height / 2 - ydescent
    return FancyArrowPatch(
        (-xdescent, middle), (width - xdescent, middle), arrowstyle="-|>", mutation_scale=12
    )


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


def table3(measured: dict[str, np.ndarray], title: str) -> str:
    """All columns of Table 3 for every class, and the measures of neural collapse."""
    target = tables.markdown(_name(measured, int(measured["target"])))
    count = f"{len(measured['labels']):,} test images"
    said = tables.markdown(", ".join(line.rstrip(",") for line in title.split("\n")))
    head = f"**Table 3.** Pre-fc features of clean and triggered test images: {said}, {count}."
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
