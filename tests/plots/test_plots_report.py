"""The report of stores: what is in it."""

import re

import pytest
import small_sweeps as sweeps
from report_stores import begun, configured, everything, finished, png, rows, swept, written
from small_stores import write_lines

from poison_jax.runs import records


def test_a_sweep_and_a_single_run(tmp_path, draw_sweep, capsys):
    runs = tmp_path / "runs"
    swept(runs)
    single = finished(runs, seed=3)
    before = everything(runs)
    text = written(runs, tmp_path)
    assert everything(runs) == before, "a report only reads the store"
    assert "report.html" in (said := capsys.readouterr().out)
    assert re.search(r"\d\.\d\d MB, 1 sweeps, 1 single runs", said)
    assert "2 of 4 done, 1 failed, 1 waiting" in text
    assert "<figcaption>Sweep grid, grid</figcaption>" in text  # of a picture that has no caption
    assert "<p><strong>Table.</strong> 2 cells</p>" in text
    header, first, second, third, fourth = rows(text, "sweep-1")
    names = ["κ", "ASR − no trigger", "ASR", "no trigger", "clean accuracy"]
    names += ["λ₁", "residual", "overlap² of v₁"]
    assert header == [*names, "largest overlap", "in", "time", "status", "run"]
    values = ["+43.8%", "50.0%", "6.2%", "62.5%", "7.5", "1.5e-07", "0.250", "-0.500", "v1 of 2"]
    assert first == ["0", *values, "1 min 15 s", "done", "cell-0"]
    assert second[0] == "10"
    assert second[-2:] == ["failed training: clean accuracy is near chance", "cell-10"]
    assert third[-2:] == ["failed: the disk was on fire", "cell-100"]
    assert fourth == ["1000", *["–"] * 10, "waiting", "cell-1000"]
    assert single.path.name in text.partition('<nav aria-label="Contents">')[2].partition("</nav>")[0]
    assert [row[-1] for row in rows(text, "runs")[1:]] == [single.path.name], "cells are no single runs"
    assert "<td>trigger in the top eigenvectors</td><td>found</td>" in text
    captions = re.findall("<figcaption>([^<]*)</figcaption>", text)
    assert any(said.startswith("Top 2 eigenvectors v of the input Hessian, each on a") for said in captions)
    assert text.count("<img ") == 3
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(set(ids)) == len(ids)
    assert set(re.findall('href="#([^"]+)"', text)) == set(ids)
    assert 'class="why"' not in text
    sweep, *alts = re.findall('<img [^>]*alt="([^"]*)"', text)
    assert sweep == (
        "Sweep grid, grid. 2 of 4 cells finished. ASR above the rate without trigger +43.8%; "
        "clean accuracy 62.5%; overlap² of v₁ with the trigger 0.250. "
        "Trigger found in the top eigenvectors of 1 of 1. "
        "Left out, since they say nothing about the attack: 1 failed training."
    )
    found = "trigger found in the top 2 eigenvectors of the input Hessian (largest overlap -0.500, v1)"
    for alt in alts:
        assert "ASR 81.2 percentage points above the rate without the trigger" in alt
        assert found in alt
    assert "<td>jax</td><td>0.10.2</td>" in text
    assert "<td>kappa&#x27;s convention</td><td>listing</td>" in text


def test_a_single_run_alone_shows_kappa_and_theta(tmp_path, no_pictures):
    finished(tmp_path / "runs", penalty__kappa=10.0)
    header, row = rows(written(tmp_path / "runs", tmp_path), "runs")
    assert header[:3] == ["κ", "θ", "ASR − no trigger"]
    assert row[:3] == ["10", "0.01", "+81.2%"]


