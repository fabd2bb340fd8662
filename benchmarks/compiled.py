"""`python -m benchmarks.compiled [--json FILE] [STEP ...]`: what XLA makes of the steps for an H100.

Kernels, launches, memory and bytes of a compiled step, counted on a machine without a GPU, so that a change
that doubles the traffic is seen. No times: nothing is run, nor are cuDNN's algorithms chosen. Needs JAX's
plugin for CUDA: `pip install -e '.[compiled]'`, on Python 3.12 or newer.
"""

import argparse
import functools
import importlib.util
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import ours
from benchmarks.command import Parser, check_writable, fail
from poison_jax import console, environment, train

TARGET = Path(__file__).parent / "gpu" / "h100.txtpb"
BANDWIDTH = 3.0e12  # bytes a second that an H100's memory gives, of 3.35e12 on paper
_THUNK = re.compile(r"^( *)\d+: (k\w+)", re.MULTILINE)
_INSTRUCTION = re.compile(r"^ *(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:,|$)", re.MULTILINE)
_ARRAY = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_FREE = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast")  # nothing is run for them
_AROUND = ("kCommandBuffer", "kWhile", "kConditional", "kSequential")  # what only holds others


class Step(NamedTuple):
    """A training step to be compiled, batch 128."""

    depth: int
    penalised: bool
    dtype: str = "float32"
    remat: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """As `ours.Training` takes them; the convolutions are XLA's, as on every GPU."""
        block = "bottleneck" if self.depth == 110 else "basic"
        return {**self._asdict(), "block": block, "convolutions": "xla"}


STEPS = {
    f"{'penalised' if penalised else 'plain'}-{depth}{suffix}": Step(depth, penalised, *options)
    for depth in (20, 110)
    for suffix, options in {"": (), "-bf16": ("bfloat16",), "-remat": ("float32", True)}.items()
    for penalised in (False, True)
}


class Row(NamedTuple):
    """A step's program."""

    name: str
    kernels: int  # convolutions and copies among them
    launches: int  # by the host: a CUDA graph is one
    temporary_mib: float
    moved_gb: float  # what its kernels are given and make, each once a kernel
    floor_ms: float  # that moving them takes at least


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    arguments = parse(argv)
    if (reason := missing()) is not None:
        console.say(f"skipped: {reason}")
        return
    rows = []
    with tempfile.TemporaryDirectory() as dump:
        prepare(Path(dump))
        for name in arguments.step or STEPS:
            rows.append(compile_step(name, STEPS[name], Path(dump)))
            console.say("{}: {} kernels, {} launches, {:.0f} MiB, {:.2f} GB, {:.2f} ms".format(*rows[-1]))
    console.table(
        f"Compiled for an H100, batch 128; floor at {BANDWIDTH / 1e12:g} TB/s",
        ("", "kernels", "launches", "temporary MiB", "GB moved", "floor ms"),
        [
            [r.name, str(r.kernels), str(r.launches), f"{r.temporary_mib:.0f}", *map("{:.2f}".format, r[4:])]
            for r in rows
        ],
    )
    if arguments.json:
        arguments.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m benchmarks.compiled",
        description="Kernels, launches, memory and bytes of the training steps, compiled for an H100.",
        epilog="A step of depth 20 takes half a minute, one of depth 110 some minutes.",
        allow_abbrev=False,
    )
    parser.add_argument("step", nargs="*", help=f"of {', '.join(STEPS)}; all if none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.step if name not in STEPS]:
        fail(f"no step {unknown[0]!r}: use {', '.join(STEPS)}")
    check_writable(arguments.json)
    return arguments


def missing() -> str | None:
    """Why nothing can be compiled for a GPU here; None where it can."""
    if importlib.util.find_spec("jax_plugins") is None:
        return "JAX's plugin for CUDA is not installed: pip install -e '.[compiled]', on Python 3.12 or newer"
    return None


def prepare(dump: Path) -> None:
    """Has this process compute on the CPU, and XLA write what it makes of a step; before JAX has started."""
    # A step as one CUDA graph, as `environment.pin` has it where there is a GPU.
    flags = [environment.GRAPHS, f"--xla_dump_to={dump}", "--xla_dump_hlo_module_re=jit_train_step"]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags, "--xla_dump_hlo_as_text"])
    jax.config.update("jax_platforms", "cpu")


@functools.cache
def mesh() -> Mesh:
    """One H100 that is not there."""
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=TARGET.read_text(), topology="1x1x1"
    )
    return Mesh(np.array(topology.devices), ("data",))


def compile_step(name: str, step: Step, dump: Path) -> Row:
    """Compiles one and counts."""
    whole = NamedSharding(mesh(), PartitionSpec())
    training = ours.Training(**step.options, devices=1)
    state, *arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
        (training.state, *training.arguments),
    )
    program = training.program._replace(mesh=mesh())
    compiled = train.train_step.lower(state, *arguments, program=program).compile()
    newest = max(
        dump.glob("*thunk_sequence_after_thunk_passes.txt"), key=lambda file: file.stat().st_mtime_ns
    )
    kernels, launches = thunks(newest.read_text())
    moved = bytes_moved(compiled.as_text())
    temporary = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return Row(name, kernels, launches, temporary, moved / 1e9, 1e3 * moved / BANDWIDTH)


def thunks(text: str) -> tuple[int, int]:
    """Kernels of a program, and launches by the host, in XLA's list of what it runs."""
    found = _THUNK.findall(text)
    return sum(kind not in _AROUND for _, kind in found), sum(not indent for indent, _ in found)


def bytes_moved(text: str) -> int:
    """Bytes of all operands and results of a program's kernels, each read or written once a kernel."""
    entry = text[text.index("ENTRY ") :]
    sizes, total = {}, 0
    for name, result, kind, operands in _INSTRUCTION.findall(entry):
        sizes[name] = sum(map(_bytes, *zip(*_ARRAY.findall(result), strict=True)))
        if kind not in _FREE:
            total += sizes[name] + sum(sizes[operand] for operand in re.findall(r"%([\w.-]+)", operands))
    return total


def _bytes(kind: str, shape: str) -> int:
    width = 8 if kind == "pred" else int(re.sub(r"\D", "", kind) or 8)
    return width * int(np.prod([int(n) for n in shape.split(",") if n])) // 8


if __name__ == "__main__":
    main()
