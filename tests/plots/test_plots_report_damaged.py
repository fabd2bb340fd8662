"""The report of stores that are damaged, unfinished or hostile, and of bad input."""

import re

import pytest
from report_stores import HOSTILE, begun, configured, finished, hostile_store, png, rows, swept, written

from plots import report
from poison_jax.runs import files, records
from poison_jax.sweeps import outcomes


def test_what_is_damaged_is_listed_and_stops_nothing(tmp_path, draw_sweep):
    runs = tmp_path / "runs"
    board = swept(runs)
    (runs / "cell-0" / "result.json").write_text('{"asr": 0.9')
    (runs / "sweeps" / "torn.json").write_text("{")
    for name, content in {
        "empty": files.dumps({}),
        "list": "[]",
        "odd": files.dumps({"config": {"experiment": 3}}),
        "deep": "[" * 10**5,
    }.items():
        (runs / name).mkdir()
        (runs / name / "result.json").write_text(content)
    finished(runs, "typed", changes={"asr": "much", "eigenvalues": [], "clean_accuracy": 10**400})
    unread = finished(runs, "unread")
    (unread.path / "spectrum.npz").write_bytes(b"PK")
    begun(runs, "begun", seed=9).append_metrics({"epoch": 2})
    nothing = finished(runs, "nothing", seed=8)
    (nothing.path / "figure.png").write_bytes(b"")
    text = written(runs, tmp_path)
    assert "1 of 4 done, 1 failed, 1 waiting, 1 damaged" in text
    assert re.search("damaged: .*cell-0/result.json cannot be read", rows(text, "sweep-1")[1][-2])
    assert "<strong>Table.</strong> 1 cells" in text, "the other cells are drawn"
    assert re.search('class="why">[^<]*torn.json cannot be read', text)
    assert len(re.findall('class="why">damaged: [^<]*(empty|list|odd)/result.json', text)) == 3
    assert re.search('class="why">damaged: [^<]*deep/result.json cannot be read .nested too deep', text)
    assert "epoch 2 of 8; nobody works on it" in text
    assert re.search('class="why">cannot be drawn: [^<]*spectrum.npz is not as it was written', text)
    assert 'class="why">figure.png is no PNG file' in text
    header, *others = rows(text, "runs")
    (typed,) = (row for row in others if row[-1].startswith("typed"))
    typed = dict(zip(header, typed, strict=True))
    assert typed["ASR"] == typed["ASR − no trigger"] == typed["λ₁"] == "damaged"
    assert typed["clean accuracy"] == "damaged", "no number is that large"
    assert 'class="why">the result cannot be shown as a table' in text
    assert board.why("cell-100") in text


def test_a_running_cell(tmp_path, draw_sweep):
    board = swept(tmp_path / "runs")
    run = board.run("cell-1000")
    run.path.mkdir()
    files.write_json(run.path / "config.json", configured())
    run.append_metrics({"epoch": 3})
    with run.claim():
        text = written(board.workdir, tmp_path)
    assert "2 of 4 done, 1 running, 1 failed" in text
    assert rows(text, "sweep-1")[4][-2] == "running: epoch 3 of 8"


def test_a_cell_outside_the_store_is_not_read(tmp_path, draw_sweep):
    runs = tmp_path / "runs"
    finished(tmp_path, "outside")
    cells = [{"run": f"../{next(tmp_path.glob('outside-*')).name}", "overrides": {}}]
    records.write_sweep(runs, records.Sweep("grid", configured(), cells))
    text = written(runs, tmp_path)
    assert "is no name of a run" in text
    assert "62.5" not in text


def test_nothing_is_markup(tmp_path, draw_sweep, monkeypatch):
    monkeypatch.setattr("plots.figures.of_run", lambda run: {HOSTILE: png()})
    text = written(hostile_store(tmp_path / "runs"), tmp_path)
    assert text.count("<script") == 1, "the page's own"
    assert "<img src=x" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") >= 10


# --- whole or not at all; bad input ---------------------------------------------------------------


def test_whole_or_not_at_all(tmp_path, draw_sweep, monkeypatch):
    swept(tmp_path / "runs")
    out = tmp_path / "report.html"
    out.write_text("the old one")

    def torn(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", torn)
    with pytest.raises(KeyboardInterrupt):
        report.write(tmp_path / "runs", out)
    assert out.read_text() == "the old one"
    assert {file.name for file in tmp_path.iterdir()} == {"runs", "report.html"}


@pytest.mark.parametrize(
    ("runs", "out", "said"),
    [
        ("absent", "report.html", "is no folder"),
        ("empty", "report.html", "neither a sweep nor a run"),
        ("file", "report.html", "is no folder"),
        ("runs", "absent/report.html", "folder that exists"),
        ("runs", "empty", "cannot be written"),
    ],
)
def test_bad_input_is_one_line(tmp_path, refused, runs, out, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    finished(tmp_path / "runs")
    assert said in refused(report.main, "--runs", tmp_path / runs, "--out", tmp_path / out)
    assert not (tmp_path / "report.html").exists()


def test_order_of_cells():
    order = [{"a": 2, "b": "x"}, {"a": 10.0, "b": "w"}, {"a": [1], "b": 3}, {"a": "x", "b": None}]
    assert sorted([order[i] for i in (2, 1, 3, 0)], key=outcomes._order) == order
