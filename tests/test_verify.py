"""Whether the files of a store are as they were written."""

import numpy as np
import pytest

from poison_jax import verify
from poison_jax.runs import files, records, store


@pytest.fixture
def runs(tmp_path):
    """A store with a finished run, an unfinished one, and a sweep of them."""
    workdir = tmp_path / "runs"
    made = []
    for seed in (0, 1):
        run = store.open_run(workdir, "toy", {"seed": seed}, {"seed": seed})
        run.append_metrics({"epoch": 1})
        checkpoint = run.checkpoints / "4"
        (checkpoint / "state").mkdir(parents=True)
        (checkpoint / "state" / "data").write_text("weights")
        files.seal(checkpoint, checkpoint.rglob("*"))
        run.save_arrays("spectrum", values=np.arange(3.0))
        made.append(run)
    made[0].finish({"asr": 0.5})
    cells = [{"run": run.path.name, "overrides": {"seed": i}} for i, run in enumerate(made)]
    records.write_sweep(workdir, records.Sweep("toy", {}, cells))
    record = records.Record(made[1].path.name, {"seed": 1}, {"asr": 0.25}, dict)
    records.store_record(workdir, "toy", made[1].path.name, record)
    return workdir, *made


def ended(*arguments):
    """The exit status."""
    try:
        verify.main([*map(str, arguments)])
    except SystemExit as stopped:
        return stopped.code
    return 0


def test_a_sound_store(runs, capsys):
    workdir, finished, _ = runs
    assert ended(workdir, finished.path) == 0
    out = capsys.readouterr().out
    assert f"{workdir}: 2 runs, 1 finished" in out
    assert "all files are as they were written" in out


@pytest.mark.parametrize(
    ("which", "name", "says"),
    [
        (0, "spectrum.npz", "is not as it was written"),
        (0, "result.json", "cannot be read"),
        (0, "digests.json", "cannot be read"),
        (0, "checkpoints/4/state/data", "is not as it was written"),
        (1, "config.json", "cannot be read"),
        (1, "metrics.jsonl", "cannot be read"),
        (1, "checkpoints/4/digests.json", "cannot be read"),
        (None, "sweeps/toy.json", "cannot be read"),
        (None, "sweeps/toy/stored/*.json", "cannot be read"),
    ],
)
def test_what_is_damaged_is_named(runs, capsys, which, name, says):
    workdir, *made = runs
    (file,) = (workdir if which is None else made[which].path).glob(name)
    damaged = b"{" + file.read_bytes()[:-4] + b"\n"
    file.write_bytes(damaged)
    assert ended(workdir) == 1
    out, err = capsys.readouterr()
    assert err == "error: 1 files are damaged\n"
    (line,) = [line for line in out.splitlines() if says in line]
    assert line.startswith(f"{file} ")
    assert file.read_bytes() == damaged  # looked at, left alone


def test_way_is_made_for_what_is_to_be_made_again(runs, capsys):
    workdir, finished, _ = runs
    (finished.path / "spectrum.npz").write_bytes(b"")
    assert ended("--set_aside", workdir) == 1
    assert not finished.done
    assert {file.name for file in (finished.path / "damaged").iterdir()} == {
        "spectrum.npz",
        "digests.json",
        "result.json",
    }
    capsys.readouterr()
    assert ended(workdir) == 0


def test_what_is_no_folder(tmp_path, capsys):
    assert ended(tmp_path / "nowhere") == 2
    assert capsys.readouterr().err.count("\n") == 1
