"""A GPU's table: runs the sections one after the other, each with a limit, and says what they found."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import SMALL
from poison_jax import console

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]


class Planned(NamedTuple):
    """A section, the seconds that it may take, and changes to its environment."""

    section: str
    seconds: float
    environment: dict[str, str] = {}  # noqa: RUF012  (a default that nobody changes)


# What is wanted most comes first: time may run out.
PLAN = (
    Planned("machine", 40),
    Planned("agreement", 90),
    Planned("pytorch", 80),
    Planned("ours", 80),
    Planned("ours-bf16", 80),
    Planned("hessian", 80),
    Planned("ours-110", 140),
    Planned("ours", 60, {"POISON_JAX_GRAPHS": "0"}),
    Planned("ours-highest", 60),
)
# GB that a step of PreResNet-20 moves, as `benchmarks.compiled` counts them.
MOVED = {
    ("plain", "f32"): 1.56,
    ("penalised", "f32"): 3.80,
    ("plain", "bf16"): 0.82,
    ("penalised", "bf16"): 2.05,
}
BATCH = 128


def measure(file: Path, seconds: float) -> list[Row]:
    """Runs what fits of the plan in so many seconds; returns all rows, also written to the file as they come.

    Where our gradient does not agree with the one in float64, nothing that comes after is run.
    """
    file.write_text("")
    end = time.monotonic() + seconds
    for section, most, environment in PLAN:
        most = min(10 * most if SMALL else most, end - time.monotonic())
        if most < 15:
            break
        began, error = time.monotonic(), ""
        command = [sys.executable, "-m", "benchmarks.gpu.sections", section, str(file.resolve())]
        variables = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | environment
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=variables, timeout=most, capture_output=True, text=True, check=False
            )
            if done.returncode:  # killed, it says nothing
                error = done.stderr.strip()[-800:] or f"ended with status {done.returncode}"
        except subprocess.TimeoutExpired:
            error = f"cut off after {most:.0f} s"
        with open(file, "a") as lines:
            ended = {"section": section, "changes": environment, "seconds": time.monotonic() - began}
            lines.write(json.dumps(ended | {"error": error}) + "\n")
        console.say(f"{section}: {time.monotonic() - began:.0f} s {error.splitlines()[-1] if error else ''}")
        if section == "agreement" and error:
            break
    return [json.loads(line) for line in file.read_text().splitlines()]


def show(rows: list[Row]) -> None:
    """The steps of PreResNet-20, ours and PyTorch's, against the matrix product's rate and the memory's."""
    rates = {row["what"]: row for row in rows if row.get("section") == "machine" and "what" in row}
    table = []
    for row in rows:
        if "ms" not in row or row["section"] not in ("ours", "pytorch"):
            continue
        mine = row["section"] == "ours"
        layout = "channels last" if row.get("channels_last") else "contiguous"
        name = f"ours, {row['precision']}" if mine else f"PyTorch, {row['how']}, {layout}"
        if mine and "command_buffer" not in row["flags"]:
            name += ", no graphs"
        kind = "bf16" if row.get("precision") == "bf16" else "f32"
        moved = None if row.get("depth", 20) != 20 else MOVED.get((row["what"], kind))
        rate, copied = rates.get(row.get("precision")), rates.get("copy")
        table.append(
            [
                f"{row['what']}-{row.get('depth', 20)}: {name}",
                f"{row['ms']:.3g}",
                f"{1e3 * BATCH / row['ms']:.0f}",
                f"{row['tflops'] / rate['tflops']:.1%}" if mine and rate else "",
                f"{moved / copied['tb_s'] / row['ms']:.0%}" if moved and copied else "",
            ]
        )
    heading = "Steps of batch 128; the floor is the time that moving our step's bytes takes"
    console.table(heading, ("", "ms", "images/s", "of the matrix rate", "floor : time"), table)
    if SMALL:
        console.warn("SMALL=1: the batch was 4 and the network smaller, these numbers mean nothing")
