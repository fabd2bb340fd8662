"""What made a result: versions and device."""

import importlib.metadata
import platform
from typing import Any

import jax

_PACKAGES = (
    "poison-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "matfree",
    "numpy",
    "scipy",
)


def here() -> dict[str, Any]:
    """`versions` and `device`, as every `result.json` has them."""
    return {"versions": _versions(), "device": device()}


def device() -> str:
    """The devices in words."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
