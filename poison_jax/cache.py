"""The cache between starts: decoded data and compiled programs, which can be made again."""

import atexit
import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax


def folder() -> Path:
    """`$POISON_JAX_CACHE`, else `~/.cache/poison_jax`; may not exist yet.

    A user without a home directory has a folder for this process alone, which is removed at its end.
    """
    try:
        return Path(os.environ.get("POISON_JAX_CACHE") or "~/.cache/poison_jax").expanduser()
    except RuntimeError:
        return _temporary()


@functools.cache
def _temporary() -> Path:
    made = tempfile.mkdtemp(prefix="poison_jax-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def keep_compilations() -> None:
    """Has JAX keep what it compiles in `folder()`, so that the next process starts at once.

    One folder for each kind of processor: what is compiled for one need not run on another that shares
    the home directory. Does nothing where JAX has been told a folder already, or where it cannot be written.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    path = folder() / f"compiled-{processor()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(path, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(path))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:  # a run's many small ones add up
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        # That one could not be kept, or not be read, as a kill cut it off, costs the next start some seconds.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"jax\._src\.compiler")


@contextlib.contextmanager
def lock(file: Path) -> Iterator[None]:
    """Held while `file` is made, by one process at a time; no lock where its folder cannot be written."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = stack.enter_context(open(file.with_suffix(".lock"), "w"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def processor() -> str:
    """A name for the processor and its features: what is compiled for it runs on its like."""
    features = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            features = next((line for line in file if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
