"""What needs a process of its own: compilation from nothing, peak memory, a number of CPU devices.

`python -m benchmarks.child WHAT OPTIONS`, the options a JSON object, prints a JSON line; `run` starts one.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
STEPS = 3
COMPILED_DEPTH = 110


class ChildError(RuntimeError):
    """A child process failed; the message is the last line that it wrote."""


def run(what: str, *, environment: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
    """The JSON line of `python -m benchmarks.child WHAT OPTIONS`, with changes to the environment."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    command = [sys.executable, "-m", "benchmarks.child", what, json.dumps(options)]
    done = subprocess.run(
        command, cwd=ROOT, env=inherited | (environment or {}), capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ChildError(f"{what} {json.dumps(options)}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def compile_step() -> dict[str, float]:
    """Seconds until PreResNet-110's penalised step can run: traced and lowered, then compiled or fetched."""
    from benchmarks import ours
    from poison_jax import train

    training = ours.Training(penalised=True, depth=COMPILED_DEPTH, block="bottleneck")
    start = time.perf_counter()
    lowered = train.train_step.lower(training.state, *training.arguments, program=training.program)
    middle = time.perf_counter()
    lowered.compile()
    return {"trace": middle - start, "compile": time.perf_counter() - middle}


def memory(side: str, channels_last: bool = False) -> dict[str, float]:
    """Peak resident MiB that a few penalised steps add, compilation included: `ours` or a PyTorch side's."""
    import jax

    from benchmarks import ours
    from poison_jax import kernels

    if side == "ours":
        kernels.keep_memory()
    training = ours.Training(penalised=True)
    variables, batch, step = jax.device_get(training.state.variables), training.first_batch(), training.step
    if side != "ours":
        from benchmarks import sides

        step = sides.Step(side, variables, batch, channels_last)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of what came before
    before = _resident("VmRSS")
    for _ in range(STEPS):
        step()
    return {"before": before, "peak": _resident("VmHWM") - before}


def _resident(field: str) -> float:
    """MiB of resident memory, now (`VmRSS`) or at most so far (`VmHWM`)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[field].split()[0]) / 1024


def steps(**options: Any) -> dict[str, Any]:
    """`steps_on` as a program has it: memory kept, and compilations."""
    from poison_jax import cache, kernels

    kernels.keep_memory()
    cache.keep_compilations()
    return steps_on(**options)


def steps_on(devices: int, *, steps: int, **network) -> dict:
    """Seconds of warm penalised steps, and how many cores this process kept busy in them."""
    from benchmarks import ours, timing

    step = ours.Training(penalised=True, devices=devices, **network).step
    step()
    step()
    busy = time.process_time()
    seconds = timing.interleaved({"step": step}, timing.Rounds(steps, steps, 0))["step"]
    return {"seconds": seconds, "cores": (time.process_time() - busy) / sum(seconds)}


if __name__ == "__main__":
    what, options = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps({"compile": compile_step, "memory": memory, "steps": steps}[what](**options)))
