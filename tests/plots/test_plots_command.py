"""`python -m plots`, `plots.show`, and what figures are whatever the user's matplotlib settings are."""

import doctest
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import small_sweeps as sweeps
from matplotlib.figure import Figure
from matplotlib.text import Text

import plots
from plots import __main__ as command
from plots import canvas, figures, panels, tables
from poison_jax.errors import UserError
from poison_jax.runs import store

ROOT = Path(__file__).parents[2]
ODD_NAMES = ["a$b$", "$x_{", "$\\frac{", "<b>&amp;", "100%", "_", "*b*", "猫", "", "a\nb", "$"]


@pytest.mark.parametrize("module", [canvas, tables])
def test_examples(module):
    assert doctest.testmod(module).failed == 0 < doctest.testmod(module).attempted


# --- the command ----------------------------------------------------------------------------------


def test_help_lists_every_figure(capsys):
    with pytest.raises(SystemExit) as left:
        command.main(["--help"])
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for name, entry in {**figures.RUNS, **figures.SWEEPS}.items():
        assert f" {name} {entry.title}" in said
    with pytest.raises(SystemExit):
        command.main(["fig06", "--help"])
    assert "the first that DIR holds of fig06, fig06-small, fig06-short" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_sweep_s_figure(tmp_path, capsys):
    """Prints the files' paths, then what tables say."""
    sweeps.write(tmp_path, "table1", [sweeps.record(poison__fraction=0.1)])
    command.main(["table1", "--runs", str(tmp_path), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == str(tmp_path / "out" / "table1.md")
    assert (tmp_path / "out" / "table1.md").read_text() in printed


def test_which_sweep_is_drawn(tmp_path, monkeypatch):
    """The paper's scale where it is, else the small grid; or the one that is named."""
    drawn = []
    monkeypatch.setattr(canvas, "render", lambda figure, *_: drawn.append(figure) or b"")
    for name, theta in (("fig07-small", 0.1), ("mine", 0.2), ("fig07", 0.3)):
        sweeps.write(tmp_path, name, [sweeps.record(poison__fraction=theta)])
        command.main(["fig07", "--runs", str(tmp_path), "--out", str(tmp_path / name)])
    command.main(["fig07", "--runs", str(tmp_path), "--out", str(tmp_path / "named"), "--sweep", "mine"])
    assert (tmp_path / "named" / "fig07.png").exists()
    axes = [sweeps.panel(figure, "attack success rate (%)") for figure in drawn[::3]]  # PNG, SVG, PDF
    found = [sweeps.line(axis, "κ = 0").get_xdata()[0] for axis in axes]
    np.testing.assert_allclose(found, [100, 100, 300, 200])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fig06"], "no cell of sweep fig06 is finished"),
        (["fig07"], "{} holds no sweep 'fig07' (it holds fig06): name the folder of its runs or results"),
        (["table1", "--sweep", "mine"], "{} holds no sweep 'mine' (it holds fig06)"),
    ],
)
def test_a_sweep_that_is_not_there_is_one_line(arguments, said, tmp_path, refused):
    sweeps.write(tmp_path, "fig06", [])
    line = refused(command.main, *arguments, "--runs", tmp_path, "--out", tmp_path / "out")
    assert line.startswith("error: " + said.format(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A figure of a run, `toy`, and of several; and a function that writes a run."""

    def one(run):
        figure = Figure()
        canvas.describe(figure, f"|Made| of {run.result()['asr']}", "")
        return {"toy": figure, "table": f"asr {run.result()['asr']}\n"}

    entry = figures.OfRun("A toy", one, "spectrum", lambda runs: Figure())
    monkeypatch.setitem(figures.RUNS, "toy", entry)

    def write(seed, result):
        run = store.open_run(tmp_path / "runs", "run", {"seed": seed}, {"seed": seed})
        run.save_arrays("spectrum", values=np.zeros(1))
        if result is not None:
            run.finish(result)
        return run.path

    return write


def test_runs(toy, tmp_path, capsys):
    """Into each run's directory or a folder, and all together where there is such a figure."""
    first, second = toy(0, {"asr": 0.25}), toy(1, {"asr": 0.5})
    command.main(["toy", str(first)])
    printed = capsys.readouterr().out.split("\n\n")
    assert printed[0].split() == [f"{first}/toy.png", f"{first}/table.md"]
    assert printed[1] == "toy.png: |Made| of 0.25."
    assert (first / "toy.svg").exists()
    out = tmp_path / "out"
    command.main(["toy", "--runs", str(first), str(second), "--out", str(out)])
    assert sorted(file.relative_to(out).as_posix() for file in out.rglob("*.*")) == sorted(
        [
            *(f"{run.name}/{name}" for run in (first, second) for name in ("toy.png", "toy.svg", "table.md")),
            *("toy_runs.png", "toy_runs.svg"),
        ]
    )
    command.main(["toy", "--runs", str(first.parent), "--out", str(out / "file.png")])  # a store
    assert str(out / "file.png") in capsys.readouterr().out.split()


def test_runs_that_cannot_be_drawn_are_one_line(toy, tmp_path, refused):
    unfinished, odd = toy(0, None), toy(1, {"colour": 1})
    assert "holds no finished run" in refused(command.main, "toy", unfinished)
    assert "holds no finished run" in refused(command.main, "toy", tmp_path / "nowhere")
    assert "holds no run" in refused(command.main, "features", tmp_path / "nowhere")
    assert "KeyError: 'asr'" in (said := refused(command.main, "toy", odd))
    assert str(odd) in said
    assert "name a folder" in refused(command.main, "toy", toy(2, {"asr": 1}), "--out", tmp_path / "x.png")
    assert "no run is named" in refused(command.main, "toy")
    with pytest.raises(UserError, match="no finished run"):
        plots.draw(store.Run(unfinished))


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), command.one_line():
        _ = 1 / 0
    with pytest.raises(SystemExit), command.one_line():
        raise UserError("no")


def test_a_figure_is_whole_or_as_it_was(tmp_path, monkeypatch):
    """And the same records are the same bytes."""
    runs, out, before = sweeps.write(tmp_path / "runs", "fig07", [sweeps.record()]), tmp_path / "out", []
    for _ in range(2):
        plots.draw_sweep(runs, "fig07", out)
        made = sorted(out.iterdir())
        before.append([file.read_bytes() for file in made])
    assert [file.suffix for file in made] == [".pdf", ".png", ".svg"]
    assert before[0] == before[1]

    def cut_off(self, stream, **options):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", cut_off)
    with pytest.raises(OSError, match="No space"):
        plots.draw_sweep(runs, "fig07", out)
    assert [file.read_bytes() for file in made] == before[0]
    assert sorted(out.iterdir()) == made


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_file_holds_its_caption(suffix):
    """Whatever is in it; the words are sentences."""
    with canvas.settings():
        figure = canvas.blank(1, 1)
    canvas.describe(figure, "θ = 0.1, <b>&$", "", "5 % of them.", "digits, all", "the rest")
    said = "θ = 0.1, <b>&$. 5 % of them. digits, all. The rest."
    assert canvas.caption(figure) == said
    content = canvas.render(figure, suffix)
    if suffix == "png":
        assert canvas.caption(content) == said
    elif suffix == "svg":
        assert "θ = 0.1, &lt;b&gt;&amp;$. 5 % of them. digits" in content.decode()
    else:
        assert b"/Subject" in content


# --- the user's settings, and names of the user's -------------------------------------------------


def test_a_figure_is_the_same_whatever_the_user_has_set(tmp_path):
    """TeX, fonts, colours, sizes and a backend that does not exist."""
    (tmp_path / "matplotlibrc").write_text(
        "backend: nonsense\ntext.usetex: True\nfont.size: 40\naxes.facecolor: red\nsavefig.dpi: 7\n"
        "figure.constrained_layout.use: False\ntext.parse_math: True\nsavefig.format: svg\n"
    )
    sweeps.write(tmp_path, "fig07", [sweeps.record(poison__fraction=0.1)])
    usual, out = plots.draw_sweep(tmp_path, "fig07", tmp_path / "usual")[0], tmp_path / "out"
    arguments = [sys.executable, "-m", "plots", "fig07", "--runs", str(tmp_path), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "fig07.png").read_bytes() == usual.read_bytes()


def test_importing_and_drawing_change_no_backend():
    code = (
        "import plots, sys; assert 'matplotlib' not in sys.modules; import matplotlib, plots.figures; "
        "assert 'matplotlib.pyplot' not in sys.modules; "
        "assert matplotlib.rcParams._get_backend_or_none() == 'svg'"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "svg"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    before = dict(matplotlib.rcParams)
    with canvas.settings():
        canvas.render(canvas.blank(1, 1))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_is_drawn_as_it_is(name):
    """Without a warning: these are errors here."""
    with canvas.settings():
        figure, ((axis,),) = canvas.subplots(1, 1, 3, 3)
        axis.set_title(name)
        axis.plot([1, 1e6], [1, 1], label=f"class {name}")
        axis.set(xscale="log")
        axis.legend()
    assert canvas.render(figure).startswith(b"\x89PNG")
    texts = figure.findobj(Text)
    assert not any(text.get_parse_math() for text in texts)
    assert {text.get_text() for text in axis.get_xticklabels()} >= {"1", "10⁴", "10⁶"}


def test_figures_of_a_sweep_of_odd_names():
    """A trigger, a data set and a class that look like formulas or markup."""
    odd = [
        sweeps.record(poison__trigger=trigger, data__name="a$_{$.npz", poison__fraction=theta, features=True)
        for trigger in ("my$_{$:fn", "*x*")
        for theta in (0.0, 0.1)
    ]
    figure, report = sweeps.draw("sweep", odd)
    canvas.render(figure)
    assert sweeps.line(sweeps.panel(figure, "attack success rate (%)"), "trigger my$_{$:fn")
    assert "a$_{$.npz, 10,000 training images" in canvas.caption(figure)
    assert r"trigger \*x\*" in report
    assert r"a\$\_{\$.npz" in sweeps.draw("table1", odd)[0]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_images_of_any_number_of_channels(channels):
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, channels), dtype=np.uint8)
    figure, ((axis,),) = canvas.subplots(1, 1, 2, 2)
    panels.image(axis, picture)
    (drawn,) = axis.images
    np.testing.assert_allclose(drawn.get_array(), picture if channels == 3 else picture.mean(-1))
    assert canvas.render(figure)