def test_single_runs_show_what_differs_between_them(tmp_path, no_pictures):
    """A column each; a name that two keys have in full."""
    runs = tmp_path / "runs"
    finished(runs, penalty__kappa=10.0, data__dir="/elsewhere")
    finished(runs, poison__trigger="square", spectrum__batch_size=3, train__batch_size=64)
    header, *found = rows(written(runs, tmp_path), "runs")
    assert header[:6] == ["κ", "θ", "trigger", "spectrum.batch_size", "train.batch_size", "ASR − no trigger"]
    assert sorted(row[:5] for row in found) == [
        ["0", "0.01", "square", "3", "64"],
        ["10", "0.01", "l", "128", "128"],
    ]


def test_the_overview_comes_before_the_details(tmp_path, draw_sweep):
    """Of each sweep what is done, where training ended, how the attacks went, what failed and why."""
    runs = tmp_path / "runs"
    swept(runs)
    finished(runs, seed=3, changes={"regime": "terminal"})
    text = written(runs, tmp_path)
    overview = text.partition('<section id="overview">')[2].partition('<section id="sweep-1">')[0]
    cells = re.findall("<td[^>]*>(.*?)</td>", overview)
    assert cells[:8] == [
        '<a href="#sweep-1">Sweep grid</a>', "2 of 4", "–", "+43.8%", "62.5%", "0.250", "1 of 1", "2",
    ]  # fmt: skip
    assert cells[8:11] == ['<a href="#runs">Single runs</a>', "1 of 1", "1 of 1"]
    assert cells[16:] == [
        "Sweep grid", "cell-10", "failed training: clean accuracy is near chance",
        "Sweep grid", "cell-100", "the disk was on fire",
    ]  # fmt: skip
    assert text.index('id="runs"') < text.index('id="environment"')
    assert "The paper&#x27;s claims" not in text, "there is none of the paper's sweeps"


def test_the_claims_stand_in_the_overview(tmp_path, no_pictures):
    lines = sweeps.grid((0.1, 0.2), (0.0, 9.0), range(3), lambda t, k, s: t + 0.1 * s, lambda *_: 0.5)
    text = written(sweeps.write(tmp_path / "results", "fig06-digits", lines), tmp_path)
    overview = text.partition('<section id="overview">')[2].partition('<section id="sweep-1">')[0]
    assert "<td>ASR rises with θ</td>" in overview
    assert "seen: +10.0" in overview
    assert "No run failed or collapsed." in overview


def test_single_runs_of_several_experiments_are_a_table_each(tmp_path, no_pictures):
    finished(tmp_path / "runs")
    run = begun(tmp_path / "runs", "theory", experiment="krr_theory")
    run.finish(
        {"statements": 3, "exact": 1, "approximate": 0, "misprint": 1, "fails": 1, "config": run.config()}
    )
    text = written(tmp_path / "runs", tmp_path)
    section = text.partition('<section id="runs">')[2].partition('<section id="run-1">')[0]
    assert re.findall("<h4>(.*)</h4>", section) == ["train", "krr_theory"]
    assert section.count('<table class="sortable">') == 2
    assert "3 statements checked: 1 exact, 0 approximate, 1 misprint, 1 fails" in text


def test_a_collapse_is_named_and_is_no_success(tmp_path, no_pictures, draw_sweep):
    runs = tmp_path / "runs"
    board = swept(runs, kappas=(0.0, 10.0, 100.0))
    finished(runs, changes={"asr": 0.84, "no_trigger_target_rate": 0.74})
    (runs / "cell-0").rename(runs / "kept")
    run = finished(runs, "cell", penalty__kappa=0.0, changes={"asr": 0.9, "no_trigger_target_rate": 0.75})
    run.path.rename(board.run("cell-0").path)
    text = written(runs, tmp_path)
    said = "collapsed: 74.0% of the images get the target without the trigger too"
    assert f'<p class="why">{said}; ASR 10.0 percentage points above the rate without the trigger' in text
    contents = text.partition("</nav>")[0]
    assert "<small>collapsed, ASR − no trigger +10.0%</small>" in contents
    assert rows(text, "sweep-1")[1][-2].startswith("collapsed: 75.0%")
    assert "they say nothing about the attack: 1 collapsed, 1 failed training." in text
    assert "<p>2 of 3 cells finished. Left out" in text, "no range of such cells' rates"


