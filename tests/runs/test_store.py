"""Run directories: named by their config, whole after a kill at any moment."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from poison_jax.errors import Damaged, UserError
from poison_jax.runs import files, store

CONFIG = {"seed": 0, "penalty": {"kappa": 0.5}, "data": {"dir": "/here", "name": "digits"}, "sizes": (1, 2)}
IDENTITY = {"seed": 0, "penalty.kappa": 0.5, "sizes": (1, 2)}
ROWS = [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]


def open_run(workdir, name="toy", **identity):
    return store.open_run(workdir, name, CONFIG, IDENTITY | identity)


@pytest.fixture
def run(tmp_path):
    return open_run(tmp_path)


# --- names and directories ------------------------------------------------------------------------


def test_names_are_stable_and_tell_identities_apart():
    golden = (
        "another digest of the same identity orphans every finished run: its directory is not found again"
    )
    assert store.digest({"a": 1, "b.c": 0.5}) == "300c4632c5bc", golden
    assert store.run_name("toy", {}) == f"toy-{store.digest({})}"
    changes = {}, {"seed": 1}, {"seed": "0"}, {"penalty.kappa": 0.5000001}, {"sizes": (2, 1)}, {"more": None}
    assert len({store.digest(IDENTITY | change) for change in changes}) == len(changes)


def test_one_identity_has_one_directory(tmp_path):
    """Whatever else its config says, and in whichever order."""
    first = open_run(tmp_path)
    assert first.path == tmp_path / store.run_name("toy", IDENTITY)
    assert first.config() == CONFIG | {"sizes": [1, 2]}
    assert first.result() is None

    elsewhere = CONFIG | {"data": {"dir": "/there", "name": "digits"}}
    again = store.open_run(str(tmp_path), "toy", elsewhere, dict(reversed(IDENTITY.items())))
    assert again.path == first.path
    assert again.config() == first.config()
    assert open_run(tmp_path, seed=1).path != first.path


def test_two_processes_may_begin_one_run_at_once(tmp_path, monkeypatch):
    exists = Path.exists

    def then_begun_by_another(path, **options):
        found = exists(path, **options)
        if path.name == "config.json" and not found:
            monkeypatch.undo()
            open_run(tmp_path)
        return found

    monkeypatch.setattr(Path, "exists", then_begun_by_another)
    assert open_run(tmp_path).config() == store.plain(CONFIG)


@pytest.mark.parametrize("content", [None, b"", b'{"seed": 0,\n', b"[1]", b"\xff\xfe{}", b"[" * 10**5])
def test_a_config_that_is_gone_or_damaged_is_written_again(run, tmp_path, capsys, content):
    """The folder's name says which one it was."""
    (run.path / "config.json").unlink()
    if content is not None:
        (run.path / "config.json").write_bytes(content)
    assert open_run(tmp_path).config() == CONFIG | {"sizes": [1, 2]}
    said = capsys.readouterr().err
    assert said.count("\n") == (content is not None)
    if content is not None:
        assert "config.json" in said
        assert (run.path / "damaged" / "config.json").read_bytes() == content


def test_a_damaged_result_is_one_line_to_the_user(run):
    run.finish({"asr": 0.25})
    file = run.path / "result.json"
    content = file.read_bytes().replace(b"0.25", b"0.75")
    file.write_bytes(content)
    with pytest.raises(Damaged, match=r"\A.*result.json .*move it away\Z"):
        run.result()
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "name", ["config.json", "inputs.json", "metrics.jsonl", "spectrum.npz", "result.json"]
)
def test_what_is_damaged_in_a_finished_run_is_set_aside(run, capsys, name):
    """Every bit of every file is looked at; the result goes with what it was made of."""
    run.pin_inputs("abc")
    run.append_metrics({"epoch": 1, "loss": 0.5})
    run.save_arrays("spectrum", values=np.arange(3.0))
    run.finish({"asr": 0.25})
    assert run.damage() == {}
    assert run.finished() == {"asr": 0.25}
    file = run.path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert list(run.damage()) == [name]
    assert run.finished() is None
    (said,) = capsys.readouterr().err.splitlines()
    assert str(file) in said
    assert {f.name for f in (run.path / "damaged").iterdir()} == {name, "digests.json", "result.json"}
    assert (run.path / "damaged" / name).read_bytes() == content
    assert not file.exists()
    assert run.damage() == {}


def test_arrays_that_are_added_later_are_sealed_too(run):
    """And what was damaged before stays so."""
    for name in ("spectrum", "attack"):
        run.save_arrays(name, values=np.arange(3.0))
    run.finish({})
    (run.path / "attack.npz").write_bytes(b"")
    run.save_arrays("spectrum", values=np.arange(4.0))
    run.save_arrays("features", values=np.arange(5.0))
    assert run.arrays("spectrum")["values"].size == 4
    assert list(run.damage()) == ["attack.npz"]
    (run.path / "features.npz").write_bytes(b"")
    assert list(run.damage()) == ["attack.npz", "features.npz"]