# --- notebooks ------------------------------------------------------------------------------------


def test_show_draws_inline_and_writes_nothing(toy, monkeypatch):
    run = store.Run(toy(0, {"asr": 0.25}))
    monkeypatch.setattr(figures, "RUNS", {"toy": figures.RUNS["toy"]})
    before, shown = sorted(run.path.iterdir()), []
    display = types.SimpleNamespace(Image=lambda data: data, Markdown=lambda text: text, display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=display, version_info=(9, 0)))
    plots.show(run)
    assert shown[0].startswith(b"\x89PNG")
    assert shown[1:] == ["|Made| of 0.25.", "asr 0.25\n"]
    plots.show(run, "table")
    assert len(shown) == 4
    with pytest.raises(UserError, match="there is no colour: there is toy, table"):
        plots.show(run, "colour")
    shown.clear()
    monkeypatch.setitem(figures.RUNS, "run", figures.RUNS["toy"])
    plots.show([run, run])  # side by side
    assert list(map(type, shown)) == [bytes, str]
    assert sorted(run.path.iterdir()) == before
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(UserError, match="in a notebook only"):
        plots.show(run)


def test_a_run_shows_the_pictures_that_lie_in_its_directory(toy, tmp_path):
    run = store.Run(toy(0, {"asr": 0.25}))
    assert "plots.draw(run) makes them" in run._repr_html_()
    canvas.save([("a<b>", Figure())], run.path, ".png")
    (run.path / ".hidden.png").write_bytes(b"")
    (run.path / "link.png").symlink_to(run.path / "a<b>.png")
    (run.path / "folder.png").mkdir()
    shown = run._repr_html_()
    assert shown.count("<img ") == 1
    assert "a&lt;b&gt;.png" in shown
    assert "a<b>" not in shown
    assert 'src="data:image/png;base64,iVBOR' in shown
    assert str(run.path) in shown
    canvas.save([("figure", Figure())], run.path, ".png")
    assert re.findall("<figcaption>(.*?)<", run._repr_html_()) == ["figure.png", "a&lt;b&gt;.png"]
    assert repr(run) == f"Run('{run.path}', done)"
