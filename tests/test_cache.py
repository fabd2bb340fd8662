"""What is kept between starts, and where."""

import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

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


def test_what_jax_cannot_read_is_made_again(untold, tmp_path, monkeypatch, capsys):
    """And said in a line; every other warning is shown as ever."""
    monkeypatch.setenv("POISON_JAX_CACHE", str(tmp_path / "cache"))
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        cache.keep_compilations()
        folder = Path(jax.config.jax_compilation_cache_dir)

        def kept():
            return {file.name: file.read_bytes() for file in folder.glob("*-cache")}

        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        try:
            compilation_cache.reset_cache()
            jax.jit(lambda x: x * 3 + 1)(1.0)
            sound = kept()
            assert sound
            for name, content in sound.items():
                (folder / name).write_bytes(content[: len(content) // 2])
            jax.clear_caches()
            jax.jit(lambda x: x * 3 + 1)(1.0)
            said = capsys.readouterr().err
            jax.clear_caches()
            jax.jit(lambda x: x * 3 + 1)(1.0)
        finally:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
            compilation_cache.reset_cache()
        assert said.startswith(f"warning: {folder} holds a damaged program: compiled again")
        assert said.count("\n") == 1
        assert capsys.readouterr().err == ""  # a sound one has taken its place
        warnings.warn("another", stacklevel=1)
        assert [str(other.message) for other in others] == ["another"]
