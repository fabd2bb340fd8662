"""`python -m benchmarks.scale [--quick] [--json FILE] [--figure FILE]`: what ours costs as it grows.

Three questions, on whatever device JAX has and without PyTorch:

1. How far from the rate of a large matrix product are inference, the two steps and a Hessian product?
2. Is the cost linear in the FLOPs, whether batch, depth, width or the number of images makes them more?
3. What do several devices give for the same global batch?
"""

import argparse
import functools
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import child, ours, timing
from benchmarks.__main__ import Parser, fail
from poison_jax import cache, console, kernels, models, spectrum, train
from poison_jax.mesh import make_mesh, replicate
from poison_jax.sweeps import flops

PRODUCTS = 4  # of a point of the curves: the Hessian's linearisation is shared by so few only


class Sizes(NamedTuple):
    """What is measured, and how often; accelerators get `times` as many images."""

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
        """More images and a larger matrix, so that the device has enough to do."""

        def more(name):
            value = getattr(self, name)
            return times * value if isinstance(value, int) else tuple(times * n for n in value)

        names = ("batch", "small", "batches", "images")
        return self._replace(matmul=8192, **{name: more(name) for name in names})


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


class Rate(NamedTuple):
    """A row of the first table."""

    name: str
    mflop: float  # of one image
    images: float  # a second
    gflops: float  # a second
    fraction: float  # of the rate of the matrix product in the same rounds, median


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


class Parallel(NamedTuple):
    """A row of the third table."""

    name: str
    devices: int
    seconds: float
    cores: float | None  # that the process kept busy; None where devices are not CPUs
    efficiency: float | None  # None for what is not compared


class Drawn(models.Model):
    """A network whose weights NumPy draws: XLA compiles jax.random's longer than a whole step."""

    def init(self, key: jax.Array, image_shape: tuple[int, int, int]) -> models.Variables:
        rng = np.random.default_rng(0)

        def draw(path, leaf):
            name = path[-1].key
            if name == "kernel":
                return rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape).astype(leaf.dtype)
            return np.full(leaf.shape, name in ("scale", "var"), leaf.dtype)

        shapes = jax.eval_shape(lambda: super(Drawn, self).init(key, image_shape))
        return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache  # one object for each network: methods of equal ones are compiled again
def drawn(depth: int, width: int, convolutions: str = "auto") -> Drawn:
    return Drawn(models.preresnet(depth, ours.CLASSES, width=width, convolutions=convolutions).module)


@functools.cache
def base() -> ours.Training:
    """What does not depend on the network: data, settings, learning rate."""
    return ours.Training(penalised=True, depth=8, width=1)


class Step:
    """`train.train_step` as `ours.Training` calls it, of any network and batch, on the first few devices."""

    step = ours.Training.step

    def __init__(
        self,
        *,
        batch: int,
        depth: int,
        width: int,
        devices: int = 1,
        penalised: bool = True,
        convolutions: str = "auto",
    ):
        mesh = make_mesh(jax.devices()[:devices])
        self.program = base().program._replace(
            model=drawn(depth, width, convolutions), mesh=mesh, penalised=penalised
        )
        data, _, knobs = base().arguments
        order = np.arange(4 * batch, dtype=np.int32).reshape(4, batch) % len(data.labels)
        self.arguments = tuple(replicate(tree, mesh) for tree in (data, order, knobs))
        self.state = train.init_state(jax.random.key(0), ours.IMAGE_SHAPE, self.program)


class Hessian(NamedTuple):
    """`spectrum.input_hessian` with as few Lanczos steps as make so many products."""

    model: object
    variables: dict
    images: np.ndarray
    labels: np.ndarray
    batch: int
    products: int  # of a call: steps, the top pair's residual and the smallest one's

    def __call__(self) -> np.ndarray:
        return spectrum.input_hessian(
            self.model.apply,
            self.variables,
            self.images,
            self.labels,
            k=1,
            num_iters=self.products - 2,
            key=jax.random.key(2),
            batch_size=self.batch,
        ).values


# --- 1. FLOPs and the rate at which they are done ---------------------------------------------------


