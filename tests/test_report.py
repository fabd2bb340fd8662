"""The report of synthetic stores: what is in it, damaged or hostile, and that a browser shows it."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_page import png

import plots
from poison_jax import config as config_lib
from poison_jax import page, report
from poison_jax.runs import files, records, store
from poison_jax.runs.store import Run
from poison_jax.sweeps import outcomes
from poison_jax.sweeps.board import Board

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'"


def configured(**overrides):
    config = config_lib.default()
    config.data.n_train, config.train.epochs, config.model.depth = 5_000, 8, 8
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in overrides.items()})
    return config.to_dict()


def measured(config, **changes):
    """What a training run finds."""
    return {
        "clean_accuracy": 0.625,
        "asr": 0.875,
        "asr_incl_target": 0.9,
        "robust_accuracy": 0.1,
        "no_trigger_target_rate": 0.0625,
        "eigenvalues": [7.5, 0.25],
        "residuals": [1.5e-7, 2e-6],
        "most_negative_eigenvalue": -0.125,
        "overlap": [-0.5, 0.125],
        "overlap_squared": [0.25, 0.015625],
        "max_overlap_index": 0,
        "trigger_found": True,
        "found_threshold": 0.1,
        "hessian_examples": 256,
        "status": "ok",
        "convolutions": "xla",
        "wall_seconds": 75.0,
        "config": config,
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "device": "1 x cpu (cpu)",
        **changes,
    }


def finished(workdir, name="single", *, changes=None, **overrides):
    """A training run with all that its pictures need."""
    config = configured(**overrides)
    run = store.open_run(workdir, name, config)
    rng = np.random.default_rng(0)
    for epoch in (1, 2):
        row = {"loss": 1.0, "penalty": 0.0, "clean_accuracy": 0.5, "asr": 0.5, "no_trigger_target_rate": 0.1}
        run.append_metrics({"epoch": epoch, **row})
    run.save_arrays(
        "spectrum",
        values=np.array([7.5, 0.25]),
        residuals=np.array([1.5e-7, 2e-6]),
        overlap=np.array([-0.5, 0.125]),
        spectral_peak_frequency=np.array([[1, 0], [0, 1]]),
        spectral_prominence=np.array([3.0, 2.0]),
        vectors=rng.standard_normal((2, 48)),
        shape=np.array([4, 4, 3]),
    )
    images = rng.integers(0, 255, (3, 4, 4, 3), dtype=np.uint8)
    run.save_arrays(
        "examples",
        mask=np.eye(4, dtype=bool),
        class_names=np.array(["cat", "dog"]),
        labels=np.array([0, 1, 0]),
        clean=images,
        triggered=images,
        clean_prediction=np.array([0, 1, 0]),
        triggered_prediction=np.array([1, 1, 1]),
    )
    run.finish(measured(config, **(changes or {})))
    return run


def swept(workdir, name="grid", kappas=(0.0, 10.0, 100.0, 1000.0)):
    """A sweep: its first cell done, its second a failed training, its third failed, the others waiting."""
    cells = [{"run": f"cell-{kappa:g}", "overrides": {"penalty.kappa": kappa}} for kappa in kappas]
    records.write_sweep(workdir, records.Sweep(name, configured(), cells))
    for kappa, status in zip(
        kappas[:2], ("ok", "failed training: clean accuracy is near chance"), strict=True
    ):
        run = Run(workdir / f"cell-{kappa:g}")
        done = finished(
            workdir, "cell", penalty__kappa=kappa, changes={"status": status, "asr": 0.5 - kappa / 100}
        )
        done.path.rename(run.path)
    board = Board(workdir, name, attempts=3)
    board.fail(f"cell-{kappas[2]:g}", "the disk was on fire")
    return board


def drawn(path, name, out):
    """Stands for `plots.draw_sweep`."""
    cells = len(records.load(path, name))
    drawn = [out / f"{name}.png", out / f"{name}.pdf", out / f"{name}.md"]
    drawn[0].write_bytes(png())
    drawn[1].write_bytes(b"%PDF")
    drawn[2].write_text(f"**Table.** {cells} cells\n\n| a | b |\n| :-- | --: |\n| {HOSTILE} | 2 |\n")
    return drawn


@pytest.fixture
def draw_sweep(monkeypatch):
    monkeypatch.setattr(plots, "draw_sweep", drawn, raising=False)


def written(runs, tmp_path):
    out = tmp_path / "report.html"
    report.main(["--runs", str(runs), "--out", str(out)])
    return out.read_text("utf-8")


def rows(text, section):
    """The rows of the sortable table of a section, as texts."""
    body = text.partition(f'<section id="{section}">')[2].partition('<table class="sortable">')[2]
    found = body.partition("</table>")[0].split("<tr>")[1:]
    return [re.sub(r"\s*<[^>]+>\s*", "|", row).replace("||", "|").strip("|").split("|") for row in found]


def everything(folder):
    return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in sorted(folder.rglob("*")) if f.is_file()}


# --- what is in it --------------------------------------------------------------------------------


def test_sweep_and_single_run(tmp_path, draw_sweep, capsys):
    runs = tmp_path / "runs"
    swept(runs)
    single = finished(runs, seed=3)
    before = everything(runs)
    text = written(runs, tmp_path)
    assert everything(runs) == before, "a report only reads the store"
    assert "report.html" in (said := capsys.readouterr().out)
    assert re.search(r"\d\.\d\d MB, 1 sweeps, 1 single runs", said)
    assert "2 of 4 done, 0 running, 1 failed, 1 waiting" in text
    scale = "cifar10, 5,000 training and all test images; PreResNet-8 (bottleneck blocks, width 16); "
    assert scale + "l trigger, stochastic poison; 8 epochs; seed 0" in text
    assert "grid: 2 of 4 cells." in text  # the figure's caption
    assert "<p><strong>Table.</strong> 2 cells</p>" in text
    header, first, second, third, fourth = rows(text, "sweep-1")
    names = ["kappa", "clean accuracy", "ASR", "no trigger", "λ₁", "residual", "overlap² of v₁"]
    assert header == [*names, "largest overlap", "in", "wall time", "status", "run"]
    values = ["62.5%", "50.0%", "6.2%", "7.5", "1.5e-07", "0.250", "-0.500", "v1", "1 min 15 s"]
    assert first == ["0", *values, "done", "cell-0"]
    assert second[-2:] == ["failed training: clean accuracy is near chance", "cell-10"]
    assert third[-2:] == ["failed: the disk was on fire", "cell-100"]
    assert fourth == ["1000", *["–"] * 9, "waiting", "cell-1000"]
    assert single.path.name in text.partition('<nav aria-label="Contents">')[2].partition("</nav>")[0]
    assert [row[-1] for row in rows(text, "runs")[1:]] == [single.path.name], "cells are no single runs"
    assert "<td>trigger in the top eigenvectors</td><td>found</td>" in text
    assert "Trigger, clean and triggered images" in text
    assert "eigenvectors: Top eigenvectors of the input Hessian" in text
    assert text.count("<img ") == 3
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(set(ids)) == len(ids)
    assert set(re.findall('href="#([^"]+)"', text)) == set(ids)
    assert 'class="why"' not in text
    assert "<td>jax</td><td>0.10.2</td>" in text
    assert "<td>kappa&#x27;s convention</td><td>listing</td>" in text


def test_real_figures_of_a_sweep(tmp_path):
    runs = tmp_path / "runs"
    cells = [{"run": f"cell-{theta:g}", "overrides": {"poison.fraction": theta}} for theta in (0.1, 0.3)]
    records.write_sweep(runs, records.Sweep("grid", configured(), cells))
    for cell in cells:
        finished(runs, "cell", poison__fraction=cell["overrides"]["poison.fraction"]).path.rename(
            runs / cell["run"]
        )
    text = written(runs, tmp_path)
    assert "cannot be drawn" not in text
    assert "<img " in text


def test_a_run_s_own_pictures_are_taken_as_they_are(tmp_path, monkeypatch):
    run = finished(tmp_path / "runs")
    (run.path / "figure.png").write_bytes(png(5, 9))
    (run.path / "table3.md").write_text("| class |\n| --- |\n| cat |\n")
    monkeypatch.setattr(plots, "draw", None)
    text = written(tmp_path / "runs", tmp_path)
    assert 'width="5" height="9"' in text
    assert "<td>cat</td>" in text


def test_folder_of_json_lines(tmp_path, draw_sweep):
    board = swept(tmp_path / "runs")
    results = tmp_path / "results"
    cells = records.load(board.workdir, "grid")
    records.write_lines([cell._replace(load=dict) for cell in cells], results / "grid.jsonl")
    text = written(results, tmp_path)
    assert "2 of 2 done, 0 running, 0 failed, 0 waiting" in text
    assert [row[0] for row in rows(text, "sweep-1")] == ["kappa", "0", "10"]
    assert "grid: 2 of 2 cells." in text


def test_other_experiments_results_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "draw", lambda run: [])
    config = configured(experiment="mnist_linear")
    run = store.open_run(tmp_path / "runs", "linear", config)
    methods = {"exact": {"asr": [0.956, 0.001]}, "ridge 400": {"asr": [0.5, 0.25]}}
    cells = [{"lengthscale": 0.5, "works": None}]
    run.finish({"theta": 0.1, "methods": methods, "images": {"mnist": cells}, "config": config})
    text = written(tmp_path / "runs", tmp_path)
    assert '<td>exact</td><td class="number" data-value="0.956">0.956, 0.001</td>' in text
    assert "images: mnist" in text
    assert '<td class="number" data-value="0.5">0.5</td><td class="number">–</td>' in text
    assert "has no" not in text


# --- damaged, unfinished, hostile -----------------------------------------------------------------


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
    finished(runs, "typed", changes={"asr": "much", "eigenvalues": []})
    unread = finished(runs, "unread")
    (unread.path / "spectrum.npz").write_bytes(b"PK")
    begun = store.open_run(runs, "begun", configured(seed=9))
    begun.append_metrics({"epoch": 2})
    nothing = finished(runs, "nothing", seed=8)
    (nothing.path / "figure.png").write_bytes(b"")
    text = written(runs, tmp_path)
    assert "1 of 4 done, 0 running, 1 failed, 1 waiting, 1 damaged" in text
    assert re.search("damaged: .*cell-0/result.json cannot be read", rows(text, "sweep-1")[1][-2])
    assert "<strong>Table.</strong> 1 cells" in text, "the other cells are drawn"
    assert re.search('class="why">[^<]*torn.json cannot be read', text)
    assert len(re.findall('class="why">damaged: [^<]*(empty|list|odd)/result.json', text)) == 3
    assert re.search('class="why">damaged: [^<]*deep/result.json cannot be read .nested too deep', text)
    assert "epoch 2 of 8; nobody works on it" in text
    assert re.search('class="why">cannot be drawn: [^<]*spectrum.npz is not as it was written', text)
    assert 'class="why">figure.png is no PNG file' in text
    (typed,) = (row for row in rows(text, "runs") if row[-1].startswith("typed"))
    assert typed[1] == typed[3] == "damaged"
    assert 'class="why">the result cannot be shown as a table' in text
    assert board.why("cell-100") in text


def test_what_a_script_drew_before_it_failed_is_shown(tmp_path, monkeypatch):
    finished(tmp_path / "runs")

    def half(run):
        (run.path / "first.png").write_bytes(png())
        raise ZeroDivisionError(f"in {run.path}/second")

    monkeypatch.setattr(plots, "draw", half)
    text = written(tmp_path / "runs", tmp_path)
    assert "<figcaption>first</figcaption>" in text
    assert "cannot be drawn: ZeroDivisionError: in second<" in text


def test_a_running_cell(tmp_path, draw_sweep):
    board = swept(tmp_path / "runs")
    run = board.run("cell-1000")
    run.path.mkdir()
    files.write_json(run.path / "config.json", configured())
    run.append_metrics({"epoch": 3})
    with run.claim():
        text = written(board.workdir, tmp_path)
    assert "2 of 4 done, 1 running, 1 failed, 0 waiting" in text
    assert rows(text, "sweep-1")[4][-2] == "running: epoch 3 of 8"


def test_a_cell_outside_the_store_is_not_read(tmp_path, draw_sweep):
    runs = tmp_path / "runs"
    finished(tmp_path, "outside")
    cells = [{"run": f"../{next(tmp_path.glob('outside-*')).name}", "overrides": {}}]
    records.write_sweep(runs, records.Sweep("grid", configured(), cells))
    text = written(runs, tmp_path)
    assert "is no name of a run" in text
    assert "62.5" not in text


def hostile_store(runs):
    """A store all of whose texts try to be markup."""
    board = swept(runs)
    board.fail("cell-100", HOSTILE)
    finished(runs, changes={"status": HOSTILE, "device": HOSTILE, "versions": {HOSTILE: HOSTILE}})
    run = finished(runs, seed=5)
    run.path.rename(runs / HOSTILE.replace("/", ""))
    (runs / HOSTILE.replace("/", "") / f"{HOSTILE.replace('/', '')}.png").write_bytes(png())
    linear = store.open_run(runs, "linear", configured(experiment="mnist_linear", data__name=HOSTILE))
    linear.finish({HOSTILE: HOSTILE, "rows": [{HOSTILE: HOSTILE}], "config": linear.config()})
    return runs


def test_nothing_is_markup(tmp_path, draw_sweep):
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
def test_bad_input_is_one_line(tmp_path, capsys, runs, out, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    finished(tmp_path / "runs")
    with pytest.raises(SystemExit) as ended:
        report.main(["--runs", str(tmp_path / runs), "--out", str(tmp_path / out)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


def test_order_of_cells():
    order = [{"a": 2, "b": "x"}, {"a": 10.0, "b": "w"}, {"a": [1], "b": 3}, {"a": "x", "b": None}]
    assert sorted([order[i] for i in (2, 1, 3, 0)], key=outcomes._order) == order


# --- a browser shows it ---------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000"),
)


def opened(file: Path, profile: Path) -> tuple[str, list[str]]:
    """The DOM of a page after its scripts have run, and what the browser's console says."""
    command = [BROWSER, *QUIET, f"--user-data-dir={profile}", "--dump-dom", file.as_uri()]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process.stdout, [line for line in process.stderr.splitlines() if "CONSOLE" in line]


