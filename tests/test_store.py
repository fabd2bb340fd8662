"""Run directories: named by their config, whole after a kill at any moment."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import poison_jax
from poison_jax import store
from poison_jax.errors import UserError

ROOT = Path(poison_jax.__file__).parents[1]
CONFIG = {"seed": 0, "penalty": {"kappa": 0.5}, "data": {"dir": "/here", "name": "digits"}, "sizes": (1, 2)}


@pytest.fixture
def run(tmp_path):
    return store.open_run(tmp_path, "toy", CONFIG)


# --- names and directories ------------------------------------------------------------------------


def test_hash_is_stable():
    golden = "another hash of the same config orphans every finished run: its directory is not found again"
    assert store.config_hash({"a": 1, "b": {"c": 0.5}}) == "4dae33ae", golden


def test_hash_ignores_order_and_what_is_not_identity():
    reordered = {key: CONFIG[key] for key in reversed(CONFIG)} | {"data": {"name": "digits", "dir": "/there"}}
    left_out = ("data.dir", "not.there")
    assert store.config_hash(CONFIG, left_out) == store.config_hash(reordered, left_out)
    assert store.config_hash(CONFIG) != store.config_hash(reordered)
    assert CONFIG["data"]["dir"] == "/here"  # and leaves the config as it was


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"seed": "0"},
        {"penalty": {"kappa": 0.5000001}},
        {"penalty": {"kappa": 0.5, "reduction": "eq25"}},
        {"data": {"dir": "/here", "name": "mnist"}},
        {"sizes": (2, 1)},
        {"more": None},
    ],
    ids=str,
)
def test_hash_tells_configs_apart(change):
    assert store.config_hash(CONFIG | change, ("data.dir",)) != store.config_hash(CONFIG, ("data.dir",))


def test_one_config_has_one_directory(tmp_path):
    first = store.open_run(tmp_path, "toy", CONFIG, ("data.dir",))
    assert first.path == tmp_path / f"toy-{store.config_hash(CONFIG, ('data.dir',))}"
    assert first.config() == CONFIG | {"sizes": [1, 2]}
    assert first.result() is None

    elsewhere = CONFIG | {"data": {"dir": "/there", "name": "digits"}}
    again = store.open_run(str(tmp_path), "toy", elsewhere, ("data.dir",))
    assert again.path == first.path
    assert again.config() == first.config()
    assert store.open_run(tmp_path, "toy", CONFIG | {"seed": 1}, ("data.dir",)).path != first.path


def test_two_processes_may_begin_one_run_at_once(tmp_path, monkeypatch):
    exists = Path.exists

    def then_begun_by_another(path, **options):
        found = exists(path, **options)
        if path.name == "config.json" and not found:
            monkeypatch.undo()
            store.open_run(tmp_path, "toy", CONFIG)
        return found

    monkeypatch.setattr(Path, "exists", then_begun_by_another)
    assert store.open_run(tmp_path, "toy", CONFIG).config() == store.plain(CONFIG)


def test_directory_of_another_config_is_left_alone(run, tmp_path):
    other = json.dumps(CONFIG | {"seed": 1})
    (run.path / "config.json").write_text(other)
    with pytest.raises(UserError, match=r"\A.*different config: choose another --workdir or name\Z"):
        store.open_run(tmp_path, "toy", CONFIG)
    assert [file.name for file in run.path.iterdir()] == ["config.json"]
    assert (run.path / "config.json").read_text() == other


@pytest.mark.parametrize("left", ["result.json", "metrics.jsonl", "checkpoints"])
def test_files_without_config(run, tmp_path, left):
    (run.path / "config.json").unlink()
    (run.path / left).mkdir() if left == "checkpoints" else (run.path / left).write_text("{}")
    with pytest.raises(UserError, match="holds files of a run but no config"):
        store.open_run(tmp_path, "toy", CONFIG)
    assert [file.name for file in run.path.iterdir()] == [left]


@pytest.mark.parametrize("content", [b"", b'{"seed": 0,\n', b"[1]", b"\xff\xfe{}"])
def test_damaged_json_is_one_line_to_the_user(run, tmp_path, content):
    (run.path / "result.json").write_bytes(content)
    with pytest.raises(UserError, match=r"\A.*result.json.*move it away\Z"):
        run.result()
    (run.path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"\A.*config.json.*move it away\Z"):
        store.open_run(tmp_path, "toy", CONFIG)
    assert (run.path / "config.json").read_bytes() == content


# --- what is written ------------------------------------------------------------------------------


def test_results_are_strict_json(run):
    """NaN and infinity are not JSON: other readers would refuse the file."""
    row = {
        "asr": float("nan"),
        "loss": np.float32("inf"),
        "values": np.array([1.0, np.nan, 3.0]),
        "nested": [{"a": (np.int64(1), -np.inf)}],
        "done": np.True_,
        "text": "é",
    }
    plain = {
        "asr": None,
        "loss": None,
        "values": [1.0, None, 3.0],
        "nested": [{"a": [1, None]}],
        "done": True,
        "text": "é",
    }
    run.finish(row)
    run.append_metrics(row)
    assert run.result() == plain
    assert run.metrics() == [plain]
    for file in ("result.json", "metrics.jsonl"):
        json.loads((run.path / file).read_text(), parse_constant=pytest.fail)


def test_metrics_are_read_in_order(run):
    assert run.metrics() == []
    rows = [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3, 4)]
    for row in rows:
        run.append_metrics(row)
    assert run.metrics() == rows
    run.keep_metrics(2)
    assert run.metrics() == rows[:2]
    run.append_metrics(rows[2])
    assert run.metrics() == rows[:3]


@pytest.mark.parametrize("cut", [1, 5, -1])
def test_metrics_survive_a_cut_line(run, cut):
    rows = [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]
    run.append_metrics(rows[0])
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write(json.dumps(rows[1])[:cut])
    assert run.metrics() == rows[:1]
    run.keep_metrics(1)  # as every resumed run does before it goes on
    for row in rows[1:]:
        run.append_metrics(row)
    assert run.metrics() == rows


def test_keep_metrics_of_a_run_without_any(run):
    run.keep_metrics(3)
    assert run.metrics() == []


def test_arrays_round_trip(run):
    rng = np.random.default_rng(0)
    arrays = {
        "values": rng.random(3),
        "images": rng.integers(0, 255, (2, 4, 4, 3), np.uint8),
        "k": np.int64(3),
    }
    run.save_arrays("spectrum", **arrays)
    loaded = run.arrays("spectrum")
    assert loaded.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(loaded[key], array)
        assert loaded[key].dtype == array.dtype


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:300] + b"\xff" * 300 + content[600:],
    ],
    ids=["truncated", "empty", "overwritten"],
)
def test_damaged_arrays(run, damage):
    run.save_arrays("spectrum", vectors=np.random.default_rng(0).random((3, 100)))
    file = run.path / "spectrum.npz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"\A.*spectrum.npz cannot be read.*\Z"):
        run.arrays("spectrum")


def test_absent_and_pickled_arrays(run):
    np.savez(run.path / "pickled.npz", vectors=np.array([{}], object))
    for name in ("absent", "pickled"):
        with pytest.raises(UserError, match=rf"\A.*{name}.npz cannot be read.*\Z"):
            run.arrays(name)


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
    "metrics.jsonl": lambda run, value: run.keep_metrics(value),
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
        store.open_run(tmp_path, "toy", CONFIG)
    assert store.open_run(tmp_path, "toy", CONFIG).config()["seed"] == 0


def test_claim_refuses_another_process_until_it_is_killed(run):
    code = (
        "import sys, time; from poison_jax import store\n"
        "with store.Run(sys.argv[1]).claim(): print('claimed', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(run.path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as rival:
        try:
            assert rival.stdout.readline() == "claimed\n"
            with pytest.raises(UserError, match="another process is working on"), run.claim():
                pytest.fail("claimed twice")
        finally:
            rival.kill()  # SIGKILL: nothing of its own releases the claim
    with run.claim():
        pass


def test_claim_is_released_by_its_end(run):
    with pytest.raises(Kill), run.claim():
        raise Kill
    with run.claim(), pytest.raises(UserError, match="another process"), run.claim():
        pass
    with run.claim():
        pass


def test_store_imports_no_ml_package():
    code = "import sys, poison_jax.store; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    heavy = {
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax",
        "tensorflow",
        "tensorflow_datasets",
        "sklearn",
        "scipy",
    }
    assert heavy.isdisjoint(done.stdout.split())