def test_what_is_gone_or_swapped_in_a_finished_run_is_noticed(run, tmp_path):
    """A whole file in another's place, and a file that ends early at the end of a line, too."""
    other = open_run(tmp_path, "other")
    for made, value in ((run, 0.0), (other, 1.0)):
        for epoch in (1, 2):
            made.append_metrics({"epoch": epoch, "loss": value})
        made.save_arrays("spectrum", values=np.full(3, value))
        made.finish({"asr": value})
    shutil.copy(other.path / "spectrum.npz", run.path)
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_text(lines[0])
    for look in (lambda: run.arrays("spectrum"), run.metrics):
        with pytest.raises(Damaged, match=r"is not as it was written: python -m poison_jax\.verify"):
            look()
    (run.path / "config.json").unlink()
    assert run.damage() == {
        "config.json": "is gone",
        "metrics.jsonl": "is not as it was written",
        "spectrum.npz": "is not as it was written",
    }


LOGITS = np.array([[1.0, -2.0], [np.nan, np.inf]])


@pytest.mark.parametrize(
    ("found", "same"),
    [
        (LOGITS, True),
        (LOGITS + 0.09, True),  # another device
        (LOGITS + 0.11, False),
        (LOGITS[:1], False),
        (np.ones((2, 2)), False),
    ],
)
def test_a_run_is_tied_to_what_a_network_computes_but_for_rounding(run, found, same):
    run.pin_inputs("abc", LOGITS)
    with contextlib.nullcontext() if same else pytest.raises(UserError, match="have changed since"):
        run.pin_inputs("abc", found)
    with pytest.raises(UserError, match="have changed since"):
        run.pin_inputs("abcd", found)


def test_a_run_that_was_begun_without_the_logits_goes_on(run):
    run.pin_inputs("abc")
    before = (run.path / "inputs.json").read_bytes()
    run.pin_inputs("abc", LOGITS)
    assert (run.path / "inputs.json").read_bytes() == before


@pytest.mark.parametrize("logits", ["abc", [[1.0], [2.0, 3.0]], {"a": 1}, None])
def test_logits_that_are_none_are_others(run, logits):
    files.write_json(run.path / "inputs.json", {"sha256": "abc", "logits": logits})
    with pytest.raises(UserError, match="have changed since"):
        run.pin_inputs("abc", LOGITS)


LOOKS = {
    "spectrum.npz": lambda run: run.arrays("spectrum"),
    "metrics.jsonl": lambda run: run.append_metrics({}),
    "result.json": lambda run: run.result(),
    "claims": lambda run: run.claim().__enter__(),
    "checkpoints": lambda run: run.claim().__enter__(),
    "damaged": lambda run: run.claim().__enter__(),
}


@pytest.mark.parametrize("name", LOOKS)
def test_no_link_is_followed(run, tmp_path, name):
    """Neither read nor written through: a run may come from somebody else."""
    run.finish({})
    target = tmp_path / "target"
    target.write_text("mine\n") if "." in name else target.mkdir()
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(target)
    with pytest.raises(UserError, match="symbolic link"):
        LOOKS[name](run)
    assert target.read_text() == "mine\n" if "." in name else not list(target.iterdir())


def test_a_pipe_is_not_waited_for(run):
    os.mkfifo(run.path / "result.json")
    with pytest.raises(Damaged, match="no regular file"):
        run.result()


def test_a_bomb_is_not_unpacked(run, monkeypatch):
    run.save_arrays("spectrum", values=np.zeros(2**20))
    monkeypatch.setattr(files, "MOST_OF_A_RUN", 2**20)
    with pytest.raises(Damaged, match=r"spectrum.npz.*more than"):
        run.arrays("spectrum")


# --- what is written ------------------------------------------------------------------------------


def test_results_are_strict_json(run):
    """NaN and infinity are not JSON: other readers would refuse the file."""
    row = {"asr": float("nan"), "loss": np.float32("inf"), "values": np.array([1.0, np.nan, 3.0])}
    row |= {"nested": [{"a": (np.int64(1), -np.inf)}], "done": np.True_, "text": "é"}
    plain = {"asr": None, "loss": None, "values": [1.0, None, 3.0]}
    plain |= {"nested": [{"a": [1, None]}], "done": True, "text": "é"}
    run.finish(row)
    run.append_metrics(row)
    assert run.result() == plain
    assert run.metrics() == [plain]
    for file in ("result.json", "metrics.jsonl"):
        json.loads((run.path / file).read_text(), parse_constant=pytest.fail)