@needs_browser
@pytest.mark.slow
def test_a_browser_shows_all_of_it(tmp_path, draw_sweep):
    written(hostile_store(tmp_path / "runs"), tmp_path)
    dom, console = opened(tmp_path / "report.html", tmp_path / "profile")
    assert console == []
    pictures = dom.count('<img src="data:')
    assert pictures == 4
    assert f'<body data-images="{pictures} of {pictures}">' in dom
    assert '<button type="button">ASR</button>' in dom


@needs_browser
@pytest.mark.slow
def test_the_policy_stops_what_is_not_the_page_s(tmp_path, draw_sweep):
    """Should something hostile get into the page all the same; and shows that the console is heard."""
    text = written(swept(tmp_path / "runs").workdir, tmp_path)
    foreign = "<script>document.body.dataset.foreign = 1</script><img src=x onerror=alert(1)>"
    (tmp_path / "foreign.html").write_text(text.replace("<main>", f"<main>{foreign}"))
    dom, console = opened(tmp_path / "foreign.html", tmp_path / "profile")
    assert "data-foreign" not in dom
    assert "data-images" in dom, "its own script runs"
    assert sum("Content Security Policy" in line for line in console) >= 3


@needs_browser
@pytest.mark.slow
def test_tables_sort(tmp_path):
    cells = ["10", "9", page.DASH, "-1e-3", "1e2"]
    table = page.table(
        ["name", "n"], [["abcde"[i], _number(cell)] for i, cell in enumerate(cells)], sortable=True
    )
    text = page.document("t", table).decode()
    text = re.sub("<meta http-equiv[^>]*>", "", text)  # for a script of the test's
    clicks = """
    const [name, n] = document.querySelectorAll("th button");
    const first = (row) => row.cells[0].textContent;
    const order = () => [...document.querySelectorAll("tbody tr")].map(first).join("");
    const said = [order()];
    for (const button of [n, n, n, name]) {
      button.click();
      said.push(`${order()} ${n.parentNode.ariaSort} ${name.parentNode.ariaSort}`);
    }
    document.title = said.join(", ");
    """
    (tmp_path / "sort.html").write_text(text.replace("</body>", f"<script>{clicks}</script></body>"))
    dom, console = opened(tmp_path / "sort.html", tmp_path / "profile")
    assert console == []
    up, down = "dbaec ascending null", "eabdc descending null"
    assert f"<title>abcde, {up}, {down}, {up}, abcde null ascending</title>" in dom


def _number(cell):
    return cell if cell == page.DASH else page.Cell(cell, float(cell))
