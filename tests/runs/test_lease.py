"""Claims: one holder at a time, whatever becomes of it."""

import os
import subprocess
import sys
import threading
import time

import pytest

from poison_jax.errors import Busy, UserError
from poison_jax.runs import lease

ELSEWHERE = """
import sys, time
from pathlib import Path
import poison_jax.runs.lease as lease
if sys.argv[2] == "other machine":
    lease._machine = lambda: "elsewhere"
with lease.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "claims"


@pytest.fixture
def holder(folder):
    """Starts another process that holds the folder, on this machine or one that says it is another."""
    started = []

    def start(where):
        command = [sys.executable, "-c", ELSEWHERE, str(folder), where]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kill(process):
    process.kill()
    process.wait()


def test_one_at_a_time(folder):
    assert not lease.held(folder)
    with lease.hold(folder) as held:
        held.check()
        assert lease.held(folder)
        with pytest.raises(Busy, match="wait for it or stop it"), lease.hold(folder):
            pytest.fail("held twice")
    assert not lease.held(folder)
    with lease.hold(folder):
        pass
    assert lease.deaths(folder) == 0


def test_of_many_that_try_at_once_one_succeeds(folder):
    outcomes, start, stop = [], threading.Barrier(8), threading.Barrier(8)

    def attempt():
        start.wait()
        try:
            with lease.hold(folder):
                outcomes.append("held")
                stop.wait()
        except Busy:
            outcomes.append("busy")
            stop.wait()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["busy"] * 7 + ["held"]


def test_a_dead_process_of_this_machine_holds_nothing(folder, holder):
    process = holder("here")
    with pytest.raises(Busy), lease.hold(folder):
        pass
    kill(process)
    assert lease.deaths(folder) == 1
    with lease.hold(folder):
        assert lease.deaths(folder) == 1
    assert lease.deaths(folder) == 1


def test_a_dead_process_of_another_machine_holds_until_it_expires(folder, holder):
    kill(holder("other machine"))
    with pytest.raises(Busy), lease.hold(folder):
        pass
    (claim,) = folder.glob("1")
    long_ago = time.time() - lease.PATIENCE - 1
    os.utime(claim, (long_ago, long_ago))
    with lease.hold(folder):
        pass


def test_whoever_slept_too_long_finds_out(folder):
    with lease.hold(folder) as slow:
        long_ago = time.time() - lease.PATIENCE - 1
        os.utime(slow.file, (long_ago, long_ago))
        with lease.hold(folder) as quick:
            quick.check()
            with pytest.raises(Busy, match="taken over"):
                slow.check()


def test_a_holder_gives_signs_of_life(folder):
    with lease.hold(folder, patience=1) as held:
        long_ago = time.time() - 1000
        os.utime(held.file, (long_ago, long_ago))
        end = time.monotonic() + 60
        while held.file.stat().st_mtime < long_ago + 500:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize("ending", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_whoever_does_not_come_to_claim_holds_nothing(folder, monkeypatch, ending):
    """The disk is full, or the process is killed meanwhile."""

    def broken(*_):
        raise ending

    with monkeypatch.context() as patch:
        patch.setattr(lease.json, "dump", broken)
        with pytest.raises(type(ending)), lease.hold(folder):
            pytest.fail("held")
    assert not lease.held(folder)
    assert lease.deaths(folder) == 0
    with lease.hold(folder):
        pass


def test_a_disk_without_links(folder, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lease.os, "link", no_links)
    with lease.hold(folder), pytest.raises(Busy), lease.hold(folder):
        pytest.fail("held twice")
    assert lease.deaths(folder) == 0


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", "[" * 4000, " " * 5000])
def test_a_damaged_claim_expires_like_any_other(folder, content):
    folder.mkdir()
    (folder / "7").write_text(content)
    assert lease.held(folder)
    os.utime(folder / "7", (1, 1))
    with lease.hold(folder) as held:
        assert held.file.name == "8"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_a_claim_that_is_no_file_expires_like_any_other(folder, make):
    """It is not waited for, and not followed."""
    folder.mkdir()
    make(folder / "7")
    assert lease.held(folder)
    os.utime(folder / "7", (1, 1), follow_symlinks=False)
    assert not lease.held(folder)
    with lease.hold(folder) as held:
        assert held.file.name == "8"


@pytest.mark.parametrize("name", ["²", "٣", "007", "0", "1234567890", "7.old"])
def test_what_is_no_number_is_no_claim(folder, name):
    folder.mkdir()
    (folder / name).write_text("")
    assert not lease.held(folder)
    assert lease.deaths(folder) == 0
    lease.forgive(folder)
    with lease.hold(folder) as held:
        assert held.file.name == "1"


def test_a_number_after_which_there_is_none_is_said(folder):
    folder.mkdir()
    (folder / "999999999").write_text("")
    os.utime(folder / "999999999", (1, 1))
    for _ in range(2):
        with pytest.raises(UserError, match="remove the folder"), lease.hold(folder):
            pass
    assert [file.name for file in folder.iterdir()] == ["999999999"]


def test_no_link_is_written_through(folder, tmp_path):
    """Neither when a claim ends nor when it is forgiven."""
    folder.mkdir()
    (folder / "1.released").symlink_to(tmp_path / "outside")
    with lease.hold(folder):
        pass
    os.utime(folder / "1", (1, 1))
    with pytest.raises(UserError, match="symbolic link"):
        lease.forgive(folder)
    assert [file.name for file in tmp_path.iterdir()] == [folder.name]
