"""One function an entry of the table: the same numbers from both sides first, then the time they take."""

import functools
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
import torch

from benchmarks import child, ours, sides
from benchmarks import torch_reference as reference
from benchmarks.timing import Rounds, interleaved, matrix_product, paired_ratio, spread
from poison_jax.sweeps import flops

LOSS_TOLERANCE = 1e-5  # relative
LOGITS_TOLERANCE = 1e-4  # relative, norm of the difference
GRADIENT_TOLERANCE = 5e-3  # the same; every float32 side against PyTorch in float64
EIGENVALUE_TOLERANCE = 2e-3  # relative to the largest
MATMUL = 2048  # float32, on all cores: 17 GFLOP


class Entry(NamedTuple):
    """A row of the table. Ratios are medians of paired ratios; above 1, ours is better."""

    name: str
    unit: str
    ours: float
    listing: float | None = None
    best: float | None = None
    ratio_listing: float | None = None
    ratio_best: float | None = None
    fraction_of_peak: float | None = None


class Result(NamedTuple):
    entry: Entry
    notes: list[str]  # repetitions, spread, what was checked


class Disagreement(Exception):
    """The two sides do not compute the same: there is nothing to time."""


def results(*, quick: bool) -> Iterator[Result]:
    """Every entry, in the order of the table."""
    steps = Rounds(3, 5, 15) if quick else Rounds(5, 15, 40)
    yield eval_forward(Rounds(5, 15, 5) if quick else Rounds(10, 40, 15))
    yield training_step("plain_step", steps)
    yield training_step("penalised_step", steps)
    yield hessian_top5(128 if quick else 1024, Rounds(1, 1 if quick else 3, 240))
    yield from compilation(warm=1 if quick else 2)
    yield peak_memory(repeats=1 if quick else 2)


def eval_forward(rounds: Rounds) -> Result:
    """`Model.apply`, jitted, against `model.eval()` in inference mode."""
    model, variables = ours.trained_a_little()
    batch = ours.random_inputs(ours.BATCH)
    logits = ours.inference(model, variables, batch[0])
    make = functools.partial(sides.Logits, variables, batch)
    best, layout = faster_layout(make)
    listing = make(False)
    checks = [agree("logits", logits(), other(), LOGITS_TOLERANCE) for other in (listing, best)]
    work = flops.preresnet_forward(ours.DEPTH, ours.CLASSES, ours.IMAGE_SHAPE)[0] * ours.BATCH
    return throughput("eval_forward", logits, listing, best, work, rounds, [layout, *checks])


def training_step(name: str, rounds: Rounds) -> Result:
    """`train.train_step`, from the gather to the update, against a PyTorch step on a prepared batch."""
    penalised = name == "penalised_step"
    training = ours.Training(penalised=penalised)
    batch, variables = training.first_batch(), jax.device_get(training.state.variables)
    kinds = ("listing", "best") if penalised else ("plain", "plain")
    check = same_gradient(training, kinds, variables, batch)
    best, layout = faster_layout(lambda channels_last: sides.Step(kinds[1], variables, batch, channels_last))
    listing = sides.Step(kinds[0], variables, batch, False)
    listing()
    forward = flops.preresnet_forward(ours.DEPTH, ours.CLASSES, ours.IMAGE_SHAPE)
    work = (flops.penalised_step if penalised else flops.plain_step)(*forward) * ours.BATCH
    result = throughput(name, training.step, listing, best, work, rounds, [layout, check])
    if not np.isfinite([float(training.metrics.objective), listing(), best()]).all():
        raise Disagreement(f"{name}: the loss went to infinity while it was timed")
    return result


def same_gradient(training: ours.Training, kinds: tuple[str, str], variables, batch) -> str:
    """Objective and gradient of our first step and of every PyTorch one against PyTorch in float64."""
    exact = sides.Step(kinds[1], variables, batch, False, torch.float64)
    objective, truth = exact(), flat(exact.gradient())
    mine, gradient = training.first_step()
    errors = [agree("objective", mine, objective, LOSS_TOLERANCE)]
    errors.append(agree("our gradient", flat(reference.torch_layout(gradient)), truth, GRADIENT_TOLERANCE))
    for kind, channels_last in ((kinds[0], False), (kinds[1], False), (kinds[1], True)):
        side = sides.Step(kind, variables, batch, channels_last)
        agree(f"objective of {kind}", side(), objective, LOSS_TOLERANCE)
        name = f"{kind}{', channels last' if channels_last else ''}"
        errors.append(agree(name, flat(side.gradient()), truth, GRADIENT_TOLERANCE))
    return "against float64: " + "; ".join(dict.fromkeys(errors))


def hessian_top5(count: int, rounds: Rounds) -> Result:
    """`spectrum.input_hessian` against Lanczos around Listing 5; ours computes the residuals as well."""
    model, variables = ours.trained_a_little()
    warm = ours.Hessian(model, variables, *ours.random_inputs(ours.BATCH))
    problem = ours.Hessian(model, variables, *ours.random_inputs(count))
    make = functools.partial(sides.Eigenvalues, "best")
    warm.eigenvalues()
    vector = reference.to_torch(warm.start()[None]).ravel()
    products = {layout: make(warm, layout).operator() for layout in (False, True)}
    channels_last, layout = _faster({k: functools.partial(p, vector) for k, p in products.items()})
    sides.Eigenvalues("listing", warm, False).operator()(vector)
    del products
    values = {}

    def keeping(name, run):
        def call():
            values[name] = run()

        return call

    listing, best = sides.Eigenvalues("listing", problem, False), make(problem, channels_last)
    runs = {"ours": problem.eigenvalues, "listing": listing, "best": best}
    seconds = timed({name: keeping(name, run) for name, run in runs.items()}, rounds)
    notes = [f"{count} images, {ours.LANCZOS_STEPS} Lanczos steps from the same vector", layout]
    for name in ("listing", "best"):
        difference = np.abs(values["ours"] - values[name]).max() / np.abs(values[name]).max()
        if not difference <= EIGENVALUE_TOLERANCE:
            raise Disagreement(f"eigenvalues: ours {values['ours']}, {name} {values[name]}")
        notes.append(f"eigenvalues against {name} to {difference:.0e} of the largest")
    forward = flops.preresnet_forward(ours.DEPTH, ours.CLASSES, ours.IMAGE_SHAPE)[0]
    work = flops.hessian_products(forward, problem.products) * count
    entry = Entry("hessian_top5", "s", *medians(seconds), *ratios(seconds), fraction(seconds, work))
    return Result(entry, notes + repetitions(seconds))


