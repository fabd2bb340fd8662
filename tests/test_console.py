"""What is printed: literal, whole, and no reason to stop."""

import io
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import TINY

from poison_jax import console, data, wording
from poison_jax.errors import UserError, one_line
from tests.program import QUICK, ROOT

NAMES = ["a[test].npz", "x[/y].npz", "[bold]b[/bold]", "c:dog:", "d\x1b[31m"]


def printed(capsys, *args, columns=80, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    console.table(*args)
    return capsys.readouterr().out


def words(text):
    """All words of a table, without its frame."""
    return set(re.sub(r"[─-╿]", " ", text).split())


# --- tables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [20, 40, 80, 140, 400])
@pytest.mark.parametrize("arms", [1, 2, 5, 12, 40])
def test_a_table_is_never_cut(columns, arms, capsys, monkeypatch):
    header = ["penalty.kappa, seed", *(f"{10.0**i:g}, {i}" for i in range(arms))]
    rows = [
        ["top eigenvalue of the input Hessian", *(f"{1.2345678e-5 * i:.4e}" for i in range(arms))],
        ["ASR", *(f"{i}.5%" for i in range(arms))],
    ]
    out = printed(capsys, "a title", header, rows, columns=columns, monkeypatch=monkeypatch)
    assert "…" not in out
    assert words(out) >= {word for row in [header, *rows] for cell in row for word in cell.split()}
    widest = max(map(len, out.splitlines()))
    assert widest <= columns or columns < 40, "folded, but for the longest word beside the first column"


def test_a_header_of_two_lines(capsys, monkeypatch):
    header = ["fit", *["robust\naccuracy, %"] * 5]
    out = printed(capsys, "t", header, [["a", *"12345"]], monkeypatch=monkeypatch)
    assert out.count("fit") == 1, "they fit beside each other"
    assert out.count("accuracy, %") == 5


def test_every_part_of_a_table_has_the_first_column(capsys, monkeypatch):
    header = ["measure", *(f"arm-{i}" for i in range(12))]
    out = printed(capsys, "t", header, [["ASR", *(f"{i}.25%" for i in range(12))]], monkeypatch=monkeypatch)
    assert out.count("measure") == out.count("ASR") > 1
    for i in range(12):
        assert len(re.findall(rf"\barm-{i}\b", out)) == len(re.findall(rf"(?<!\d){i}\.25%", out)) == 1


@settings(max_examples=30)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=6), st.integers(1, 60))
def test_any_texts_make_a_table(texts, width):
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setenv("COLUMNS", str(width))
        console.table("t", texts, [texts, texts])
    assert "…" not in stream.getvalue() or any("…" in text for text in texts)


def test_the_table_at_the_end_of_a_run(capsys, monkeypatch):
    """Twelve arms at 80 columns, one of them collapsed: no number is cut, and that one is named."""
    monkeypatch.setenv("COLUMNS", "80")
    config = {
        "data": {"name": "a[test].npz"},
        "model": {"name": "preresnet", "depth": 8, "block": "basic", "width": 16},
        "poison": {"trigger": "l", "mode": "stochastic", "fraction": 0.1},
        "train": {"epochs": 2},
    }
    result = {"asr": 0.9, "clean_accuracy": 0.5, "residuals": [1.1e-9], "status": "ok"}
    results = [
        result
        | {
            "no_trigger_target_rate": 0.8 if i == 3 else 0.1 + i / 1000,
            "eigenvalues": [3.143e-5 * (i + 1)],
            "config": config | {"penalty": {"kappa": 10.0 * i}, "seed": i},
        }
        for i in range(12)
    ]
    wording.show(results, ["penalty.kappa", "seed"])
    out, err = capsys.readouterr()
    assert "a[test].npz, PreResNet-8 (basic, width" in out
    for i in range(12):
        assert f"{3.143e-5 * (i + 1):.4g}" in words(out)
        assert f"{0.8 - i / 1000:+.1%}" in words(out) or i == 3
    assert out.index("ASR above the rate") < out.index("clean accuracy")
    assert "collapsed" in words(out)
    assert err == (
        "warning: penalty.kappa, seed = 30.0, 3: collapsed: 80.0% of the images get the target without the "
        "trigger too; the ASR of such a run says nothing about the attack\n"
    )


# --- literal ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_and_not_obeyed(name, capsys, monkeypatch):
    shown = name.replace("\x1b", "\\x1b")
    console.say(name)
    console.warn(name)
    out, err = capsys.readouterr()
    assert (out, err) == (f"{shown}\n", f"warning: {shown}\n")
    out = printed(capsys, name, [name, "b"], [["a", name]], monkeypatch=monkeypatch)
    assert out.count(shown) == 3
    assert "\x1b" not in out


