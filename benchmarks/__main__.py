"""`python -m benchmarks [--device cpu|gpu] [--json FILE]`: the paper's PyTorch listings against this code."""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import jax

from benchmarks.command import Parser, check_writable, fail, warn_if_busy
from poison_jax import console, environment, kernels


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    if importlib.util.find_spec("torch") is None:
        fail("the comparison needs PyTorch: pip install -e '.[bench]'")
    if arguments.device == "gpu":
        on_gpu(arguments)
        return
    jax.config.update("jax_platforms", "cpu")
    from benchmarks import measure

    began = time.monotonic()
    kernels.keep_memory()  # as the program does, for all sides alike
    console.say(
        f"{machine()}; PreResNet-20, batch 128, float32, random images; best of PyTorch's two layouts"
    )
    warn_if_busy("the processor was busy in the last minute: on a busy machine PyTorch suffers more than JAX")
    rows = []
    try:
        for entry, notes in measure.results(quick=arguments.quick):
            rows.append(entry._asdict())
            console.say(f"{entry.name}: " + "; ".join(notes))
    except (measure.Disagreement, measure.child.ChildError) as error:
        sys.exit(f"error: {error}")
    console.table(
        "above 1 in a ratio: ours is better (median of paired ratios)", HEADER, [cells(row) for row in rows]
    )
    console.say(f"total {console.duration(time.monotonic() - began)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def on_gpu(arguments: argparse.Namespace) -> None:
    """The table of a GPU, and all that was measured as JSON."""
    from benchmarks.gpu import SMALL, table

    if not environment.gpus() and not SMALL:
        fail("--device gpu: there is no NVIDIA GPU here")
    with tempfile.TemporaryDirectory() as folder:
        rows = table.measure(Path(folder) / "rows.jsonl", arguments.seconds)
    table.show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if failed := [row["section"] for row in rows if row.get("error") and "seconds" in row]:
        sys.exit(f"error: not measured to the end: {', '.join(failed)}")


HEADER = ("", "unit", "ours", "listing", "best PyTorch", "ours : listing", "ours : best", "fraction of peak")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="both sides are on it")
    parser.add_argument("--quick", action="store_true", help="on the CPU: fewer images and repetitions")
    parser.add_argument("--seconds", type=float, default=600, help="on the GPU: at most so many (600)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    arguments = parser.parse_args(argv)
    check_writable(arguments.json)
    return arguments


def cells(row: dict) -> list[str]:
    """A row of the table as people read it."""
    numbers = [_number(row[name]) for name in ("ours", "listing", "best")]
    ratios = ["" if row[name] is None else f"{row[name]:.2f}" for name in ("ratio_listing", "ratio_best")]
    peak = row["fraction_of_peak"]
    return [row["name"], row["unit"], *numbers, *ratios, "" if peak is None else f"{peak:.1%}"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> str:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU cores, jax {jax.__version__}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
