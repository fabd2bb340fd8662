"""The library of the kernels: compiled once, found again, done without."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from test_convolution import assert_same, bits, by_kernels, calls, normal, ours, some, transposes, xlas

from poison_jax.errors import UserError
from poison_jax.kernels import convolution, keep_whole, library

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="a GPU has no use for a compiler")


@pytest.fixture
def unloaded(monkeypatch, tmp_path):
    """As at the start of a process, with an empty cache."""
    monkeypatch.setenv("POISON_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "load", functools.cache(library.load.__wrapped__))
    return tmp_path


def script(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def assert_nothing_left(tmp_path):
    (folder,) = (tmp_path / "cache").iterdir()
    assert list(folder.iterdir()) == []


def assert_does_without():
    assert convolution.chosen() == "xla"
    with pytest.raises(UserError, match="kernels: "):
        convolution.chosen("kernels")
    images, filters = normal(2, 5, 5, 3, dtype="float32"), normal(3, 3, 3, 4, dtype="float32")
    assert calls(lambda *args: keep_whole(transposes(ours, *args)[0]), images, filters) == 0
    assert_same(*(jax.jit(functools.partial(transposes, f))(images, filters) for f in (ours, xlas)))


def test_without_a_compiler(unloaded, monkeypatch):
    monkeypatch.setattr(library.shutil, "which", lambda name: None)
    assert library.load() == "no C++ compiler (c++, g++ or clang++) on the PATH"
    assert_does_without()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            [
                "echo 'In file included from a.cc:' >&2",
                "echo 'a.cc:1:2: error: first' >&2",
                "echo error 2 >&2",
                "exit 1",
            ],
            "a.cc:1:2: error: first",
        ),
        (["echo error: in the language of $LC_ALL >&2", "exit 1"], "error: in the language of C"),
        (["echo 'Segmentation fault' >&2", "exit 1"], "no message"),
        (None, ""),  # it cannot even run
    ],
)
def test_a_compiler_that_fails(unloaded, monkeypatch, lines, says):
    compiler = script(unloaded / "compiler", *(lines or ()))
    if lines is None:
        Path(compiler).write_text("#!/no/such/shell\n")
    monkeypatch.setattr(library, "_COMPILERS", (compiler,))
    said = library.load()
    assert said == f"{compiler} failed: {says}" if lines else said and "\n" not in said
    assert_does_without()
    assert_nothing_left(unloaded)


ALONE = """
import os, sys
if len(sys.argv) > 1:
    os.sched_setaffinity(0, {int(sys.argv[1])})  # before XLA counts its threads
import jax
from poison_jax import kernels
from tests.kernels import test_convolution as here
assert kernels.slow_because() is None, kernels.slow_because()
assert kernels.chosen() == "kernels"
assert here.calls(here.ours, *here.some()[:2]) == 1
print(here.bits(jax.jit(here.by_kernels)(*here.some())))
"""


def start(*arguments, **environment) -> subprocess.Popen:
    """Another process, which prints the bits of all three kernels."""
    return subprocess.Popen(
        [sys.executable, "-c", ALONE, *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"XLA_FLAGS": ""} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


@pytest.fixture
def compiler(tmp_path):
    """A compiler that takes a second, notes that it ran, and makes what the real one has made."""
    if convolution.chosen() == "xla":
        pytest.skip(convolution._why_not(devices=1))
    made = library._library()
    return script(
        tmp_path / "compiler",
        f"echo run >> {tmp_path}/log",
        "sleep 1",
        "until [ $1 = -o ]; do shift; done",
        f'cp {made} "$2"',
    )


@pytest.mark.slow
def test_two_processes_compile_at_the_same_time(compiler, tmp_path):
    cache = tmp_path / "cache"
    both = [start(CXX=compiler, POISON_JAX_CACHE=str(cache)) for _ in range(2)]
    expected = bits(jax.jit(by_kernels)(*some()))
    assert [printed(process) for process in both] == [expected, expected]
    (folder,) = cache.iterdir()
    (made,) = folder.iterdir()  # and nothing half-made
    assert made.name == library._library().name
    # A third finds it made.
    runs = (tmp_path / "log").read_text()
    assert printed(start(CXX=compiler, POISON_JAX_CACHE=str(cache))) == expected
    assert (tmp_path / "log").read_text() == runs


@pytest.mark.slow
@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_a_damaged_library_is_made_again(compiler, tmp_path, how):
    """One that is not as it was compiled would compute anything."""
    cache = tmp_path / "cache"
    expected = printed(start(CXX=compiler, POISON_JAX_CACHE=str(cache)))
    (kept,) = cache.glob("*/*.so")
    content = bytearray(kept.read_bytes())
    if how == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert printed(start(CXX=compiler, POISON_JAX_CACHE=str(cache))) == expected
    assert (tmp_path / "log").read_text() == "run\n" * 2
    (made,) = cache.glob("*/*.so")
    assert made == kept
    assert made.read_bytes() != content


def test_a_cache_that_cannot_be_written(compiler, tmp_path):
    """A file where the folder should be: nobody can write there, not even root. One thread, the same bits."""
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    core = [str(min(os.sched_getaffinity(0)))] if hasattr(os, "sched_setaffinity") else []
    process = start(
        *core, CXX=compiler, POISON_JAX_CACHE=str(tmp_path / "file"), TMPDIR=str(tmp_path / "tmp")
    )
    assert printed(process) == bits(jax.jit(by_kernels)(*some()))
    assert (tmp_path / "log").read_text() == "run\n"
    assert list((tmp_path / "tmp").iterdir()) == []  # nothing is left behind