def rates(sizes: Sizes) -> tuple[list[Rate], float]:
    """The first table, and the matrix product's GFLOP/s (at JAX's default precision)."""
    steps = {
        name: Step(
            batch=sizes.batch, penalised=name == "penalised step", depth=sizes.depth, width=sizes.width
        )
        for name in ("plain step", "penalised step")
    }
    plain, batch = steps["plain step"], ours.random_inputs(sizes.batch)
    plain.step()
    model, variables = plain.program.model, jax.device_get(plain.state.variables)
    inference = ours.Inference(model, jax.device_put(variables), jnp.asarray(batch[0]))
    square = jnp.ones((sizes.matmul, sizes.matmul))
    sides = {
        "eval forward": inference.logits,
        **{name: step.step for name, step in steps.items()},
        "Hessian product": Hessian(model, variables, *batch, sizes.batch, sizes.products),
        "matmul": lambda: _matmul(square).block_until_ready(),
    }
    seconds = measured(sides, sizes.table)
    for name, step in steps.items():
        check_finite(name, step)
    forward, first = flops.preresnet_forward(sizes.depth, ours.CLASSES, ours.IMAGE_SHAPE, width=sizes.width)
    work = {
        "eval forward": forward,
        "plain step": flops.plain_step(forward, first),
        "penalised step": flops.penalised_step(forward, first),
        "Hessian product": flops.hessian_products(forward, sizes.products) / sizes.products,
    }
    multiplication = 2 * sizes.matmul**3
    rows = []
    for name, per_image in work.items():
        images = sizes.batch * (sizes.products if name == "Hessian product" else 1)
        speed = images / statistics.median(seconds[name])
        ratio = timing.paired_ratio(seconds["matmul"], seconds[name])
        fraction = ratio * per_image * images / multiplication
        rows.append(Rate(name, per_image / 1e6, speed, per_image * speed / 1e9, fraction))
    return rows, multiplication / statistics.median(seconds["matmul"]) / 1e9


@jax.jit
def _matmul(a):
    return a @ a


# --- 2. Is the cost linear? -------------------------------------------------------------------------


def curves(sizes: Sizes) -> Iterator[Curve]:
    """Batch size, depth and width for both costs, the number of images for the Hessian."""
    common = {"depth": sizes.depth, "width": sizes.width, "batch": sizes.small}
    for variable, values in (("batch", sizes.batches), ("depth", sizes.depths), ("width", sizes.widths)):
        points = [common | {variable: value} for value in values]
        steps = [Step(**point) for point in points]
        yield curve(variable, "penalised step", values, points, [step.step for step in steps], sizes)
        for value, step in zip(values, steps, strict=True):
            check_finite(f"penalised step, {variable} {value}", step)
        runs = [
            hessian(step, point["batch"], point["batch"]) for step, point in zip(steps, points, strict=True)
        ]
        yield curve(variable, "Hessian product", values, points, runs, sizes)
    step = Step(**common)
    points = [common | {"batch": count} for count in sizes.images]
    runs = [hessian(step, count, sizes.small) for count in sizes.images]
    yield curve("images", "Hessian product", sizes.images, points, runs, sizes)


def hessian(step: Step, count: int, batch: int) -> Hessian:
    variables = jax.device_get(step.state.variables)
    return Hessian(step.program.model, variables, *ours.random_inputs(count), batch, PRODUCTS)


def curve(variable: str, cost: str, values, points, runs, sizes: Sizes) -> Curve:
    """Medians of interleaved repetitions of every point, and the line through them."""
    repeats = measured(dict(zip(values, runs, strict=True)), sizes.curves)
    calls = PRODUCTS if cost == "Hessian product" else 1
    seconds = tuple(statistics.median(repeats[value]) / calls for value in values)
    gflop = tuple(
        point["batch"] * image_flops(cost, point["depth"], point["width"]) / 1e9 for point in points
    )
    return Curve(variable, cost, tuple(values), gflop, seconds, fit(gflop, seconds))


def image_flops(cost: str, depth: int, width: int) -> float:
    """Of one image's part of a penalised step, or of one of `PRODUCTS` Hessian products."""
    forward = flops.preresnet_forward(depth, ours.CLASSES, ours.IMAGE_SHAPE, width=width)
    if cost == "penalised step":
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


