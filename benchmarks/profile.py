"""`python -m benchmarks.profile [--plain]`: which operations the step spends its time in, by JAX's profiler.

Events of the trace carry the names of the compiled program's instructions; the program's text says what each
of them is and which pass of the differentiation it came from.
"""

import gzip
import json
import re
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import jax
import numpy as np

from benchmarks import ours
from poison_jax import console, environment, kernels, train

STEPS = 3
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\([^)]*\)|\S+) ([\w-]+)\((.*)$", re.MULTILINE)
COMPUTATION = re.compile(r"^%?([\w.-]+) \(.*?^}", re.MULTILINE | re.DOTALL)


def main(argv: list[str]) -> None:
    training = ours.Training(penalised="--plain" not in argv)
    compiled = train.train_step.lower(training.state, *training.arguments, program=training.program).compile()
    kinds = instructions(compiled.as_text())
    training.step()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                training.step()
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    seconds, calls = defaultdict(float), defaultdict(int)
    for event in events:
        if event.get("ph") == "X" and event["name"] in kinds:
            name = kinds[event["name"]]
            seconds[name] += event["dur"] / 1e6 / STEPS
            calls[name] += 1
    total = sum(seconds.values())
    rows = [
        [name, str(calls[name] // STEPS), f"{1000 * seconds[name]:.0f}", f"{seconds[name] / total:.1%}"]
        for name in sorted(seconds, key=seconds.get, reverse=True)
    ]
    title = f"{total:.2f} s a step, summed over the threads that run instructions"
    console.table(title, ("operation -> output", "calls", "ms a step", "share"), rows[:25])
    batch, step = pipeline(training)
    console.say(
        f"input pipeline (gather, crop, flip, poison, normalise): {1000 * batch:.2f} ms of a step's "
        f"{1000 * step:.0f}, {batch / step:.2%}"
    )


def pipeline(training: ours.Training) -> tuple[float, float]:
    """Median seconds of making an augmented batch, and of a whole step."""
    data, order, knobs = training.arguments
    program = training.program._replace(augment="crop_flip")
    make_batch = jax.jit(train.make_batch, static_argnames="program")
    seconds = {"batch": [], "step": []}
    for _ in range(10):
        began = time.perf_counter()
        jax.block_until_ready(make_batch(data, order[0], knobs.key, knobs, program=program))
        seconds["batch"].append(time.perf_counter() - began)
        began = time.perf_counter()
        training.step()
        seconds["step"].append(time.perf_counter() - began)
    return float(np.median(seconds["batch"])), float(np.median(seconds["step"]))


def instructions(text: str) -> dict[str, str]:
    """Every instruction of a compiled program -> what it is and the shapes that it gives."""
    bodies = {match[1]: match[0] for match in COMPUTATION.finditer(text)}
    kinds = {}
    for name, result, opcode, rest in INSTRUCTION.findall(text):
        shapes = " and ".join(
            dict.fromkeys(dims.replace(",", "x") for dims in re.findall(r"\[([\d,]*)\]", result))
        )
        called = re.search(r"calls=%?([\w.-]+)", rest)
        kinds[name] = f"{_what(name, opcode, rest, bodies.get(called[1], '') if called else '')} -> {shapes}"
    return kinds


def _what(name: str, opcode: str, rest: str, body: str) -> str:
    """A convolution with its window, alone or in a fusion; else the opcode, of a fusion its name."""
    library = ", ynn" if name.startswith("ynn") else ""
    inner = [match.groups() for match in INSTRUCTION.finditer(body)]
    for _, _, operation, arguments in [(name, "", opcode, rest), *inner]:
        if operation == "convolution":
            window = re.search(r"window={([^}]*)}", arguments)
            fields = dict(re.findall(r"(\w+)=(\S+)", window[1])) if window else {}
            dilated = "".join(f", {key} {fields[key]}" for key in fields if key.endswith("dilate"))
            return f"convolution {fields.get('size', '1x1')}{dilated}{library}"
    for operation in ("dot", "reduce"):
        if opcode == operation or any(operation == found[2] for found in inner):
            return operation + library
    return re.sub(r"[.\d]+$", "", name) if opcode == "fusion" else opcode


if __name__ == "__main__":
    environment.pin()
    kernels.keep_memory()
    main(sys.argv[1:])
