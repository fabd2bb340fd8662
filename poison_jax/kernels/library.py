"""The kernels' library: `convolution.cc` compiled at first use, kept in the cache's folder, handed to XLA.

One library for each kind of processor and version of jaxlib; its name holds its digest.
"""

import atexit
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import jaxlib

from poison_jax import cache

_SOURCE = Path(__file__).with_name("convolution.cc")
_COMPILERS = (os.environ.get("CXX"), "c++", "g++", "clang++")
CALLS = ("Convolution", "ConvolutionInputGradient", "ConvolutionFilterGradient", "KeepWhole")


@functools.cache
def _version() -> str:
    """Names the kernels: compiled programs that XLA keeps must not meet others under the same name."""
    return hashlib.sha256(_SOURCE.read_bytes() + jaxlib.version.__version__.encode()).hexdigest()[:12]


def target(name: str) -> str:
    """The name under which XLA knows one of `CALLS`."""
    return f"poison_jax.{name}.{_version()}"


@functools.cache
def load() -> str | None:
    """Compiles the kernels where they are missing and hands them to XLA; returns what went wrong, or None."""
    try:
        library = ctypes.CDLL(str(_library()))
        for name in CALLS:
            function = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(target(name), function, platform="cpu")
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        return str(error)
    return None


def _library() -> Path:
    """The compiled kernels, from the cache or made now."""
    folder = cache.folder() / f"kernels-{cache.processor()}"
    for path in folder.glob(f"convolution-{_version()}-*.so"):
        if path.stem.endswith(_digest(path)):  # one that is damaged would compute anything
            return path
    compiler = next(filter(None, map(shutil.which, filter(None, _COMPILERS))), None)
    if compiler is None:
        raise OSError("no C++ compiler (c++, g++ or clang++) on the PATH")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = tempfile.mkdtemp(dir=folder)
    except OSError:  # a home directory that cannot be written: compiled again by every process
        folder = work = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, work, ignore_errors=True)
    made = Path(work) / "made.so"
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64") else "-mcpu=native"
    options = ["-std=c++17", "-O3", native, "-fPIC", "-shared", "-isystem", jax.ffi.include_dir()]
    command = [compiler, *options, str(_SOURCE), "-o", str(made)]
    try:
        in_english = os.environ | {"LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=in_english)
        if done.returncode == 0:
            path = Path(folder) / f"convolution-{_version()}-{_digest(made)}.so"
            os.replace(made, path)  # whole or not at all, whoever else compiles it at the same time
    finally:
        if folder != work:
            shutil.rmtree(work, ignore_errors=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        raise OSError(f"{compiler} failed: {errors[0]}")
    return path


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