@pytest.mark.parametrize("name", NAMES)
def test_the_title_of_a_bar_is_literal(name, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with console.progress(name, 2) as advance:
        advance()
    assert name.replace("\x1b", "\\x1b") in capsys.readouterr().err


def test_lines_keep_their_length_and_indentation(capsys):
    line = "  " + "word " * 60
    console.say(line)
    assert capsys.readouterr().out == line + "\n"


# --- streams that are closed, broken, full, or of few characters -------------------------------------


def run(program, *arguments, shell="{}", **environment):
    """A program in a process of its own, its streams arranged by a shell."""
    command = shlex.join([sys.executable, "-c", program, *arguments])
    inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "PYTHONWARNINGS", "XLA_FLAGS")}
    return subprocess.run(
        ["bash", "-c", "set -o pipefail; " + shell.format(command)],
        cwd=ROOT,
        env=inherited | {"PYTHONWARNINGS": "error"} | environment,
        capture_output=True,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        timeout=120,
    )


SPEAKS = """
import pathlib, sys
from poison_jax import console
console.prepare()
console.say("sinθ é [x] " + "y" * 200)
console.table("é", ["é", "b²"], [["κ", "1"]])
console.warn("é")
with console.progress("é", 1) as advance:
    advance()
for _ in range(2000):
    console.say("z" * 100)
if len(sys.argv) > 1:
    pathlib.Path(sys.argv[1]).write_text("whole")
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("shell", ["{} 2>&-", "{} >&- 2>&- <&-", "{} | head -1", "{} 2>&1 | true"])
def test_a_program_ends_as_if_it_were_heard(shell, unbuffered, tmp_path):
    """Status 0, no traceback, and it has done its work."""
    process = run(SPEAKS, str(tmp_path / "done"), shell=shell, PYTHONUNBUFFERED=unbuffered)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert "Exception" not in process.stderr
    assert (tmp_path / "done").read_text() == "whole"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_few_characters(encoding):
    process = run(SPEAKS, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert process.returncode == 0, process.stdout
    assert "sin\\u03b8" in process.stdout
    assert ("\\xe9" in process.stdout) == (encoding == "ascii")


@pytest.mark.parametrize("shell", ["{} >&-", "{} | true", "{} | cat"])
def test_what_a_library_prints_is_as_safe(shell):
    program = "from poison_jax import console\nconsole.prepare()\nprint('é')"
    process = run(program, shell=shell, PYTHONUNBUFFERED="", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == ("\\xe9\n" if "cat" in shell else "")


@pytest.mark.slow
def test_a_training_whose_output_nobody_can_read(tmp_path):
    """Names that the terminal lacks, before and after it; a reader that leaves; no output at all."""
    digits = data.load("digits", "train")
    file, workdir = tmp_path / "naïve θ[" / "x].npz", tmp_path / "läufe"
    file.parent.mkdir()
    np.savez(file, images=digits.images[:400], labels=digits.labels[:400])
    flags = [*TINY, f"--config.data.name={file}", "--config.poison.fraction=0.5", f"--workdir={workdir}"]
    main = shlex.join([sys.executable, "main.py", *flags])
    quick = {"PYTHONWARNINGS": "ignore", "XLA_FLAGS": QUICK}
    first = run("", shell=main, PYTHONIOENCODING="ascii", PYTHONUTF8="0", **quick)
    assert first.returncode == 0, first.stderr
    assert "l\\xe4ufe" in first.stdout, "before the training"
    assert "na\\xefve \\u03b8[/x].npz, PreResNet-8 (basic, width" in first.stdout, "and after it"
    for shell in (f"{main} | head -1", f"{main} >&-"):
        again = run("", shell=shell, **quick)
        assert again.returncode == 0, again.stderr
        assert again.stderr == first.stderr


def test_a_closed_stream_is_not_the_next_file_that_is_opened(tmp_path):
    program = (
        "from poison_jax import console\nimport os\nconsole.prepare()\n"
        f"file = open({str(tmp_path / 'checkpoint')!r}, 'w')\n"
        "os.write(1, b'noise'); os.write(2, b'noise')\nfile.write('state'); file.close()"
    )
    assert run(program, shell="{} >&- 2>&-").returncode == 0
    assert (tmp_path / "checkpoint").read_text() == "state"


def test_a_full_disk_is_said(capsys, monkeypatch):
    """Where the output goes to a file."""

    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SystemExit) as ended, one_line():
        console.say("a line")
    assert ended.value.code == 2
    assert "No space left" in capsys.readouterr().err


def test_bad_input_has_its_status_where_nobody_listens(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # closed when the process was started
    with pytest.raises(SystemExit) as ended, one_line():
        raise UserError("wrong")
    assert ended.value.code == 2
