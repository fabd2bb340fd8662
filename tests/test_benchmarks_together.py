"""Together against one by one: a tiny run of all of it, and what is refused."""

import json

import pytest

from benchmarks import ours, scale, timing, together
from poison_jax import cache


def test_all_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ours, "IMAGE_SHAPE", (8, 8, 3))
    monkeypatch.setattr(ours, "BATCH", 8)
    monkeypatch.setattr(together, "MEMBERS", (1, 2))
    monkeypatch.setattr(cache, "keep_compilations", lambda: None)
    scale.base.cache_clear()
    file = tmp_path / "numbers.json"
    together.main(["--batch=4", f"--json={file}"], timing.Rounds(1, 1, 0))
    scale.base.cache_clear()
    written = json.loads(file.read_text())
    assert [(row["step"], row["members"]) for row in written["rows"]] == [
        (name, count) for name in ("plain step", "penalised step") for count in (1, 2)
    ]
    for row in written["rows"]:
        assert row["ratio"] == row["low"] == row["high"] == row["one_by_one"] / row["together"] > 0
    assert "together is faster" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "words"),
    [("--depth=9", "6n + 2"), ("--batch=0", "at least 1"), ("--json=/nowhere/x", "cannot write")],
)
def test_what_cannot_be_meant(argument, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        together.main([argument])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
