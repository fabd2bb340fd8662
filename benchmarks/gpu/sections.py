"""The sections of a GPU's table, each in a process of its own: `python -m benchmarks.gpu.sections NAME FILE`.

A section appends lines of JSON to the file as they come: what a limit cuts off keeps what was measured.
`SMALL=1`: sizes for a CPU, to try them where there is no GPU.
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import ours
from benchmarks import torch_reference as reference
from benchmarks.gpu import SMALL
from poison_jax import cache, environment, spectrum, train
from poison_jax.sweeps import flops

DEPTH, DEEP = (8, 11) if SMALL else (20, 110)
BATCH, ROUNDS, STEPS = (4, 2, 2) if SMALL else (128, 7, 40)
SIDE, COPIED = (256, 2**20) if SMALL else (8192, 2**30)  # of the matrix product; numbers that are copied
TOLERANCE = 1e-3  # of the gradient at "highest", relative to float64: that of TF32 is off by more
TORCH_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def say(**row: Any) -> None:
    """Appends a line to the file of this process."""
    with open(sys.argv[2], "a") as file:
        file.write(json.dumps({"flags": os.environ.get("XLA_FLAGS", ""), **row}) + "\n")


def timed(step: Callable[[], object], wait: Callable[[], object], steps: int = STEPS) -> dict[str, float]:
    """Milliseconds a step: in runs of so many without waiting, of one awaited, of the host alone."""
    for _ in range(3):
        step()
    wait()
    found: dict[str, list[float]] = {"ms": [], "ms_awaited": [], "ms_host": []}
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(steps):
            step()
        found["ms_host"].append((time.perf_counter() - began) / steps * 1e3)
        wait()
        found["ms"].append((time.perf_counter() - began) / steps * 1e3)
        began = time.perf_counter()
        step()
        wait()
        found["ms_awaited"].append((time.perf_counter() - began) * 1e3)
    extremes = {"ms_min": min(found["ms"]), "ms_max": max(found["ms"])}
    return {name: statistics.median(values) for name, values in found.items()} | extremes


def wait_for_torch() -> None:
    if TORCH_DEVICE == "cuda":
        torch.cuda.synchronize()


# --- the machine --------------------------------------------------------------------------------------


def machine() -> None:
    """The device, its driver, and what it can do at most: matrix products, copies, launches."""
    names = "no GPU"
    if TORCH_DEVICE == "cuda":
        command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    versions = {"jax": jax.__version__, "torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}
    say(section="machine", device=names.strip(), **versions)
    kinds = {"highest": (torch.float32, False), "tf32": (torch.float32, True), "bf16": (torch.bfloat16, True)}
    for name, (dtype, tf32) in kinds.items():
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(SIDE, SIDE, device=TORCH_DEVICE, dtype=dtype) for _ in range(2))
        found = timed(functools.partial(torch.matmul, a, b), wait_for_torch, 10)
        say(section="machine", what=name, tflops=2 * SIDE**3 / found["ms"] / 1e9)
    x = torch.randn(COPIED, device=TORCH_DEVICE)
    found = timed(functools.partial(torch.empty_like(x).copy_, x), wait_for_torch, 10)
    say(section="machine", what="copy", tb_s=8 * COPIED / found["ms"] / 1e9)
    found = timed(functools.partial(torch.zeros(1, device=TORCH_DEVICE).add_, 1), wait_for_torch, 1000)
    say(section="machine", what="launch", us=found["ms"] * 1e3)


# --- PyTorch ------------------------------------------------------------------------------------------

LOSSES = {
    "plain": (reference.step, reference.plain_loss, ()),
    "listing": (reference.step, reference.listing_loss, (ours.KAPPA,)),
    "penalised": (reference.best_step, reference.best_loss, (ours.KAPPA,)),
}


def pytorch() -> None:
    """Its steps, contiguous and channels last: eager, and as one CUDA graph, double backward included."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    for what, channels_last in ((what, last) for what in LOSSES for last in (False, True)):
        if TORCH_DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        call = _torch_step(what, channels_last)
        row = {"section": "pytorch", "what": what, "channels_last": channels_last}
        say(**row, how="eager", **timed(call, wait_for_torch))
        if TORCH_DEVICE == "cuda":
            try:
                say(**row, how="graph", **timed(_graph(call), wait_for_torch))
            except RuntimeError as error:
                say(**row, how="graph", error=str(error)[:300])
            say(**row, how="peak", mib=torch.cuda.max_memory_allocated() / 2**20)


