"""How the scripts begin and end."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from plots import command
from poison_jax.errors import UserError
from poison_jax.runs import store


def test_of_runs(tmp_path, capsys):
    run = store.open_run(tmp_path, "run", {})
    drawn = []

    def draw(runs, file):
        drawn.append((runs, file))
        return [file]

    with pytest.raises(SystemExit) as left:
        command.of_runs(draw, "all.png", "What it shows.", [str(run.path)])
    assert left.value.code == 2
    assert (
        capsys.readouterr().err
        == f"error: {run.path} holds no finished run: name finished runs' directories\n"
    )
    run.finish({})
    command.of_runs(draw, "all.png", "What it shows.", [str(run.path), "--out", str(tmp_path / "x.png")])
    command.of_runs(draw, "all.png", "What it shows.", [str(run.path)])
    assert [str(file) for _, file in drawn] == [str(tmp_path / "x.png"), "all.png"]
    assert drawn[0][0][0].path == run.path
    assert capsys.readouterr().out == f"{tmp_path / 'x.png'}\nall.png\n"


def test_a_figure_is_whole_or_as_it_was(tmp_path, monkeypatch):
    """And the same figure is the same bytes."""
    files, before = [tmp_path / "x.png", tmp_path / "x.pdf"], []
    for _ in range(2):
        assert command.save(plt.figure(), tmp_path, "x") == files
        before.append([file.read_bytes() for file in files])
    assert before[0] == before[1]

    def cut_off(self, stream, **options):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", cut_off)
    with pytest.raises(OSError, match="No space"):
        command.save(plt.figure(), tmp_path, "x")
    plt.close("all")
    assert [file.read_bytes() for file in files] == before[0]
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_help_says_what_is_drawn(capsys):
    with pytest.raises(SystemExit) as left:
        command.of_sweep("fig06", lambda *_: [], "What it shows.\n\nMore.", ["--help"])
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "What it shows." in said
    assert "fig06 if DIR holds it, else fig06-small" in said
    assert "More" not in said


def test_of_each_run(tmp_path, capsys):
    """What is absent, not finished or damaged is said in one line that names the run."""
    run = store.open_run(tmp_path, "run", {})

    def refused(draw, path, **options):
        with pytest.raises(SystemExit) as left:
            command.of_each_run(draw, "What it shows.", argv=[str(path)], **options)
        assert left.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {path} ")
        assert err.count("\n") == 1
        return err

    assert "no run" in refused(lambda run: [], tmp_path / "nowhere", finished=False)
    assert "no finished run" in refused(lambda run: [], run.path)
    run.finish({})
    assert "KeyError: 'asr'" in refused(lambda run: run.result()["asr"], run.path)
    command.of_each_run(
        lambda run: [run.path / "a.png"],
        "What it shows.",
        lambda runs: [Path("all.png")],
        argv=[str(run.path)] * 2,
    )
    assert capsys.readouterr().out.split() == [str(run.path / "a.png")] * 2 + ["all.png"]


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), command.one_line():
        _ = 1 / 0
    with pytest.raises(SystemExit), command.one_line():
        raise UserError("no")
