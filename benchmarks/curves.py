"""Is the cost linear in the FLOPs, whatever makes them more: batch, depth, width, the number of images?"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import ours, timing
from poison_jax import console
from poison_jax.sweeps import flops

PRODUCTS = 4  # of a point: the Hessian's linearisation is shared by so few only
STEP, PRODUCT = "penalised step", "Hessian product"


class Sizes(NamedTuple):
    """What is measured, and how often."""

    depth: int = 20
    width: int = 16
    batch: int = 128  # of the tables
    small: int = 64  # of the curves that vary something else
    batches: tuple[int, ...] = (16, 32, 64, 128, 256)
    depths: tuple[int, ...] = (8, 14, 20, 32, 44)
    widths: tuple[int, ...] = (4, 8, 16, 24, 32)
    images: tuple[int, ...] = (64, 128, 256, 512, 1024)
    matmul: int = 2048
    devices: tuple[int, ...] = (1, 2, 8)
    repeats: int = 2  # child processes for each number of devices
    steps: int = 5  # timed in each of them
    products: int = 26  # of the first table, as in the experiments
    table: timing.Rounds = timing.Rounds(3, 10, 40)
    curves: timing.Rounds = timing.Rounds(3, 7, 20)

    def on_accelerator(self, times: int = 8) -> "Sizes":
        """`times` as many images and a larger matrix, so that the device has enough to do."""
        return self._replace(
            matmul=8192,
            batch=times * self.batch,
            small=times * self.small,
            batches=tuple(times * n for n in self.batches),
            images=tuple(times * n for n in self.images),
        )


QUICK = Sizes(
    depth=8,  # compiles in half the time
    batch=32,
    small=32,
    batches=(16, 32, 64),
    depths=(8, 14, 20),
    widths=(8, 16, 32),
    images=(32, 64, 128),
    repeats=1,
    steps=3,
    products=8,
    table=timing.Rounds(2, 3, 6),
    curves=timing.Rounds(2, 3, 2),
)


class Line(NamedTuple):
    """The least-squares line `seconds = fixed + slope GFLOP`, and how well it describes the points."""

    fixed: float
    slope: float
    r2: float
    deviation: float  # the largest, relative to the point
    exponent: float  # of the power law through the points: 1 is proportional


class Curve(NamedTuple):
    """The seconds that one cost takes while `variable` runs through `values`."""

    variable: str
    cost: str  # `penalised step` or `Hessian product`
    values: tuple[int, ...]
    gflop: tuple[float, ...]
    seconds: tuple[float, ...]
    line: Line


def curves(sizes: Sizes) -> Iterator[Curve]:
    """Batch size, depth and width for both costs, the number of images for the Hessian."""
    # Steps on one device, as the Hessian products beside them.
    common = {"depth": sizes.depth, "width": sizes.width, "batch": sizes.small}
    for variable, values in (("batch", sizes.batches), ("depth", sizes.depths), ("width", sizes.widths)):
        points = {value: common | {variable: value} for value in values}
        trainings = {
            value: ours.Training(penalised=True, devices=1, **point) for value, point in points.items()
        }
        steps = {value: training.step for value, training in trainings.items()}
        yield _curve(variable, STEP, points, steps, sizes)
        for value, training in trainings.items():
            check_finite(f"{STEP}, {variable} {value}", training)
        products = {
            value: _hessian(trainings[value], point["batch"], point["batch"])
            for value, point in points.items()
        }
        yield _curve(variable, PRODUCT, points, products, sizes)
    training = ours.Training(penalised=True, devices=1, **common)
    points = {count: common | {"batch": count} for count in sizes.images}
    products = {count: _hessian(training, count, sizes.small) for count in sizes.images}
    yield _curve("images", PRODUCT, points, products, sizes)


def _hessian(training: ours.Training, count: int, batch: int) -> Callable[[], np.ndarray]:
    model, variables = training.program.model, jax.device_get(training.state.variables)
    images, labels = ours.random_inputs(count)
    return ours.Hessian(model, variables, images, labels, 1, PRODUCTS - 2, batch).eigenvalues


def _curve(variable: str, cost: str, points: Mapping[int, dict], runs: Mapping, sizes: Sizes) -> Curve:
    """Medians of interleaved repetitions of every point, and the line through them."""
    repeats = measured(runs, sizes.curves)
    calls = PRODUCTS if cost == PRODUCT else 1
    seconds = tuple(statistics.median(repeats[value]) / calls for value in points)
    gflop = tuple(
        point["batch"] * image_flops(cost, point["depth"], point["width"]) / 1e9 for point in points.values()
    )
    return Curve(variable, cost, tuple(points), gflop, seconds, fit(gflop, seconds))


def measured(sides: Mapping, rounds: timing.Rounds) -> dict:
    """`timing.interleaved`, after two calls of every side (the first compiles)."""
    for run in sides.values():
        run()
        run()
    return timing.interleaved(sides, rounds)


def check_finite(name: str, training: ours.Training) -> None:
    """Warns where the parameters of a training that was timed are not finite."""
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(training.state.params)):
        console.warn(f"{name}: the parameters went to infinity while it was timed")


def image_flops(cost: str, depth: int, width: int) -> float:
    """Of one image's part of a penalised step, or of one of `PRODUCTS` Hessian products."""
    forward = flops.preresnet_forward(depth, ours.CLASSES, ours.IMAGE_SHAPE, width=width)
    if cost == STEP:
        return flops.penalised_step(*forward)
    return flops.hessian_products(forward[0], PRODUCTS) / PRODUCTS


