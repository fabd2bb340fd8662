"""What can be made again, kept between starts: decoded data, compiled programs."""

import hashlib
import os
import platform
from pathlib import Path

import jax


def folder() -> Path:
    """`$POISON_JAX_CACHE`, else `~/.cache/poison_jax`; may not exist yet."""
    return Path(os.environ.get("POISON_JAX_CACHE") or "~/.cache/poison_jax").expanduser()


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


def processor() -> str:
    """A name for the processor and its features: what is compiled for it runs on its like."""
    features = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            features = next((line for line in file if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