def compilation(*, warm: int) -> Iterator[Result]:
    """PreResNet-110's penalised step, in fresh processes: an empty compilation cache, then a full one."""
    with tempfile.TemporaryDirectory() as cache:
        kept = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        for name, times in (("compile_cold_s", 1), ("compile_warm_s", warm)):
            runs = [child.run("compile", environment=kept) for _ in range(times)]
            totals = [sum(run.values()) for run in runs]
            parts = ", ".join(
                f"{part} {statistics.median(run[part] for run in runs):.1f} s" for part in runs[0]
            )
            notes = [f"PreResNet-{child.COMPILED_DEPTH}, bottleneck: {parts}", f"{times} x: {spread(totals)}"]
            yield Result(Entry(name, "s", statistics.median(totals)), notes)


def peak_memory(*, repeats: int) -> Result:
    """What a few penalised steps add to the memory of a fresh process."""
    layouts = {last: child.run("memory", side="best", channels_last=last)["peak"] for last in (False, True)}
    channels_last = layouts[True] < layouts[False]
    options = {"ours": {}, "listing": {}, "best": {"channels_last": channels_last}}
    peaks = {name: [] for name in options}
    for _ in range(repeats):
        for name, values in peaks.items():
            values.append(child.run("memory", side=name, **options[name])["peak"])
    entry = Entry("peak_memory", "MiB", *medians(peaks), *ratios(peaks))
    spreads = (f"{name} {repeats} x: {spread(values)}" for name, values in peaks.items())
    steps = f"{child.STEPS} steps of a batch of {ours.BATCH}, compilation included"
    return Result(entry, [steps, _layout(channels_last), *spreads])


def throughput(name, mine, listing, best, work: float, rounds: Rounds, notes: list[str]) -> Result:
    """Images a second of three sides that are warm; `work` in FLOPs a call."""
    seconds = timed({"ours": mine, "listing": listing, "best": best}, rounds)
    speeds = (ours.BATCH / value for value in medians(seconds))
    entry = Entry(name, "images/s", *speeds, *ratios(seconds), fraction(seconds, work))
    return Result(entry, notes + repetitions(seconds))


def timed(runs: Mapping[str, Callable], rounds: Rounds) -> dict[str, list[float]]:
    """`interleaved`, and in every round the machine's matrix product, for the fraction of its rate."""
    return interleaved({**runs, "matmul": matrix_product(MATMUL)}, rounds)


def fraction(seconds: Mapping[str, list[float]], work: float) -> float:
    """Our FLOPs a second over those of the matrix product of the same round, median."""
    return paired_ratio(seconds["matmul"], seconds["ours"]) * work / (2 * MATMUL**3)


def medians(values: Mapping[str, list[float]]) -> tuple[float, float, float]:
    return tuple(statistics.median(values[name]) for name in ("ours", "listing", "best"))


def ratios(values: Mapping[str, list[float]]) -> tuple[float, float]:
    return tuple(paired_ratio(values[name], values["ours"]) for name in ("listing", "best"))


def repetitions(seconds: Mapping[str, list[float]]) -> list[str]:
    spreads = ", ".join(f"{name} {spread(values)}" for name, values in seconds.items())
    rate = 2 * MATMUL**3 / statistics.median(seconds["matmul"]) / 1e9
    return [f"{len(seconds['ours'])} x: {spreads}", f"matrix product {rate:.0f} GFLOP/s"]


def faster_layout(make: Callable[[bool], Callable]):
    """The side in whichever memory layout is faster, warm, and which one that is."""
    made = {layout: make(layout) for layout in (False, True)}
    layout, note = _faster(made)
    return made[layout], note


def _faster(runs: Mapping[bool, Callable]) -> tuple[bool, str]:
    for run in runs.values():
        run()
    seconds = interleaved({str(layout): run for layout, run in runs.items()}, Rounds(3, 3, 0))
    layout = paired_ratio(seconds["False"], seconds["True"]) > 1
    return layout, _layout(layout)


def _layout(channels_last: bool) -> str:
    return f"best side: {'channels last' if channels_last else 'contiguous'}"


def flat(tree: Mapping[str, torch.Tensor]) -> np.ndarray:
    return torch.cat([tree[name].double().ravel() for name in sorted(tree)]).numpy()


def agree(name: str, value, truth, tolerance: float) -> str:
    """Says by how much two arrays differ; raises `Disagreement` if by more than the tolerance."""
    value, truth = np.asarray(value, np.float64), np.asarray(truth, np.float64)
    difference = np.linalg.norm(value - truth) / np.linalg.norm(truth)
    if not difference <= tolerance:
        raise Disagreement(f"{name} differs by {difference:.1e}, relative, where {tolerance:.0e} is allowed")
    return f"{name} to {difference:.0e}"
