"""The cells of a sweep as records, from a store of runs or from the JSON lines of `results/`.

A sweep leaves `<workdir>/sweeps/<name>.json`, which says what its cells are; the cells are ordinary run
directories beside it, or lines in `<workdir>/sweeps/<name>/stored/`, done elsewhere. `python -m
poison_jax.records --runs DIR --out results` adds what figures and tables need of the finished ones to
`<name>.jsonl`, a line a cell. Nothing here needs an ML package.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poison_jax.errors import UserError
from poison_jax.runs import files
from poison_jax.runs.files import Json
from poison_jax.runs.store import Run

FORMAT = 1  # of the sweeps' files and of the lines
SWEEPS = "sweeps"
Arrays = dict[str, np.ndarray]


class Sweep(NamedTuple):
    """What a sweep consists of."""

    name: str  # letters, digits, '-', '_'
    config: Json  # of its cells, but for what they override
    cells: list[Json]  # of each its `run` (name of a directory), `view` and `overrides` (dotted key -> value)
    attempts: int = 3  # a cell whose process dies this often has failed; older files do not say


def key(run: str, view: str = "") -> str:
    """The name of a cell: of its run, and of what is looked at in it.

    >>> key("digits-0123abcd"), key("digits-0123abcd", "89efdcba")
    ('digits-0123abcd', 'digits-0123abcd@89efdcba')
    """
    return f"{run}@{view}" if view else run


def key_of(cell: Json) -> str:
    """The name of a cell in a sweep's file; older ones say nothing of views."""
    return key(cell["run"], cell.get("view", ""))


class Record(NamedTuple):
    """One finished cell."""

    run: str  # name of its directory, with the hash of what determines it
    overrides: Json  # its place in the grid: dotted key -> value
    result: Json  # of its view, its `config` included
    load: Callable[[], Arrays]
    view: str = ""  # what is looked at in the run; see `store`

    @property
    def key(self) -> str:
        """The name of the cell."""
        return key(self.run, self.view)

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
        sweep = read_sweep(path, name)
        found = (of_cell(path, name, cell) for cell in sweep.cells)
        return [record for record in found if record is not None]
    if (file := path / f"{name}.jsonl").exists():
        return [record for _, record in lines(file)]
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
    content = files.read_json(file, version=FORMAT)
    try:
        cells, attempts = [dict(cell) for cell in content["cells"]], content.get("attempts", 3)
        _check_names(cells, str(file))
        if not isinstance(attempts, int):
            raise TypeError("attempts")
        return Sweep(content["name"], dict(content["config"]), cells, attempts)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{file} does not say what its cells are: move it away") from None


def write_sweep(path: Path, sweep: Sweep) -> None:
    """Keeps what a sweep consists of; one that is there already must have the same cells.

    The rest, where the data lie and the like, is what is given now.

    Raises:
        UserError: a sweep of that name has other cells.
    """
    file = Path(path) / SWEEPS / f"{sweep.name}.json"
    if file.exists():
        kept = read_sweep(path, sweep.name)
        if set(map(key_of, kept.cells)) != set(map(key_of, sweep.cells)):
            raise UserError(f"{file} is a sweep with other cells: choose another sweep.name or --workdir")
        if (kept.config, kept.attempts) == (files.plain(sweep.config), sweep.attempts):
            return
        sweep = sweep._replace(cells=kept.cells)
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(file, {"format": FORMAT, **sweep._asdict()})


def of_cell(path: Path, name: str, cell: Json) -> Record | None:
    """The record of a cell of a store's sweep, done here or stored; None while it is not done.

    Args:
        path: the store.
        name: of the sweep.
        cell: one of `Sweep.cells`.

    Raises:
        UserError: its result is damaged.
    """
    run, view = Run(Path(path) / cell["run"]), cell.get("view", "")
    if (result := run.result(view)) is not None:
        load = functools.partial(_arrays, run, view, result)
        return Record(cell["run"], cell["overrides"], result, load, view)
    file = stored_file(path, name, key_of(cell))
    return of_line(files.read_text(file), str(file)) if file.exists() else None


def stored_file(path: Path, name: str, cell: str) -> Path:
    """Where a store's sweep keeps the line of a cell (its `key`) that was done elsewhere."""
    return Path(path) / SWEEPS / name / "stored" / f"{cell}.json"


def store_record(path: Path, name: str, cell: str, record: Record) -> None:
    """Keeps a record from elsewhere, under its own name, as that of a sweep's cell: it is done with it."""
    file = stored_file(path, name, cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write(file, (line(record) + "\n").encode())


def line(record: Record) -> str:
    """A record as a line of JSON, its checksum included: three significant digits of every array."""
    return files.dumps(
        {
            "format": FORMAT,
            "run": record.run,
            "view": record.view,
            "overrides": record.overrides,
            "result": record.result,
            "arrays": {name: _packed(array) for name, array in record.arrays.items()},
        }
    )


def lines(file: Path) -> list[tuple[bytes, Record]]:
    """The lines of a file of records, as they stand there and read.

    Raises:
        UserError: one is damaged, or was written by a newer version.
    """
    return [(text, of_line(text, f"{file}, line {i}")) for i, text in enumerate(files.lines(file), 1)]


def of_line(line: bytes, where: str) -> Record:
    """The record that a line holds.

    Raises:
        UserError: it is damaged, or was written by a newer version.
    """
    content = files.loads(line, where, version=FORMAT)
    try:
        _check_names([content], where)
        arrays = {name: _unpacked(packed) for name, packed in content["arrays"].items()}
        run, view = content["run"], content.get("view", "")
        return Record(run, content["overrides"], content["result"], lambda: arrays, view)
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is not a record ({error}): write the file again") from None


def _check_names(cells: list[Json], where: str) -> None:
    """Raises where a cell has no name, or one that leads out of the store."""
    for cell in cells:
        if not isinstance(cell["run"], str) or not isinstance(cell["overrides"], dict):
            raise TypeError("run, overrides")
        for name in (cell["run"], cell.get("view") or "none"):
            if not files.is_name(name):
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


def _arrays(run: Run, view: str, result: Json) -> Arrays:
    if result["config"]["experiment"] == "mnist_linear":
        return run.arrays("measures")
    # An older run has no choice of stages, and calls the attack by another name.
    stages = result.get("stages") or {file.stem: file.stem for file in run.path.glob("*.npz")}
    spectrum = run.arrays("spectrum", view)
    trigger = np.abs(run.arrays("attack" if "attack" in stages else "examples", view)["mask"].astype(float))
    arrays = {
        "top_eigenvector": spectrum["vectors"][0].reshape(spectrum["shape"]).mean(-1),
        "shape": spectrum["shape"],
        "trigger": trigger if trigger.ndim == 2 else trigger.mean(-1),
    }
    if "features" in stages and "features_left_out" not in result:
        features = run.arrays("features", view)
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
