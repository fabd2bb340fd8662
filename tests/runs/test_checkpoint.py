"""Checkpoints: whole ones come back bit for bit, damaged ones are passed over and said."""

import contextlib
import errno
import json
import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poison_jax.errors import UserError
from poison_jax.runs import checkpoint as checkpoint_lib
from poison_jax.runs import files
from poison_jax.runs.checkpoint import Checkpoints, digest, newest


def state(value):
    return {
        "w": jnp.full((300, 7), value, jnp.float32),
        "step": jnp.int32(value),
        "half": jnp.ones(3, jnp.bfloat16),
    }


def saved(tmp_path, *numbers, said=None):
    checkpoints = Checkpoints(tmp_path / "checkpoints", warn=(said if said is not None else []).append)
    for number in numbers:
        checkpoints.save(number, state(number), {"seconds": number / 2})
    return checkpoints


def damage(tmp_path, step, how):
    """Cuts or flips the largest file of a checkpoint's state, its parameters, or removes the state."""
    state = tmp_path / "checkpoints" / str(step) / "state"
    file = max((f for f in state.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    if how == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif how == "emptied":
        os.truncate(file, 0)
    elif how == "flipped":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    else:
        shutil.rmtree(state)


def test_newest_comes_back_and_two_are_kept(tmp_path):
    checkpoints = saved(tmp_path, 1, 2, 3)
    restored, note = checkpoints.restore(state(0))
    assert digest(restored) == digest(state(3))
    assert note["seconds"] == 1.5
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


STRANGE = ["[x]", "a*b?", "{a,b}", "h#a", "50%41", "back\\slash", "gs:", "$HOME'q\"", "new\nline", "\udcff"]
STRANGE += [" two  spaces ", "läufe 猫", "x=1,y", "a/**/b"]


@pytest.mark.parametrize("name", STRANGE, ids=ascii)
def test_a_path_may_hold_any_character(tmp_path, name):
    """Written, read by another, and nothing beside it: a backslash is not taken for a slash."""
    place = tmp_path / "store" / name
    said = []
    saved(place, 1, 2, 3, said=said).close()
    checkpoints = saved(place, said=said)
    restored, note = checkpoints.restore(state(0))
    assert (digest(restored), note["seconds"]) == (digest(state(3)), 1.5)
    checkpoints.save(4, state(4), {"seconds": 2.0})
    checkpoints.close()
    restored, _ = newest(place / "checkpoints", state(0), warn=said.append)
    assert digest(restored) == digest(state(4))
    assert said == []
    assert sorted(p.name for p in (place / "checkpoints").iterdir()) == ["3", "4"]
    assert [p.name for p in (tmp_path / "store").iterdir()] == [name.split("/")[0]]


def test_a_pattern_finds_no_neighbour(tmp_path):
    saved(tmp_path / "a*b", 1).close()
    saved(tmp_path / "axb", 2).close()
    restored, _ = newest(tmp_path / "a*b" / "checkpoints", state(0))
    assert digest(restored) == digest(state(1))


def test_a_system_without_open_files_by_number_says_what_it_cannot_do(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_lib, "_OPEN_FILES", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"for its \[\]: name another folder"):
        saved(tmp_path / "[x]")
    saved(tmp_path / "x", 1).close()


def test_a_directory_is_released(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    saved(tmp_path / "[x]", 1).close()
    newest(tmp_path / "[x]" / "checkpoints", state(0))
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # TensorStore's own, opened once


def test_saving_copies_and_does_not_wait(tmp_path, monkeypatch):
    """What is written is what was there, whatever becomes of it while a slow disk is written to."""
    slow, writing = threading.Event(), Checkpoints._save

    def written_later(self, *arguments):
        assert slow.wait(60)
        writing(self, *arguments)

    monkeypatch.setattr(Checkpoints, "_save", written_later)
    held, note = jax.tree.map(np.array, state(1)), {"steps": [1]}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, held, note)
    assert not list((tmp_path / "checkpoints").iterdir())
    held["w"][:] = 7
    note["steps"] += [2]
    slow.set()
    checkpoints.wait()
    restored, note = checkpoints.restore(state(0))
    assert (digest(restored), note["steps"]) == (digest(state(1)), [1])


@pytest.mark.parametrize("then", ["wait", "save"])
def test_one_that_could_not_be_written_is_said_once(tmp_path, monkeypatch, then):
    """By the next call; the one after it goes on."""
    checkpoints = saved(tmp_path, 1)
    checkpoints.wait()
    with monkeypatch.context() as full:
        full.setattr(checkpoint_lib.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
        checkpoints.save(2, state(2), {})
        with pytest.raises(OSError, match="No space left"):
            checkpoints.wait() if then == "wait" else checkpoints.save(3, state(3), {})
    checkpoints.save(3, state(3), {})
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "3"]


def test_none_there(tmp_path):
    assert saved(tmp_path).restore(state(0)) is None
    assert newest(tmp_path / "checkpoints", state(0)) is newest(tmp_path / "nowhere", state(0)) is None


@pytest.mark.parametrize("how", ["cut", "emptied", "flipped", "gone"])
def test_a_damaged_one_is_passed_over_and_may_be_written_again(tmp_path, how):
    saved(tmp_path, 4, 5).close()
    damage(tmp_path, 5, how)
    said = []
    checkpoints = saved(tmp_path, said=said)
    restored, _ = checkpoints.restore(state(0))
    assert digest(restored) == digest(state(4))
    assert len(said) == 1
    assert "checkpoint 5 is damaged (state" in said[0]
    assert "\n" not in said[0]
    assert (tmp_path / "damaged" / "5").is_dir()
    checkpoints.save(5, state(5), {"seconds": 0.0})
    restored, _ = checkpoints.restore(state(0))
    assert digest(restored) == digest(state(5))


def test_all_damaged(tmp_path):
    saved(tmp_path, 4, 5).close()
    for step in (4, 5):
        damage(tmp_path, step, "cut")
    said = []
    assert saved(tmp_path, said=said).restore(state(0)) is None
    assert len(said) == 3
    assert "starting again" in said[2]


PASSING = [
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.EIO, "Input/output error"),
    ValueError("RESOURCE_EXHAUSTED: Error opening w/.zarray"),
    MemoryError("8 GiB"),
]


@pytest.mark.parametrize("where", ["digests", "seal", "arrays"])
@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_cannot_be_read_for_the_moment_stays(tmp_path, monkeypatch, error, where):
    """An error of the disk or the machine is no damage: else a run would begin again from nothing."""
    saved(tmp_path, 4, 5).close()
    said, kind = [], MemoryError if isinstance(error, MemoryError) else OSError

    def fails(*_, **__):
        raise error

    place = {
        "digests": (files, "_digests"),
        "seal": (files, "read"),
        "arrays": (checkpoint_lib, "_check_chunks"),
    }
    with contextlib.closing(saved(tmp_path, said=said)) as checkpoints, monkeypatch.context() as patch:
        patch.setattr(*place[where], fails)
        for restore in (checkpoints.restore, lambda like: newest(tmp_path / "checkpoints", like)):
            with pytest.raises(kind, match=r"\A[^\n]*(8 GiB|checkpoint 5 in .* cannot be read now)[^\n]*\Z"):
                restore(state(0))
    assert said == []
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["4", "5"]
    assert digest(saved(tmp_path).restore(state(0))[0]) == digest(state(5))


def test_a_folder_in_the_place_of_a_file_is_damage(tmp_path):
    saved(tmp_path, 4, 5).close()
    file = tmp_path / "checkpoints" / "5" / files.SEAL
    file.unlink()
    file.mkdir()
    assert digest(saved(tmp_path).restore(state(0))[0]) == digest(state(4))


def test_a_network_of_another_shape_is_not_restored(tmp_path):
    checkpoints = saved(tmp_path, 1)
    other = state(0) | {"w": jnp.zeros((300, 8))}
    assert checkpoints.restore(other) is None


@pytest.mark.parametrize(
    ("change", "newest_whole", "warnings"),
    [
        (lambda folder: (folder / "2" / files.SEAL).unlink(), 2, 0),  # killed before it was written
        (lambda folder: os.truncate(folder / "2" / files.SEAL, 10), 1, 1),
        (lambda folder: (folder / "2").rename(folder / "2.orbax-checkpoint-tmp"), 1, 0),  # killed before
    ],
    ids=["no digests", "damaged digests", "unfinished"],
)
def test_an_end_at_any_moment(tmp_path, change, newest_whole, warnings):
    saved(tmp_path, 1, 2).close()
    change(tmp_path / "checkpoints")
    said = []
    _, note = saved(tmp_path, said=said).restore(state(0))
    assert note["seconds"] == newest_whole / 2
    assert len(said) == warnings


def test_looking_leaves_a_damaged_one_where_it_is(tmp_path):
    saved(tmp_path, 4, 5).close()
    damage(tmp_path, 5, "flipped")
    said = []
    restored, note = newest(tmp_path / "checkpoints", state(0), warn=said.append)
    assert digest(restored) == digest(state(4))
    assert note["seconds"] == 2.0
    assert len(said) == 1
    assert "checkpoint 5 is damaged (state" in said[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints"]
    damage(tmp_path, 4, "cut")
    assert newest(tmp_path / "checkpoints", state(0), warn=said.append) is None
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["4", "5"]


@pytest.mark.parametrize("what", ["a file", "a folder", "the checkpoint", "a pipe"])
@pytest.mark.parametrize("seal", [True, False])
def test_no_link_is_followed_and_no_pipe_waited_for(tmp_path, what, seal):
    saved(tmp_path, 1).close()
    checkpoint = tmp_path / "checkpoints" / "1"
    if not seal:
        (checkpoint / "digests.json").unlink()
    name = {"a file": "note/metadata", "a folder": "state", "the checkpoint": "", "a pipe": "state/_METADATA"}
    inside = checkpoint / name[what]
    outside = tmp_path / "outside"
    shutil.move(inside, outside)
    os.mkfifo(inside) if what == "a pipe" else inside.symlink_to(outside)
    said = []
    assert newest(tmp_path / "checkpoints", state(0), warn=said.append) is None
    assert "link" in said[0] or "pipe" in said[0]
    (tmp_path / "link").symlink_to(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="symbolic link"):
        Checkpoints(tmp_path / "link")


def test_one_that_is_larger_than_the_state_is_not_read(tmp_path):
    """Neither as files nor, though small on the disk, once unpacked."""
    saved(tmp_path, 1).close()
    checkpoint = tmp_path / "checkpoints" / "1"
    (checkpoint / "digests.json").unlink()
    with open(checkpoint / "state" / "more", "wb") as file:
        file.truncate(2**30)
    said = []
    assert newest(tmp_path / "checkpoints", state(0), warn=said.append) is None
    assert "more than" in said[0]
    with contextlib.closing(Checkpoints(tmp_path / "others")) as checkpoints:
        checkpoints.save(1, state(0) | {"w": jnp.zeros(2**26, jnp.float32)}, {})
    note = tmp_path / "others" / "1" / "note" / "metadata"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"layout": checkpoint_lib._layout(state(0))}))
    (tmp_path / "others" / "1" / "digests.json").unlink()
    assert newest(tmp_path / "others", state(0), warn=said.append) is None
    assert "stored in pieces of 268,4" in said[1]


def test_digest_sees_values_types_and_names():
    base = {"a": np.zeros(2, np.float32)}
    others = [
        {"a": np.zeros(2, np.int32)},
        {"b": np.zeros(2, np.float32)},
        {"a": np.zeros((2, 1), np.float32)},
    ]
    others.append({"a": np.array([0, -0.0], np.float32)})
    assert len({digest(tree) for tree in [base, *others]}) == 5
    assert digest(base) == digest(jax.tree.map(jnp.asarray, base))