def fit(x, y) -> Line:
    """The line through points `(x, y)`, all positive.

    >>> fit([1, 2, 4], [3, 5, 9])[:2]
    (1.0, 2.0)
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    slope, fixed = np.polyfit(x, y, 1)
    error = y - (fixed + slope * x)
    r2 = 1 - (error @ error) / np.sum((y - y.mean()) ** 2)
    exponent = np.polyfit(np.log(x), np.log(y), 1)[0]
    numbers = (fixed, slope, r2, np.abs(error / y).max(), exponent)
    return Line(*(round(float(number), 12) for number in numbers))


def table(found: list[Curve]) -> None:
    """Prints a row a curve."""
    rows = []
    for one in found:
        line = one.line
        ends = [f"{one.values[0]}, {one.values[-1]}", f"{one.seconds[0]:.3g}, {one.seconds[-1]:.3g}"]
        numbers = [f"{1000 * line.fixed:.0f}", f"{1000 * line.slope:.2f}", f"{line.r2:.4f}"]
        fits = [*numbers, f"{line.deviation:.0%}", f"{line.exponent:.2f}"]
        rows.append([f"{one.cost}, {one.variable}", *ends, *fits])
    console.table(
        "Is the cost linear? The least-squares line through the points; exponent 1 is proportional",
        ("", "from, to", "s from, to", "fixed ms", "ms per GFLOP", "R²", "largest deviation", "exponent"),
        rows,
    )


def draw(found: list[Curve], sizes: Sizes, device: str, file: Path) -> None:
    """Four panels, seconds against GFLOP, with the fitted lines and what proportional would be."""
    from matplotlib.figure import Figure

    network, batch = f"PreResNet-{sizes.depth}", f"batch {sizes.small}"
    titles = {
        "batch": f"(a) batch size: {network}, width {sizes.width}",
        "depth": f"(b) depth: width {sizes.width}, {batch}",
        "width": f"(c) width: {network}, {batch}",
        "images": f"(d) images of the Hessian: {network}, width {sizes.width}, in batches of {sizes.small}",
    }
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    figure.suptitle(
        "What a penalised step and an input-Hessian product cost as they grow, against their FLOPs\n"
        f"{device}; medians; numbers at the points: {', '.join(titles)}",
        fontsize=12,
    )
    styles = {STEP: ("tab:red", "o", 8), PRODUCT: ("tab:blue", "s", -14)}
    for axis, (variable, title) in zip(axes.flat, titles.items(), strict=True):
        for one in (one for one in found if one.variable == variable):
            colour, marker, offset = styles[one.cost]
            axis.plot(one.gflop, one.seconds, marker, color=colour, label=one.cost)
            x = np.geomspace(one.gflop[0], one.gflop[-1], 100)
            y = one.line.fixed + one.line.slope * x
            fitted = f"least-squares line, R² = {one.line.r2:.4f}"
            axis.plot(x[y > 0], y[y > 0], color=colour, lw=1, label=fitted)
            proportional = one.seconds[-1] * x / x[-1]
            axis.plot(x, proportional, color=colour, ls=":", lw=1, label="linear: proportional")
            at = {"xytext": (0, offset), "textcoords": "offset points", "ha": "center", "fontsize": 8}
            for value, *point in zip(one.values, one.gflop, one.seconds, strict=True):
                axis.annotate(str(value), point, **at)
        unit = "product" if variable == "images" else "step or product"
        axis.set(xscale="log", yscale="log", xlabel=f"GFLOP a {unit}", ylabel=f"seconds a {unit}")
        axis.set_title(title, fontsize=10)
        axis.margins(0.1)  # room for the numbers at the points
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(file, dpi=90)
