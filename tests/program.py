"""The program in processes of its own, as a person or a scheduler starts it."""

import os
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# The tests compile much and compute little.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# The older emitters of jaxlib 0.10 take little more than half the time; 0.12 ends at a flag that it lacks.
if metadata.version("jaxlib").startswith("0.10."):
    QUICK += " --xla_cpu_use_fusion_emitters=false"


def environment(devices: int = 1, **variables: str) -> dict[str, str]:
    """That of a process of this project: quick compilation, all of it kept, on the CPU; and `variables`."""
    ours = {
        "XLA_FLAGS": f"{QUICK} --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }
    return os.environ | ours | variables


def start(command: Iterable[Any], devices: int = 1, **variables: str) -> subprocess.Popen:
    """A Python process of this project: `start(["main.py", "--workdir=..."])`, its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-u", *map(str, command)],
        cwd=ROOT,
        env=environment(devices, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def finish(process: subprocess.Popen, status: int = 0) -> tuple[str, str]:
    """What a process says on stdout and stderr until it ends, which must be with this status."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, out + err
    assert "Traceback" not in err
    return out, err
