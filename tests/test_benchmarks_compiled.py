"""The steps compiled for an H100: what is counted, and what is said where it cannot be compiled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compiled

ROOT = Path(__file__).parents[1]


def test_kernels_and_launches():
    """A graph is one launch of many kernels."""
    text = """000: kCommandBuffer [source]
    001: kCopy         [source | next=002 (1)] kCopy
    002: kCustomKernel [prev=001] loop_add_fusion grid: [1, 1, 1]
003: kConvolution [sink]
"""
    assert compiled.thunks(text) == (3, 2)


def test_bytes_moved():
    text = """
%other (p: f32[9]) -> f32[9] {
  ROOT %p = f32[9]{0} parameter(0)
}

ENTRY %main (a: f32[2,3]) -> bf16[3,2] {
  %a = f32[2,3]{1,0} parameter(0)
  %b = (f32[2,3]{1,0}, u8[5]{0}) custom-call(%a), window={size=3}, calls=%x
  %c = f32[2,3]{1,0} get-tuple-element(%b), index=0
  %flag = pred[] constant(true)
  ROOT %d.1 = bf16[3,2]{1,0} fusion(%c, %flag), kind=kLoop, calls=%e
}
"""
    assert compiled.bytes_moved(text) == (24 + 5 + 24) + (12 + 24 + 1)


def test_without_the_plugin_one_line(monkeypatch, capsys):
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    compiled.main(["plain-20"])
    said = capsys.readouterr().out
    assert said.startswith("skipped: JAX's plugin for CUDA is not installed: pip install -e '.[compiled]'")
    assert len(said.splitlines()) == 1


def test_a_step_that_there_is_not(refused):
    assert "no step 'plain-21': use plain-20, penalised-20, " in refused(compiled.main, "plain-21")


@pytest.mark.slow
@pytest.mark.skipif(compiled.missing() is not None, reason="JAX's plugin for CUDA is not installed")
def test_the_traffic_of_the_steps_has_not_grown(tmp_path):
    """Of PreResNet-20: one graph a step. What needs more than this should be worth it."""
    command = [sys.executable, "-m", "benchmarks.compiled", "plain-20", "penalised-20", "penalised-20-remat"]
    plain = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([*command, "--json", tmp_path / "rows.json"], cwd=ROOT, env=plain, check=True)
    first, second, again = json.loads((tmp_path / "rows.json").read_text())
    assert [row["launches"] for row in (first, second, again)] == [1, 1, 1]
    assert first["kernels"] <= 400
    assert second["kernels"] <= 720
    assert first["moved_gb"] <= 1.7
    assert second["moved_gb"] <= 4.2
    assert again["temporary_mib"] <= second["temporary_mib"] / 2.5
