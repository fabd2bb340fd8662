"""Eight virtual devices for every test, quick compilation, and float64 for those that ask for it.

Tests that start a process of their own (command line, resume) drop these flags: they run what users run.
"""

import os

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",  # the tests compile much and compute little
        "--xla_llvm_disable_expensive_passes=true",
    ]
)

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