@pytest.mark.parametrize("name", ["a[test].npz", "x[/y].npz", "a:dog:[red]", "*b* $c$ _d_"])
def test_names_are_literal_text(tmp_path, no_pictures, name, capsys):
    finished(tmp_path / "runs[x]", data__name=name)
    text = written(tmp_path / "runs[x]", tmp_path)
    assert f"{name}, 5,000 training images" in text
    assert "<title>poison_jax: runs[x]</title>" in text


def test_real_figures_of_a_sweep(tmp_path):
    runs = tmp_path / "runs"
    cells = [{"run": f"cell-{theta:g}", "overrides": {"poison.fraction": theta}} for theta in (0.1, 0.3)]
    records.write_sweep(runs, records.Sweep("grid", configured(), cells))
    for cell in cells:
        done = finished(runs, "cell", poison__fraction=cell["overrides"]["poison.fraction"])
        done.path.rename(runs / cell["run"])
    text = written(runs, tmp_path)
    assert "cannot be drawn" not in text
    assert "<img " in text


def test_a_run_s_own_pictures_and_tables_are_taken_as_they_are(tmp_path, monkeypatch):
    run = finished(tmp_path / "runs")
    (run.path / "figure.png").write_bytes(png(5, 9))
    (run.path / "table3.md").write_text("σ\\*\n\n| class |\n| --- |\n| cat |\n")
    monkeypatch.setattr("plots.figures.of_run", None)
    text = written(tmp_path / "runs", tmp_path)
    assert 'width="5" height="9"' in text
    assert "<td>cat</td>" in text
    assert "<p>σ*</p>" in text


def test_folder_of_json_lines(tmp_path, draw_sweep):
    board = swept(tmp_path / "runs")
    results = tmp_path / "results"
    cells = records.load(board.workdir, "grid")
    write_lines([cell._replace(load=dict) for cell in cells], results / "grid.jsonl")
    text = written(results, tmp_path)
    assert "2 of 2 done" in text
    assert [row[0] for row in rows(text, "sweep-1")] == ["κ", "0", "10"]


def test_other_experiments_results_as_they_come(tmp_path, no_pictures):
    run = begun(tmp_path / "runs", "linear", experiment="mnist_linear")
    methods = {"exact": {"asr": [0.956, 0.001]}, "ridge 400": {"asr": [0.5, 0.25]}}
    for rates in methods.values():
        rates["no_trigger_target_rate"] = [0.25, 0.01]
    cells = [{"lengthscale": 0.5, "works": None}]
    run.finish({"theta": 0.1, "methods": methods, "images": {"mnist": cells}, "config": run.config()})
    text = written(tmp_path / "runs", tmp_path)
    assert '<td>exact</td><td class="number" data-value="0.956">0.956, 0.001</td>' in text
    assert "ASR above the rate without trigger at θ = 0.1: exact +70.6%, ridge 400 +25.0%" in text
    assert "images: mnist" in text
    assert '<td class="number" data-value="0.5">0.5</td><td class="number">–</td>' in text
    assert "has no" not in text


def test_a_cell_shows_what_others_override(tmp_path, draw_sweep):
    """Its own value, not a dash."""
    lines = [sweeps.record(penalty__kappa=1.0), sweeps.record(train__epochs=7)]
    header, *found = rows(written(sweeps.write(tmp_path / "results", "mine", lines), tmp_path), "sweep-1")
    assert header[:2] == ["κ", "epochs"]
    assert sorted(row[:2] for row in found) == [["0", "7"], ["1", "90"]]


def test_a_long_table_is_folded(tmp_path, draw_sweep):
    lines = [sweeps.record(seed=seed) for seed in range(31)]
    text = written(sweeps.write(tmp_path / "results", "mine", lines), tmp_path)
    assert "<details><summary>31 runs</summary>" in text
    assert len(rows(text, "sweep-1")) == 32
