"""The house: `.importlinter` says what may import what; a new module must be given its place there."""

from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parent.parent


def test_imports_point_downwards(capsys):
    status = lint_imports(config_filename=str(ROOT / ".importlinter"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_main_is_short():
    assert len((ROOT / "main.py").read_text().splitlines()) < 60
