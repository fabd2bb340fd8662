"""The report in a browser: all of it is shown, and nothing else runs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_stores import finished, hostile_store, swept, written

from plots.report import page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000"),
)


def opened(file: Path, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """The DOM of a page after its scripts have run, and what the browser's console says."""
    command = [BROWSER, *QUIET, *flags, f"--user-data-dir={profile}", "--dump-dom", file.as_uri()]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process.stdout, [line for line in process.stderr.splitlines() if "CONSOLE" in line]


@needs_browser
@pytest.mark.slow
def test_a_browser_shows_all_of_it(tmp_path, draw_sweep):
    written(hostile_store(tmp_path / "runs"), tmp_path)
    dom, console = opened(tmp_path / "report.html", tmp_path / "profile")
    assert console == []
    pictures = dom.count(' src="data:image/png')
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
@pytest.mark.parametrize(("width", "scrolls"), [(500, True), (1400, False)])
def test_two_widths(tmp_path, width, scrolls):
    """The page is no wider than the window; what is scrolls, by keyboard too, and pictures stay legible."""
    finished(tmp_path / "runs")
    text = re.sub(
        "<meta http-equiv[^>]*>", "", written(tmp_path / "runs", tmp_path)
    )  # for a script of the test's
    says = """
    addEventListener("load", () => {
      const wide = document.documentElement.scrollWidth > innerWidth;
      const image = document.querySelector("img.broad");
      const box = image.parentNode.getAttribute("role");
      document.title = `${innerWidth} ${wide} ${box} ${image.offsetWidth >= 544}`;
    });
    """
    (tmp_path / "page.html").write_text(text.replace("</body>", f"<script>{says}</script></body>"))
    dom, console = opened(tmp_path / "page.html", tmp_path / "profile", f"--window-size={width},900")
    assert console == []
    assert f"<title>{width} false {'region' if scrolls else 'null'} true</title>" in dom


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
