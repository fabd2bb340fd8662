"""What is kept between starts, and where."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import pytest

from poison_jax import cache


@pytest.fixture
def untold(monkeypatch):
    """JAX without a folder of its own, before and after."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_folder(monkeypatch):
    monkeypatch.setenv("POISON_JAX_CACHE", "~/elsewhere")
    assert cache.folder() == Path.home() / "elsewhere"
    monkeypatch.delenv("POISON_JAX_CACHE")
    assert cache.folder() == Path.home() / ".cache" / "poison_jax"


def test_a_user_without_a_home(monkeypatch):
    """A folder of this process's own; the same at every call."""
    monkeypatch.delenv("POISON_JAX_CACHE", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert cache.folder().is_dir()
    assert cache.folder() == cache.folder()


def test_one_folder_a_processor(untold, tmp_path, monkeypatch):
    monkeypatch.setenv("POISON_JAX_CACHE", str(tmp_path / "cache"))
    cache.keep_compilations()
    first = jax.config.jax_compilation_cache_dir
    assert Path(first).parent == tmp_path / "cache"
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(cache.platform, "machine", lambda: "pdp11")
    cache.keep_compilations()
    assert jax.config.jax_compilation_cache_dir != first
    assert "pdp11" in jax.config.jax_compilation_cache_dir


def test_a_folder_that_jax_has_is_left_alone(untold, tmp_path, monkeypatch):
    monkeypatch.setenv("POISON_JAX_CACHE", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", "/theirs")
    cache.keep_compilations()
    assert jax.config.jax_compilation_cache_dir == "/theirs"
    assert not (tmp_path / "cache").exists()


def test_no_room_does_no_harm(untold, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POISON_JAX_CACHE", str(tmp_path / "file"))
    cache.keep_compilations()
    assert jax.config.jax_compilation_cache_dir is None


COMPILE = """
import resource, sys
from poison_jax import cache
cache.keep_compilations()
if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
import jax
print(jax.jit(lambda x: x + 1)(1))
"""


def compile_elsewhere(folder, *largest):
    """What a process says that compiles a function; writes of more than so many bytes fail in it."""
    more = {"POISON_JAX_CACHE": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", COMPILE, *map(str, largest)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | more, check=True)
    assert done.stdout == "2\n"
    return done.stderr


def test_a_compilation_that_a_kill_cut_off_or_that_does_not_fit_on_the_disk_does_no_harm(tmp_path):
    compile_elsewhere(tmp_path)
    (file,) = tmp_path.glob("compiled-*/jit__lambda*")
    os.truncate(file, file.stat().st_size // 2)
    assert compile_elsewhere(tmp_path) == ""
    assert compile_elsewhere(tmp_path / "other", 100) == ""


def test_lock_is_held_by_one_at_a_time(tmp_path):
    order = []

    def work(name):
        with cache.lock(tmp_path / "folder" / "made.npz"):
            order.append(name)
            time.sleep(0.05)
            order.append(name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, "abcd"))
    assert [order[i] == order[i + 1] for i in range(0, 8, 2)] == [True] * 4


def test_lock_where_no_folder_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    with cache.lock(tmp_path / "file" / "folder" / "made.npz"):
        pass
    with pytest.raises(ZeroDivisionError), cache.lock(tmp_path / "made.npz"):
        raise ZeroDivisionError
