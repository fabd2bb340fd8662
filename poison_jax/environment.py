"""Settings outside of the config that change numbers: pinned for the process, or recorded in the result.

JAX and XLA read environment variables that change what is drawn or how it is rounded. Those that change the
random numbers are pinned, for they are no part of a run's identity: the same config must train the same
network. Those that change only the rounding are the user's choice, and each `result.json` says what they were
(`environment`).
"""

import os
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


def pin() -> None:
    """Sets what `PINNED` says for this process; call it before the first computation."""
    for name, value in PINNED.items():
        jax.config.update(name, value)


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