def _torch_step(what: str, channels_last: bool) -> Callable[[], torch.Tensor]:
    torch.manual_seed(0)
    layout = reference.memory_format(channels_last)
    model = reference.PreResNet(DEPTH, ours.CLASSES).to(TORCH_DEVICE).to(memory_format=layout)
    x = torch.randn(BATCH, 3, 32, 32, device=TORCH_DEVICE).contiguous(memory_format=layout)
    y = torch.randint(0, ours.CLASSES, (BATCH,), device=TORCH_DEVICE)
    optimiser = reference.sgd(model, ours.LEARNING_RATE, ours.MOMENTUM, ours.WEIGHT_DECAY)
    step, loss, more = LOSSES[what]
    return functools.partial(step, optimiser, loss, model, x, y, *more)


def _graph(call: Callable[[], object]) -> Callable[[], None]:
    """A step captured in one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


# --- ours ---------------------------------------------------------------------------------------------


def agreement() -> None:
    """Our gradient at each precision against PyTorch's in float64; at "highest" it has to agree."""
    for precision in ("highest", "default"):
        training = ours.Training(penalised=True, devices=1, depth=DEPTH, batch=BATCH)
        training.program = training.program._replace(precision=precision)
        images, labels = training.first_batch()
        exact = reference.from_flax(jax.device_get(training.state.variables), DEPTH).double()
        value, gradient = training.first_step()
        x, y = reference.to_torch(images).double(), torch.tensor(labels).long()
        exact, x, y = (part.to(TORCH_DEVICE) for part in (exact, x, y))
        objective = reference.best_loss(exact, x, y, ours.KAPPA)
        objective.backward()
        truth, mine = dict(exact.named_parameters()), reference.torch_layout(gradient)
        a, b = (
            np.concatenate([np.ravel(tree[name].double()) for name in sorted(truth)])
            for tree in (mine, {name: p.grad.cpu() for name, p in truth.items()})
        )
        off = float(np.linalg.norm(a - b) / np.linalg.norm(b))
        value_off = abs(value - objective.item()) / abs(objective.item())
        say(section="agreement", precision=precision, objective=value_off, gradient=off)
        if precision == "highest" and not max(off, value_off) <= TOLERANCE:
            sys.exit(f"at highest precision the gradient is off by {off:.1e}: nothing is timed")


def our_steps(precision: str = "default", dtype: str = "float32", depth: int = DEPTH) -> None:
    """Our steps at one precision."""
    block = "bottleneck" if depth == DEEP else "basic"
    forward = flops.preresnet_forward(depth, ours.CLASSES, ours.IMAGE_SHAPE, block=block)
    for penalised in (False, True):
        began = time.perf_counter()
        training = ours.Training(
            penalised=penalised, devices=1, depth=depth, batch=BATCH, block=block, dtype=dtype
        )
        training.program = training.program._replace(precision=precision)
        training.step()
        first = time.perf_counter() - began

        def step(training=training):
            training.state, training.metrics = train.train_step(
                training.state, *training.arguments, program=training.program
            )

        wait = functools.partial(lambda training: jax.block_until_ready(training.state), training)
        found = timed(step, wait, STEPS if depth == DEPTH else max(2, STEPS // 4))
        work = (flops.penalised_step if penalised else flops.plain_step)(*forward) * BATCH
        stats = jax.devices()[0].memory_stats() or {}
        say(
            section="ours",
            what="penalised" if penalised else "plain",
            precision="bf16" if dtype == "bfloat16" else {"default": "tf32"}.get(precision, precision),
            depth=depth,
            first_s=first,
            tflops=work / found["ms"] / 1e9,
            peak_mib=stats.get("peak_bytes_in_use", 0) / 2**20,
            finite=bool(np.isfinite(training.metrics.objective)),
            **found,
        )


def hessian() -> None:
    """Five eigenpairs, by a compiled loop and by one on the host; the second time everything is compiled."""
    training = ours.Training(penalised=False, devices=1, depth=DEPTH, batch=BATCH)
    for _ in range(20):
        training.step()
    apply, variables = training.program.model.apply, jax.device_get(training.state.variables)
    images, labels = ours.random_inputs(8 if SMALL else 512)
    for python_loop in (False, True):
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            options = {"k": 5, "num_iters": 8 if SMALL else 20, "key": 2, "batch_size": BATCH}
            pairs = spectrum.input_hessian(
                apply, variables, images, labels, **options, python_loop=python_loop, memory=16 * 2**30
            )
            seconds.append(time.perf_counter() - began)
        found = {"values": pairs.values.tolist(), "residuals": pairs.residuals.tolist()}
        say(section="hessian", python_loop=python_loop, seconds=seconds, **found)


SECTIONS: dict[str, Callable[[], None]] = {
    "machine": machine,
    "agreement": agreement,
    "pytorch": pytorch,
    "ours": our_steps,
    "ours-highest": functools.partial(our_steps, "highest"),
    "ours-bf16": functools.partial(our_steps, dtype="bfloat16"),
    "ours-110": functools.partial(our_steps, depth=DEEP),
    "hessian": hessian,
}

if __name__ == "__main__":
    environment.pin()
    cache.keep_compilations()
    SECTIONS[sys.argv[1]]()
