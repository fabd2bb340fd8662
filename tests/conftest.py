"""Eight virtual devices for every test, and float64 for those that ask for it."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest


@pytest.fixture
def x64():
    """Double precision for the length of a test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


needs_tfds = pytest.mark.skipif(
    not os.path.isdir(os.path.join(os.environ.get("TFDS_DATA_DIR", ""), "cifar10")),
    reason="TFDS_DATA_DIR does not hold prepared CIFAR-10",
)
