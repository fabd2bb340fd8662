"""Settings outside of the config that change numbers: pinned for the process, or recorded in the result.

JAX and XLA read environment variables that change what is drawn or how it is rounded. Those that change the
random numbers are pinned, for they are no part of a run's identity: the same config must train the same
network. Those that change only the rounding are the user's choice, and each `result.json` says what they were
(`environment`).
"""

import contextlib
import importlib.metadata
import itertools
import os
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

PRNG = "threefry2x32"
PINNED = {
    # What is drawn.
    "jax_default_prng_impl": PRNG,
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    # What types are computed in; their stricter values make JAX refuse ordinary programs.
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}
RECORDED = (
    "jax_default_matmul_precision",
    "jax_enable_x64",
    "jax_disable_jit",
    "jax_softmax_custom_jvp",
    "jax_use_direct_linearize",
    "jax_optimization_level",
)
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "CXX")
_NO_NUMBERS = ("--xla_force_host_platform_device_count", "--xla_dump")  # `device` says how many there are


# Convolutions and loops become part of a step's CUDA graphs: by default XLA launches each by itself.
GRAPHS = "--xla_gpu_enable_command_buffer=+CONVOLUTION,+WHILE"


def pin() -> None:
    """Sets what `PINNED` says for this process, and on NVIDIA GPUs `GRAPHS`, before the first computation.

    `POISON_JAX_GRAPHS=0`, or a choice of one's own in `XLA_FLAGS`, leaves XLA's flags as they are.
    """
    for name, value in PINNED.items():
        jax.config.update(name, value)
    chosen = os.environ.get("XLA_FLAGS", "")
    if (
        os.environ.get("POISON_JAX_GRAPHS") != "0"
        and "xla_gpu_enable_command_buffer" not in chosen
        and computes_on_gpus()
    ):
        os.environ["XLA_FLAGS"] = f"{chosen} {GRAPHS}".strip()


def computes_on_gpus() -> bool:
    """Whether JAX is going to take NVIDIA GPUs: it is not asked, for then it would read no more flags."""
    first, *_ = os.environ.get("JAX_PLATFORMS", "").split(",")
    if first not in ("", "cuda", "gpu") or not gpus():
        return False
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return any(plugin.name.startswith("xla_cuda") for plugin in plugins)


def gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, by number or name; CUDA's list ends at what names none."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        entries = map(str.strip, os.environ["CUDA_VISIBLE_DEVICES"].split(","))
        return list(itertools.takewhile(re.compile(r"\d+|(GPU|MIG)-.*").fullmatch, entries))
    with contextlib.suppress(OSError):
        return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").iterdir())]
    return []


def share_memory(variables: MutableMapping[str, str], share: float) -> None:
    """Lets a process that starts with these variables take no more than its share of a GPU's memory.

    JAX takes three quarters when it starts. Nothing is set where one process has the GPU, or where the
    user has set it.

    >>> variables = {}
    >>> share_memory(variables, 1 / 3)
    >>> variables
    {'XLA_CLIENT_MEM_FRACTION': '0.300'}
    """
    if share < 1 and not {"XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"} & variables.keys():
        variables["XLA_CLIENT_MEM_FRACTION"] = f"{0.9 * share:.3f}"  # the rest is for CUDA and its libraries


def record() -> dict[str, Any]:
    """Return what is set in this process, by name: JAX's settings and variables of the environment.

    >>> record()["jax_threefry_partitionable"]
    True
    """
    values = {name: getattr(jax.config, name) for name in (*PINNED, *RECORDED)}
    settings = {name: "default" if value is None else value for name, value in values.items()}
    variables = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if "XLA_FLAGS" in variables:
        flags = sorted(f for f in variables.pop("XLA_FLAGS").split() if not f.startswith(_NO_NUMBERS))
        variables |= {"XLA_FLAGS": " ".join(flags)} if flags else {}
    return settings | variables


def why_no_device() -> str | None:
    """What is said where JAX finds no device to compute on; None where it has one."""
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        said = str(error) or "there is none of that kind"
        return f"JAX finds no device with JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}: {said}"
    return None


def key(seed: int) -> jax.Array:
    """The key of a seed, the same whatever the environment says.

    `jax.random.key(seed)` of threefry without `$JAX_RANDOM_SEED_OFFSET`.

    Args:
        seed: 0 to 2^32 - 1.

    Raises:
        ValueError: another seed.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed = {seed}: must be in [0, {2**32 - 1}]")
    return jax.random.wrap_key_data(np.array([0, seed], np.uint32), impl=PRNG)