def test_metrics_are_read_in_order(run, capsys):
    run.keep_metrics([])
    assert run.metrics() == []
    for row in ROWS:
        run.append_metrics(row)
    assert run.metrics() == ROWS
    run.keep_metrics(ROWS[:1])
    assert run.metrics() == ROWS[:1]
    run.append_metrics(ROWS[1])
    assert run.metrics() == ROWS[:2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("cut", [1, 5, -1])
def test_metrics_survive_a_cut_line(run, cut, capsys):
    run.append_metrics(ROWS[0])
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write(files.dumps(ROWS[1])[:cut])
    assert run.metrics() == ROWS[:1]
    run.keep_metrics(ROWS[:1])  # as every resumed run does before it goes on
    for row in ROWS[1:]:
        run.append_metrics(row)
    assert run.metrics() == ROWS
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.replace(b"0.5", b"0.6"),
        lambda content: content[: content.index(b"\n") + 1],
        lambda content: content[content.index(b"\n") + 1 :],
        lambda content: b"",
        lambda content: None,
    ],
    ids=["a digit", "the second line is gone", "the first line is gone", "empty", "gone"],
)
def test_damaged_metrics_come_from_the_checkpoint(run, damage, capsys):
    for row in ROWS[:2]:
        run.append_metrics(row)
    file = run.path / "metrics.jsonl"
    damaged = damage(file.read_bytes())
    file.unlink() if damaged is None else file.write_bytes(damaged)
    run.keep_metrics(ROWS[:2])
    assert run.metrics() == ROWS[:2]
    assert capsys.readouterr().err == f"warning: {file} is damaged: written again from the checkpoint\n"


def test_arrays_round_trip(run):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 4, 4, 3), np.uint8)
    arrays = {"values": rng.random(3), "images": images, "k": np.int64(3)}
    run.save_arrays("spectrum", **arrays)
    loaded = run.arrays("spectrum")
    assert loaded.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(loaded[key], array)
        assert loaded[key].dtype == array.dtype


