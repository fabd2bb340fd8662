"""The cells of a sweep as records, from a store of runs or from the JSON lines of `results/`.

A sweep leaves `<workdir>/sweeps/<name>.json`, which says what its cells are; the cells are ordinary run
directories beside it. `python -m poison_jax.records --runs DIR --out results` writes what figures and
tables need of the finished ones as `<name>.jsonl`, a line a cell. Nothing here needs an ML package.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poison_jax.runs import files
from poison_jax.errors import UserError, one_line
from poison_jax.runs.files import Json
from poison_jax.runs.store import Run

FORMAT = 1  # of the sweeps' files and of the lines
SWEEPS = "sweeps"
Arrays = dict[str, np.ndarray]


class Sweep(NamedTuple):
    """What a sweep consists of."""

    name: str  # letters, digits, '-', '_'
    config: Json  # of its cells, but for what they override
    cells: list[Json]  # of each its `run` (name of a directory) and `overrides` (dotted key -> value)


class Record(NamedTuple):
    """One finished cell."""

    run: str  # name of its directory, with the hash of its config
    overrides: Json  # its place in the grid: dotted key -> value
    result: Json  # `result.json`, its `config` included
    load: Callable[[], Arrays]

    def setting(self, key: str) -> Any:
        """The value of a dotted config key."""
        return functools.reduce(lambda group, part: group[part], key.split("."), self.result["config"])

    @property
    def arrays(self) -> Arrays:
        """What pictures and tables need beside the result, as far as the run measured it.

        `top_eigenvector [h, w]` of the input Hessian, mean over the channels, `shape [3]` of the input, and
        `trigger [h, w]` (a mask, or the mean change); the columns of Table 3, each `[K]`, and `class_names
        [K]`; of a linear regression its `measures.npz`.
        """
        return self.load()


def names(path: Path) -> list[str]:
    """The sweeps that a store or a folder of JSON lines holds."""
    files = [*Path(path).glob(f"{SWEEPS}/*.json"), *Path(path).glob("*.jsonl")]
    return sorted({file.stem for file in files if not file.name.startswith(".")})


def load(path: Path, name: str) -> list[Record]:
    """The finished cells of a sweep, in its order.

    Args:
        path: a store (`--workdir` of the sweep), or a folder that holds `<name>.jsonl`.
        name: of the sweep.

    Raises:
        UserError: it is not there, is damaged, or was written by a newer version.
    """
    path = Path(path)
    if (path / SWEEPS / f"{name}.json").exists():
        return _of_runs(path, read_sweep(path, name))
    file = path / f"{name}.jsonl"
    if file.exists():
        return [_of_line(line, f"{file}, line {i}") for i, line in enumerate(files.lines(file), 1)]
    found = ", ".join(names(path)) or "none"
    raise UserError(
        f"{path} holds no sweep {name!r} (it holds {found}): name the folder of its runs or results"
    )


def read_sweep(path: Path, name: str) -> Sweep:
    """What a store says of a sweep.

    Raises:
        UserError: its file is absent, damaged, or of a newer version.
    """
    file = Path(path) / SWEEPS / f"{name}.json"
    content = files.parse(files.read_text(file), str(file))
    _check_format(content, str(file))
    content = files.verified(content, str(file))
    try:
        cells = [dict(cell) for cell in content["cells"]]
        _check_names(cells, str(file))
        return Sweep(content["name"], dict(content["config"]), cells)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{file} does not say what its cells are: move it away") from None


def write_sweep(path: Path, sweep: Sweep) -> None:
    """Keeps what a sweep consists of; one that is there already must have the same cells.

    The rest of its config, where the data lie and the like, is what is given now.

    Raises:
        UserError: a sweep of that name has other cells.
    """
    file = Path(path) / SWEEPS / f"{sweep.name}.json"
    if file.exists():
        kept = read_sweep(path, sweep.name)
        if {cell["run"] for cell in kept.cells} != {cell["run"] for cell in sweep.cells}:
            raise UserError(f"{file} is a sweep with other cells: choose another sweep.name or --workdir")
        if kept.config == files.plain(sweep.config):
            return
        sweep = kept._replace(config=sweep.config)
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(file, {"format": FORMAT, **sweep._asdict()})


def write_lines(records: list[Record], file: Path) -> None:
    """Writes records as JSON lines, whole or not at all: three significant digits of every array."""
    lines = [
        {
            "format": FORMAT,
            "run": record.run,
            "overrides": record.overrides,
            "result": record.result,
            "arrays": {name: _packed(array) for name, array in record.arrays.items()},
        }
        for record in records
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write(file, "".join(files.dumps(line) + "\n" for line in lines).encode())


def _of_runs(path: Path, sweep: Sweep) -> list[Record]:
    records = []
    for cell in sweep.cells:
        run = Run(path / cell["run"])
        if (result := run.result()) is not None:
            load = functools.partial(_arrays, run, result)
            records.append(Record(cell["run"], cell["overrides"], result, load))
    return records


def _of_line(line: bytes, where: str) -> Record:
    content = files.parse(line, where)
    _check_format(content, where)
    content = files.verified(content, where)
    try:
        _check_names([content], where)
        arrays = {name: _unpacked(packed) for name, packed in content["arrays"].items()}
        return Record(content["run"], content["overrides"], content["result"], lambda: arrays)
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is not a record ({error}): write the file again") from None


def _check_format(content: Json, where: str) -> None:
    version = content.get("format")
    if version != FORMAT:
        newer = isinstance(version, int) and version > FORMAT
        advice = "update poison_jax" if newer else "move it away"
        raise UserError(f"{where} has format {version}, this version reads {FORMAT}: {advice}")


def _check_names(cells: list[Json], where: str) -> None:
    """Raises where a cell has no name, or one that leads out of the store."""
    for cell in cells:
        name, overrides = cell["run"], cell["overrides"]
        if not isinstance(name, str) or not isinstance(overrides, dict):
            raise TypeError("run, overrides")
        if name in ("", ".", "..") or Path(name).name != name or "\\" in name or "\0" in name:
            raise UserError(f"{where}: {name!r} is no name of a run: move it away")


COLUMNS = (  # of Table 3, each `[K]`
    "mean_norm",
    "std_norm",
    "triggered_mean_norm",
    "triggered_std_norm",
    "std_ratio",
    "distance",
    "triggered_distance",
    "distance_ratio",
)


def _arrays(run: Run, result: Json) -> Arrays:
    if result["config"]["experiment"] == "mnist_linear":
        return run.arrays("measures")
    spectrum, trigger = run.arrays("spectrum"), np.abs(run.arrays("examples")["mask"].astype(float))
    arrays = {
        "top_eigenvector": spectrum["vectors"][0].reshape(spectrum["shape"]).mean(-1),
        "shape": spectrum["shape"],
        "trigger": trigger if trigger.ndim == 2 else trigger.mean(-1),
    }
    if (run.path / "features.npz").exists():
        features = run.arrays("features")
        arrays |= {name: features[name] for name in (*COLUMNS, "class_names", "target")}
    return arrays


_TYPES = ("float64", "int64", "bool", "str")  # of the arrays in a line


def _packed(array: np.ndarray) -> Json:
    """An array as JSON; real numbers are rounded to three significant digits each."""
    if array.dtype.kind == "f":
        digits = [float(f"{x:.3g}") for x in array.ravel()]
        return {"shape": array.shape, "dtype": "float64", "values": digits}
    kind = "str" if array.dtype.kind == "U" else "int64" if array.dtype.kind in "iu" else "bool"
    return {"shape": array.shape, "dtype": kind, "values": array.ravel().tolist()}


def _unpacked(packed: Json) -> np.ndarray:
    if packed["dtype"] not in _TYPES:
        raise ValueError(f"type {packed['dtype']!r}")
    values = [np.nan if value is None else value for value in packed["values"]]
    return np.array(values, dtype=packed["dtype"]).reshape(packed["shape"])


def main(argv: list[str]) -> None:
    """`python -m poison_jax.records --runs DIR --out results`."""
    parser = argparse.ArgumentParser(prog="python -m poison_jax.records", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, required=True, help="store: the --workdir of the sweeps")
    parser.add_argument("--out", type=Path, required=True, help="folder for <sweep>.jsonl")
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="names; all that the store holds if none")
    arguments = parser.parse_args(argv)
    with one_line():
        found = arguments.sweeps or names(arguments.runs)
        if not found:
            raise UserError(f"{arguments.runs} holds no sweep: name the folder of its runs")
        for name in found:
            records = load(arguments.runs, name)
            write_lines(records, arguments.out / f"{name}.jsonl")
            print(f"{arguments.out / name}.jsonl: {len(records)} cells")


if __name__ == "__main__":
    main(sys.argv[1:])
