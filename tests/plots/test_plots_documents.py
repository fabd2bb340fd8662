"""The README's and docs' tables and pictures are of the records in `results/`."""

import re
import shutil
from pathlib import Path

import pytest
import small_sweeps as sweeps

from plots import canvas, documents, figures, tables
from poison_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def test_the_documents_are_of_the_records():
    """If this fails: `python -m plots documents --store runs`; see the README on how its record is made."""
    assert documents.problems(ROOT, ROOT / "results") == []


def test_every_picture_is_shown_somewhere():
    files = [ROOT / "README.md", ROOT / "benchmarks/README.md", *(ROOT / "docs").glob("*.md")]
    shown = {name for file in files for name in re.findall(r"\(\S*?(images/\w+\.png)\)", file.read_text())}
    assert shown == {str(path.relative_to(ROOT / "docs")) for path in documents.pictures(ROOT)}


@pytest.mark.parametrize("entry", documents.pictures(ROOT).values(), ids=str)
def test_how_a_picture_is_made_is_said(entry):
    if "sweep" in entry:
        assert entry["figure"] in (figures.RUNS if "cell" in entry else figures.SWEEPS)
        return
    for command in entry["commands"]:
        config = re.search(r"--config=(\S+?\.py)", command)
        assert config is None or (ROOT / config[1]).exists()
        figure = re.match(r"python -m plots (\w+)", command)
        assert figure is None or figure[1] in figures.RUNS


@pytest.fixture
def project(tmp_path):
    """A project of a README, a picture and two records."""
    some = [sweeps.record(poison__fraction=0.1, penalty__kappa=k, asr=0.9 - k / 500) for k in (0.0, 100.0)]
    sweeps.write(tmp_path / "results", "mine", some)
    (tmp_path / "docs/images").mkdir(parents=True)
    (tmp_path / "docs/figures.toml").write_text('["images/a.png"]\nfigure = "fig11"\nsweep = "mine"\n')
    names = "arms mine", "seeds mine", "table1 mine"
    (tmp_path / "README.md").write_text("\n".join(f"<!-- plots: {n} -->\nold\n<!-- end -->" for n in names))
    return tmp_path


def test_documents_are_written_and_compared(project):
    written = documents.update(project, project / "results")
    assert written == [project / "docs/images/a.png", project / "README.md"]
    assert documents.problems(project, project / "results") == []
    text = (project / "README.md").read_text()
    assert "old" not in text
    assert "| ASR above the target rate without trigger, points | +88.0 | +68.0 |" in text
    assert "| 0 | 88.0 | 90.0 % | 80.0 % | 3.000 | 0.09 |" in text
    assert "| 90 | 100 | 80.00 | – | 70.00 |" in text
    assert documents.update(project, project / "results") == [written[0]]  # nothing to write in the text


def test_pictures_of_runs_that_are_not_there_are_left_as_they_are(project):
    listed = project / "docs/figures.toml"
    listed.write_text(f'{listed.read_text()}cell = {{ "penalty.kappa" = 0.0 }}\n')
    (project / "runs").mkdir()
    assert documents.update(project, project / "results", project / "runs") == [project / "README.md"]
    with pytest.raises(UserError, match="nowhere is no folder"):
        documents.update(project, project / "results", project / "nowhere")


def test_a_picture_s_caption_stands_below_it(project):
    """It takes the place of an older one, and is compared."""
    page, shown = project / "docs/page.md", "![Figure](images/a.png)\n"
    page.write_text(f"before\n\n{shown}{shown}\n*An older one.*\n\nafter\n")
    documents.update(project, project / "results")
    caption = canvas.caption((project / "docs/images/a.png").read_bytes())
    assert caption.startswith("Figure 11. Clean accuracy")
    captioned = f"{shown}\n*{tables.markdown(caption, cell=False)}*\n\n"
    assert page.read_text() == f"before\n\n{captioned}{captioned}after\n"
    assert documents.problems(project, project / "results") == []
    page.write_text(page.read_text().replace("means", "medians").replace("One seed", "Two seeds"))
    assert documents.problems(project, project / "results") == [
        f"{page}: a table or caption is not of its records"
    ]


def test_a_picture_or_a_table_of_other_records_is_noticed(project):
    documents.update(project, project / "results")
    sweeps.write(project / "results", "mine", [sweeps.record(poison__fraction=0.1, asr=0.8)])
    found = documents.problems(project, project / "results")
    assert found == [
        f"{project}/README.md: a table or caption is not of its records",
        f"{project}/docs/images/a.png is not of the records of mine",
    ]
    shutil.copy(ROOT / "docs/images/scale.png", project / "docs/images/b.png")
    (project / "docs/images/a.png").unlink()
    found = documents.problems(project, project / "results")
    assert found[1:] == [
        f"{project}/docs/images/a.png is listed, and not there",
        f"{project}/docs/images/b.png is not listed",
    ]
    (project / "README.md").write_text("<!-- plots: colour mine -->\n<!-- end -->")
    with pytest.raises(UserError, match="no table 'colour'"):
        documents.problems(project, project / "results")
