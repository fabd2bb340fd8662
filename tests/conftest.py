"""Eight virtual devices for every test, quick compilation, and float64 for those that ask for it.

Tests that start a process of their own (command line, resume) have one device, as users do.
"""

import os

from tests.program import QUICK

os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8", QUICK]
)

import jax  # which reads the flags
import pytest

from poison_jax import cache

# The harness is no test file: `python -m tests.faults`. The other has no test, and needs torch.
collect_ignore = ["faults", "foreign/torch_networks.py"]

LONGEST = (
    "test_distributed",
    "test_sweep",
    "test_resume",
    "test_cli",
    "test_train",
    "test_models",
    "test_network",
    "test_loop",
    "test_setup",
    "test_stages",
    "test_losses",
    "test_docs",
)


def pytest_configure(config):
    """What one test has compiled is there for the others, in whatever process, and for the next time.

    Told to JAX, not to the environment: processes that tests start have caches of their own.
    """
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir(f"compiled-{cache.processor()}")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def pytest_collection_modifyitems(items):
    """The files that take longest first, so that no process is left with one of them at the end."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture
def x64():
    """Double precision for the length of a test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def refused(capsys):
    """Calls a command's `main`, which must end with status 2: the one line that it says, on stderr."""

    def said(main, *arguments):
        capsys.readouterr()  # what was said before
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return said


needs_tfds = pytest.mark.skipif(
    not os.path.isdir(os.path.join(os.environ.get("TFDS_DATA_DIR", ""), "cifar10")),
    reason="TFDS_DATA_DIR does not hold prepared CIFAR-10",
)


@pytest.fixture
def draw_sweep(monkeypatch):
    """A sweep's figure and table in no time, for tests of the report."""
    from report_stores import drawn

    monkeypatch.setattr("plots.figures.of_records", drawn)


@pytest.fixture
def no_pictures(monkeypatch):
    """None of single runs, for tests of what stands beside them in the report."""
    monkeypatch.setattr("plots.figures.of_run", lambda run: {})