@pytest.mark.parametrize(
    "content",
    [
        lambda whole, other: whole[: len(whole) // 2],
        lambda whole, other: b"",
        lambda whole, other: whole[:300] + b"\xff" * 300 + whole[600:],
        lambda whole, other: other,
        None,
    ],
    ids=["truncated", "empty", "overwritten", "pickled", "absent"],
)
def test_arrays_that_cannot_be_read(run, content):
    run.save_arrays("spectrum", vectors=np.random.default_rng(0).random((3, 100)))
    np.savez(run.path / "other.npz", vectors=np.array([{}], object))
    file = run.path / "spectrum.npz"
    whole, other = file.read_bytes(), (run.path / "other.npz").read_bytes()
    file.unlink()
    if content:
        file.write_bytes(content(whole, other))
    with pytest.raises(UserError, match=r"\A.*spectrum.npz cannot be read.*\Z"):
        run.arrays("spectrum")


# --- stages and views -----------------------------------------------------------------------------


def look(run, view, **stages):
    """As a finished run is looked at: stages with an identity and a number each, then the view's result."""
    names = {}
    for name, (identity, value) in stages.items():
        if run.findings(name, identity) is None:
            run.save_stage(name, identity, {"values": np.full(3, value)}, {"value": value}, 1.5)
        names[name] = run.stage_file(name, identity)
    run.finish(
        {"value": run.findings("spectrum", stages["spectrum"][0])["findings"]["value"], "stages": names}, view
    )


def test_a_run_has_a_result_and_arrays_in_every_view(run):
    look(run, "k5", attack=("a", 1.0), spectrum=("five", 5.0))
    look(run, "k9", attack=("a", 2.0), spectrum=("nine", 9.0))
    assert run.result() == run.result("k9")
    for view, value in {"k5": 5.0, "k9": 9.0, "": 9.0}.items():
        assert run.done_with(view)
        assert run.result(view)["value"] == value
        np.testing.assert_array_equal(run.arrays("spectrum", view)["values"], np.full(3, value))
        np.testing.assert_array_equal(run.arrays("attack", view)["values"], np.ones(3))  # made once
    assert not run.done_with("k7")
    assert run.result("k7") is run.finished("k7") is None
    assert run.finished("k5")["value"] == 5.0
    assert run.result()["value"] == 5.0  # the one asked for last
    assert run.damage() == {}


def test_damage_in_one_view_undoes_all(run, capsys):
    """Else the arrays of a result might be gone; what is whole is not made again."""
    look(run, "k5", attack=("a", 1.0), spectrum=("five", 5.0))
    look(run, "k9", attack=("a", 1.0), spectrum=("nine", 9.0))
    (run.path / "spectrum-nine.npz").write_bytes(b"")
    assert run.finished("k5") is None
    assert not run.done_with("k9")
    assert "spectrum-nine.npz" in capsys.readouterr().err
    assert run.findings("spectrum", "nine") is None
    look(run, "k5", attack=("a", 3.0), spectrum=("five", 3.0))
    assert run.result("k5")["value"] == 5.0
    assert not run.done_with("k9")


@pytest.mark.parametrize("damaged", ["spectrum-nine.npz", "result.json", "digests.json", "view-k5.json"])
@pytest.mark.parametrize("moment", range(6))
def test_killed_while_it_sets_aside(run, monkeypatch, capsys, damaged, moment):
    """After any of its files: no view is left whose arrays are gone, and the next process ends it."""
    look(run, "k5", attack=("a", 1.0), spectrum=("five", 5.0))
    look(run, "k9", attack=("a", 1.0), spectrum=("nine", 9.0))
    content = (run.path / damaged).read_bytes()
    (run.path / damaged).write_bytes(content[:-9])
    set_aside, done = store.Run.set_aside, []

    def killed(self, name, reason=""):
        set_aside(self, name, reason)
        done.append(name)
        if len(done) > moment:
            raise Kill

    with monkeypatch.context() as patch, contextlib.suppress(Kill):
        patch.setattr(store.Run, "set_aside", killed)
        assert run.finished("k5") is None
    assert run.finished("k5") is None
    assert not run.done
    look(run, "k5", attack=("a", 1.0), spectrum=("five", 5.0))
    assert run.finished("k9") is None
    assert not run.done_with("k9")
    assert run.damage() == {}


@pytest.mark.parametrize("name", ["spectrum.npz", "spectrum.json"])
def test_a_stage_that_is_damaged_before_the_run_is_sealed_is_made_again(run, capsys, name):
    """Else the seal would be of the damage, and nobody would ever make it again."""
    run.save_stage("spectrum", "five", {"values": np.arange(300.0)}, {"value": 1.0}, 0.5)
    file = run.path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    look(run, "k5", spectrum=("five", 5.0))
    (said,) = capsys.readouterr().err.splitlines()
    assert name in said
    assert (run.path / "damaged" / name).read_bytes() == content
    assert run.damage() == {}
    np.testing.assert_array_equal(run.arrays("spectrum", "k5")["values"], np.full(3, 5.0))


def test_a_disk_that_fails_for_the_moment_sets_nothing_aside(run, monkeypatch):
    run.save_stage("spectrum", "five", {"values": np.arange(3.0)}, {"value": 1.0}, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(store.Run, "_read", failing_disk)
        with pytest.raises(OSError, match="Input/output"):
            run.findings("spectrum", "five")
    assert run.findings("spectrum", "five")["findings"] == {"value": 1.0}


def failing_disk(*_):
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("name", ["../toy", "/etc/x", "a/b", "..", 3])
def test_a_result_names_no_arrays_elsewhere(run, name):
    run.save_arrays("spectrum", values=np.arange(3.0))
    run.finish({"stages": {"spectrum": name}})
    with pytest.raises(Damaged, match=r"spectrum|cannot be read"):
        run.arrays("spectrum")


# --- kills and rivals -----------------------------------------------------------------------------


class Kill(BaseException):
    """The end of the process, as far as the code can see."""


@contextlib.contextmanager
def killed_before_rename():
    def kill(*_):
        raise Kill

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(Kill):
            yield


WRITES = {
    "result.json": lambda run, value: run.finish({"asr": value}),
    "metrics.jsonl": lambda run, value: run.keep_metrics([{"epoch": 1}, {"epoch": 2}][:value]),
    "spectrum.npz": lambda run, value: run.save_arrays("spectrum", values=np.full(5, value)),
}


@pytest.mark.parametrize("name", WRITES)
def test_kill_before_the_rename_leaves_the_old_file(run, name):
    write, file = WRITES[name], run.path / name
    for epoch in (1, 2):
        run.append_metrics({"epoch": epoch})
    write(run, 1)
    before = file.read_bytes()
    with killed_before_rename():
        write(run, 0)
    assert file.read_bytes() == before
    write(run, 0)
    assert file.read_bytes() != before


def test_kill_while_a_run_is_made(tmp_path):
    with killed_before_rename():
        open_run(tmp_path)
    assert open_run(tmp_path).config()["seed"] == 0


def test_claim_is_released_by_its_end(run):
    with pytest.raises(Kill), run.claim():
        raise Kill
    with run.claim(), pytest.raises(UserError, match="another process"), run.claim():
        pass
    with run.claim():
        pass
