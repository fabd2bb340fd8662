"""What needs a process of its own: compilation from nothing, and peak memory.

`python -m benchmarks.child WHAT` prints one JSON line; `run` starts one.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
STEPS = 3
COMPILED_DEPTH = 110


class ChildError(RuntimeError):
    """A child process failed; the message is the last line that it wrote."""


def run(what: str, *, cache: str | None = None) -> dict[str, float]:
    """The JSON line of `python -m benchmarks.child WHAT`, with JAX's compilation cache in folder `cache`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    if cache is not None:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    command = [sys.executable, "-m", "benchmarks.child", what]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ChildError(f"{what}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
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


def our_memory() -> dict[str, float]:
    """Peak resident memory of a few of our penalised steps, compilation included."""
    from benchmarks import ours
    from poison_jax import kernels

    kernels.keep_memory()
    training = ours.Training(penalised=True)
    training.first_batch()
    return _growth(training.step)


def torch_memory(side: str, channels_last: bool) -> dict[str, float]:
    """The same for a PyTorch side."""
    import jax

    from benchmarks import ours, sides

    training = ours.Training(penalised=True)
    variables, batch = jax.device_get(training.state.variables), training.first_batch()
    return _growth(sides.Step(side, variables, batch, channels_last))


def _growth(step) -> dict[str, float]:
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of what came before
    before = resident("VmRSS")
    for _ in range(STEPS):
        step()
    return {"before": before, "peak": resident("VmHWM") - before}


def resident(field: str) -> float:
    """MiB of resident memory, now (`VmRSS`) or at most so far (`VmHWM`)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    name, *options = sys.argv[1].split(":")
    result = {
        "compile": compile_step,
        "ours": our_memory,
        "listing": lambda: torch_memory("listing", False),
        "best": lambda: torch_memory("best", options == ["channels_last"]),
    }[name]()
    print(json.dumps(result))
