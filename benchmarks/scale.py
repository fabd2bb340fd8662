"""`python -m benchmarks.scale [--quick] [--json FILE] [--figure FILE]`: what ours costs as it grows.

Three questions, on whatever device JAX has and without PyTorch:

1. How far from the rate of a large matrix product are inference, the two steps and a Hessian product?
2. Is the cost linear in the FLOPs, whether batch, depth, width or the number of images makes them more?
3. What do several devices give for the same global batch?
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax

from benchmarks import child, curves, ours, timing
from benchmarks.command import Parser, check_writable, fail, warn_if_busy
from benchmarks.curves import QUICK, Sizes
from poison_jax import cache, console, environment, kernels
from poison_jax.sweeps import flops


class Rate(NamedTuple):
    """A row of the first table."""

    name: str
    mflop: float  # of one image
    images: float  # a second
    gflops: float  # a second
    fraction: float  # of the rate of the matrix product in the same rounds, median


class Parallel(NamedTuple):
    """A row of the third table."""

    name: str
    devices: int
    seconds: float
    cores: float | None  # that the process kept busy; None where devices are not CPUs
    efficiency: float | None  # None for what is not compared


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    arguments = parse(argv)
    began = time.monotonic()
    environment.pin()
    cache.keep_compilations()  # nothing here measures compilation
    sizes = QUICK if arguments.quick else Sizes()
    if jax.default_backend() != "cpu":
        sizes = sizes.on_accelerator()
    console.say(f"{device()}; float32, random images of CIFAR's shape")
    warn_if_busy("the processor was busy in the last minute")
    rows, matmul = rates(sizes)
    console.table(
        f"FLOPs per image and fraction of the measured matmul rate: PreResNet-{sizes.depth}, "
        f"batch {sizes.batch}, {sizes.products} Hessian products;\n"
        f"matmul of size {sizes.matmul}: {matmul:.0f} GFLOP/s",
        ("", "MFLOP per image", "images/s", "GFLOP/s", "fraction"),
        [[r.name, f"{r.mflop:.0f}", f"{r.images:.0f}", f"{r.gflops:.0f}", f"{r.fraction:.1%}"] for r in rows],
    )
    found = list(curves.curves(sizes))
    curves.table(found)
    try:
        devices = parallel(sizes)
    except child.ChildError as error:
        sys.exit(f"error: {error}")
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
        curves.draw(found, sizes, device(), arguments.figure)
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


def parse(argv: list[str] | None) -> argparse.Namespace:
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
    check_writable(arguments.json, arguments.figure)
    return arguments


def device() -> str:
    """What is measured on."""
    if jax.default_backend() == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return f"{cores} {platform.machine()} CPU cores, jax {jax.__version__}"
    return f"{jax.devices()[0].device_kind}, jax {jax.__version__}"


def rates(sizes: Sizes) -> tuple[list[Rate], float]:
    """The first table, and the matrix product's GFLOP/s at JAX's default precision, as the training's.

    The Hessian product, always in full precision, is held against a matrix product in full precision.
    """
    network = {"depth": sizes.depth, "width": sizes.width, "batch": sizes.batch, "devices": 1}
    plain = ours.Training(penalised=False, **network)
    penalised = ours.Training(penalised=True, **network)
    plain.step()
    images, labels = ours.random_inputs(sizes.batch)
    model, variables = plain.program.model, jax.device_get(plain.state.variables)
    hessian = ours.Hessian(model, variables, images, labels, 1, sizes.products - 2, sizes.batch)
    sides = {
        "eval forward": ours.inference(model, variables, images),
        "plain step": plain.step,
        "penalised step": penalised.step,
        "Hessian product": hessian.eigenvalues,
        "matmul": timing.matrix_product(sizes.matmul),
        "matmul, full": timing.matrix_product(sizes.matmul, "highest"),
    }
    seconds = curves.measured(sides, sizes.table)
    curves.check_finite("plain step", plain)
    curves.check_finite("penalised step", penalised)
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
        count = sizes.batch * (sizes.products if name == "Hessian product" else 1)
        speed = count / statistics.median(seconds[name])
        matmul = "matmul, full" if name == "Hessian product" else "matmul"
        ratio = timing.paired_ratio(seconds[matmul], seconds[name])
        fraction = ratio * per_image * count / multiplication
        rows.append(Rate(name, per_image / 1e6, speed, per_image * speed / 1e9, fraction))
    return rows, multiplication / statistics.median(seconds["matmul"]) / 1e9


def parallel(sizes: Sizes) -> list[Parallel]:
    """One step of the same global batch on more and more devices.

    Efficiency is `t(1) / (t(N) h)`, where N devices are h times the hardware of one: h = N for real ones.
    Virtual CPU devices share the cores, all of which one device uses already, so there h = 1: efficiency
    tells what the partitioned program loses, not what more machines would give. t(1) and t(N) are both with
    XLA's convolutions, as the kernels serve a single device only; t(1) with kernels stands beside them.
    """
    step = {"depth": sizes.depth, "width": sizes.width, "batch": sizes.batch, "steps": sizes.steps}
    virtual = jax.default_backend() == "cpu"
    if virtual:
        reference = "1 device, XLA's convolutions"
        kinds = [("1 device, kernels", 1, "kernels"), (reference, 1, "xla")]
        kinds += [(f"{n} virtual devices", n, "xla") for n in sizes.devices if n > 1]
        found = {(name, n): [] for name, n, _ in kinds}
        for _, (name, n, convolutions) in itertools.product(range(sizes.repeats), kinds):
            found[name, n].append(_on_virtual_devices(n, convolutions=convolutions, **step))
    else:
        reference = "1 device"
        counts = [n for n in sizes.devices if n <= len(jax.devices())]
        found = {(f"{n} devices" if n > 1 else reference, n): [child.steps_on(n, **step)] for n in counts}
    medians = {
        key: statistics.median(t for run in runs for t in run["seconds"]) for key, runs in found.items()
    }
    rows = []
    for (name, n), runs in found.items():
        cores = statistics.median(run["cores"] for run in runs) if virtual else None
        hardware = 1 if virtual else n
        compared = name == reference or n > 1
        efficiency = medians[reference, 1] / (medians[name, n] * hardware) if compared else None
        rows.append(Parallel(name, n, medians[name, n], cores, efficiency))
    return rows


def _on_virtual_devices(devices: int, **options) -> dict:
    """`child.steps_on` in a process that sees so many CPU devices."""
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in f]
    flags = " ".join([*flags, f"--xla_force_host_platform_device_count={devices}"])
    environment = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return child.run("steps", environment=environment, devices=devices, **options)


if __name__ == "__main__":
    kernels.keep_memory()
    main()
