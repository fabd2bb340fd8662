"""Provenance of a result: versions, device and the settings of the process."""

import importlib.metadata
import platform
from typing import Any

import jax

from poison_jax import environment
from poison_jax.arrays import memory

_PACKAGES = "poison-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy"


def here() -> dict[str, Any]:
    """`versions`, `device` and `environment`, as every `result.json` has them."""
    return {"versions": _versions(), "device": device(), "environment": environment.record()}


def device() -> str:
    """The devices in words."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"


def device_memory() -> int | None:
    """Bytes that a device may use: what the backend says, else on a CPU its share of the machine's memory."""
    devices = jax.local_devices()
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    if limit is None and devices[0].platform == "cpu":
        limit = memory() // len(devices)
    return limit


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