def draw(found: list[Curve], sizes: Sizes, file: Path) -> None:
    """Four panels, seconds against GFLOP, with the fitted lines and what proportional would be."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    network, batch = f"PreResNet-{sizes.depth}", f"batch {sizes.small}"
    titles = {
        "batch": f"(a) batch size: {network}, width {sizes.width}",
        "depth": f"(b) depth: width {sizes.width}, {batch}",
        "width": f"(c) width: {network}, {batch}",
        "images": f"(d) images of the Hessian: {network}, width {sizes.width}, in batches of {sizes.small}",
    }
    figure, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    figure.suptitle(
        "What a penalised step and an input-Hessian product cost as they grow, against their FLOPs\n"
        f"{device()}; medians; numbers at the points: {', '.join(titles)}",
        fontsize=12,
    )
    styles = {"penalised step": ("tab:red", "o", 8), "Hessian product": ("tab:blue", "s", -14)}
    for axis, (variable, title) in zip(axes.flat, titles.items(), strict=True):
        for one in (one for one in found if one.variable == variable):
            colour, marker, offset = styles[one.cost]
            axis.plot(one.gflop, one.seconds, marker, color=colour, label=one.cost)
            x = np.geomspace(one.gflop[0], one.gflop[-1], 100)
            y = one.line.fixed + one.line.slope * x
            axis.plot(
                x[y > 0], y[y > 0], color=colour, lw=1, label=f"least-squares line, R² = {one.line.r2:.4f}"
            )
            axis.plot(
                x, one.seconds[-1] * x / x[-1], color=colour, ls=":", lw=1, label="linear: proportional"
            )
            for value, *point in zip(one.values, one.gflop, one.seconds, strict=True):
                axis.annotate(
                    str(value), point, (0, offset), textcoords="offset points", ha="center", fontsize=8
                )
        unit = "product" if variable == "images" else "step or product"
        axis.set(xscale="log", yscale="log", xlabel=f"GFLOP a {unit}", ylabel=f"seconds a {unit}")
        axis.set_title(title, fontsize=10)
        axis.margins(0.1)  # room for the numbers at the points
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(file, dpi=90)
    plt.close(figure)


# --- 3. Several devices -----------------------------------------------------------------------------


def parallel(sizes: Sizes) -> list[Parallel]:
    """One step of the same global batch on more and more devices.

    Efficiency is `t(1) / (t(N) h)`, where N devices are h times the hardware of one: h = N for real ones.
    Virtual CPU devices share the cores, all of which one device uses already, so there h = 1: efficiency
    tells what the partitioned program loses, not what more machines would give. t(1) and t(N) are both with
    XLA's convolutions, as the kernels serve a single device only; t(1) with kernels stands beside them.
    """
    if jax.default_backend() != "cpu":
        counts = [n for n in sizes.devices if n <= len(jax.devices())]
        found = {(f"{n} devices" if n > 1 else "1 device", n): [steps_on(n, sizes)] for n in counts}
        reference, hardware = "1 device", {n: n for n in counts}
    else:
        reference, hardware = "1 device, XLA's convolutions", dict.fromkeys(sizes.devices, 1)
        kinds = [("1 device, kernels", 1, "kernels"), (reference, 1, "xla")]
        kinds += [(f"{n} virtual devices", n, "xla") for n in sizes.devices if n > 1]
        found = {(name, n): [] for name, n, _ in kinds}
        for _, (name, n, convolutions) in itertools.product(range(sizes.repeats), kinds):
            found[name, n].append(in_child(n, convolutions, sizes))
    medians = {
        key: statistics.median(t for run in runs for t in run["seconds"]) for key, runs in found.items()
    }
    rows = []
    for (name, n), runs in found.items():
        cores = statistics.median(run["cores"] for run in runs) if jax.default_backend() == "cpu" else None
        compared = name == reference or n > 1
        efficiency = medians[reference, 1] / (medians[name, n] * hardware[n]) if compared else None
        rows.append(Parallel(name, n, medians[name, n], cores, efficiency))
    return rows


def steps_on(devices: int, sizes: Sizes, convolutions: str = "auto") -> dict:
    """Seconds of warm steps, and how many cores this process kept busy in them."""
    step = Step(
        batch=sizes.batch,
        devices=devices,
        depth=sizes.depth,
        width=sizes.width,
        convolutions=convolutions,
    )
    step.step()
    step.step()
    busy = time.process_time()
    seconds = timing.interleaved({"step": step.step}, timing.Rounds(sizes.steps, sizes.steps, 0))["step"]
    return {"seconds": seconds, "cores": (time.process_time() - busy) / sum(seconds)}


def in_child(devices: int, convolutions: str, sizes: Sizes) -> dict:
    """`steps_on` in a process that sees so many CPU devices."""
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in f]
    flags = " ".join([*flags, f"--xla_force_host_platform_device_count={devices}"])
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    numbers = [str(n) for n in (devices, sizes.depth, sizes.width, sizes.batch, sizes.steps)]
    command = [sys.executable, "-m", "benchmarks.scale", "--child", convolutions, *numbers]
    done = subprocess.run(command, cwd=child.ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise child.ChildError(f"{devices} devices: {last}")
    return json.loads(done.stdout.splitlines()[-1])


# --- The whole --------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--child"]:
        cache.keep_compilations()
        convolutions, *numbers = argv[1:]
        devices, *numbers = map(int, numbers)
        sizes = Sizes()._replace(**dict(zip(("depth", "width", "batch", "steps"), numbers, strict=True)))
        print(json.dumps(steps_on(devices, sizes, convolutions)))
        return
    arguments = parse(argv)
    began = time.monotonic()
    cache.keep_compilations()  # nothing here measures compilation
    sizes = QUICK if arguments.quick else Sizes()
    if jax.default_backend() != "cpu":
        sizes = sizes.on_accelerator()
    console.say(f"{device()}; float32, random images of CIFAR's shape")
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.7:
        console.warn(f"the processor was busy in the last minute (load {os.getloadavg()[0]:.1f})")

    rows, matmul = rates(sizes)
    console.table(
        f"FLOPs per image and fraction of the measured matmul rate: PreResNet-{sizes.depth}, "
        f"batch {sizes.batch}, {sizes.products} Hessian products;\n"
        f"matmul of size {sizes.matmul}: {matmul:.0f} GFLOP/s",
        ("", "MFLOP per image", "images/s", "GFLOP/s", "fraction"),
        [[r.name, f"{r.mflop:.0f}", f"{r.images:.0f}", f"{r.gflops:.0f}", f"{r.fraction:.1%}"] for r in rows],
    )
    found = list(curves(sizes))
    console.table(
        "Is the cost linear? The least-squares line through the points; exponent 1 is proportional",
        ("", "from, to", "s from, to", "fixed ms", "ms per GFLOP", "R²", "largest deviation", "exponent"),
        [cells(one) for one in found],
    )
    try:
        devices = parallel(sizes)
    except child.ChildError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    console.table(
        f"Penalised step on several devices: PreResNet-{sizes.depth}, the same {sizes.batch} images a step",
        ("", "s a step", "cores busy", "efficiency"),
        [
            [r.name, f"{r.seconds:.3g}", *("" if x is None else f"{x:.2f}" for x in (r.cores, r.efficiency))]
            for r in devices
        ],
    )
    if jax.default_backend() == "cpu":
        console.say(
            "virtual devices share the cores: efficiency is t(1) / t(N), both with XLA's convolutions"
        )
    if arguments.figure:
        draw(found, sizes, arguments.figure)
        console.say(f"figure: {arguments.figure}")
    if arguments.json:
        written = {
            "device": device(),
            "matmul_gflops": matmul,
            "rates": [row._asdict() for row in rows],
            "curves": [one._asdict() | {"line": one.line._asdict()} for one in found],
            "parallel": [row._asdict() for row in devices],
        }
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")
    console.say(f"total {console.duration(time.monotonic() - began)}")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m benchmarks.scale",
        description="FLOPs and rates, cost against size, several devices; on whatever device JAX has.",
        epilog="The full run takes about 8 minutes on two CPU cores, --quick 80 seconds.",
        allow_abbrev=False,
    )
    parser.add_argument("--quick", action="store_true", help="smaller networks and batches, fewer points")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there, too")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the curves (.png, .pdf, .svg)")
    arguments = parser.parse_args(argv)
    if arguments.figure and arguments.figure.suffix not in (".png", ".pdf", ".svg"):
        fail(f"--figure {arguments.figure}: the name must end in .png, .pdf or .svg")
    for file in filter(None, (arguments.json, arguments.figure)):
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            fail(f"cannot write {file}")
    return arguments


def measured(sides: Mapping, rounds: timing.Rounds) -> dict:
    """`timing.interleaved`, after two calls of every side (the first compiles)."""
    for run in sides.values():
        run()
        run()
    return timing.interleaved(sides, rounds)


def check_finite(name: str, step: Step) -> None:
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(step.state.params)):
        console.warn(f"{name}: the parameters went to infinity while it was timed")


def cells(one: Curve) -> list[str]:
    line = one.line
    ends = [f"{a}, {b}" for a, b in ((one.values[0], one.values[-1]),)]
    ends.append(f"{one.seconds[0]:.3g}, {one.seconds[-1]:.3g}")
    numbers = [f"{1000 * line.fixed:.0f}", f"{1000 * line.slope:.2f}", f"{line.r2:.4f}"]
    return [f"{one.cost}, {one.variable}", *ends, *numbers, f"{line.deviation:.0%}", f"{line.exponent:.2f}"]


def device() -> str:
    if jax.default_backend() == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return f"{cores} {platform.machine()} CPU cores, jax {jax.__version__}"
    return f"{jax.devices()[0].device_kind}, jax {jax.__version__}"


if __name__ == "__main__":
    kernels.keep_memory()
    main()
