"""Stored lines of finished cells: which cells of a sweep they stand for, and adding a store's cells to them.

Two records are of one cell if they have one name, or if their configs ask for the same numbers: runs were
named by a hash of another form before.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from poison_jax import config as config_lib
from poison_jax import console
from poison_jax.errors import UserError
from poison_jax.experiments import views
from poison_jax.runs import files, records, store
from poison_jax.runs.files import Json
from poison_jax.runs.records import Record
from poison_jax.sweeps.grid import Cell

# How a result was come by: another machine, or another version, has other ones.
_CIRCUMSTANCES = ("config", "convolutions", "device", "seconds", "stages", "versions", "wall_seconds")


def matching(cells: list[Cell], results: Path) -> dict[str, Record]:
    """The stored records that stand for cells, by the cells' names.

    Args:
        cells: of a sweep.
        results: folder of JSON lines; those of other sweeps count as well, a cell may be in several.

    Returns:
        Records under their own names, at the cells' places in the grid.

    Raises:
        UserError: there are no such lines, or one of them is damaged.
    """
    sweeps = sorted(results.glob("[!.]*.jsonl"))
    if not sweeps:
        raise UserError(f"--results = {results} holds no <sweep>.jsonl: name a folder that records wrote")
    of_name = {cell.key: cell for cell in cells}
    of_identity = {(cell.run.rpartition("-")[2], cell.view): cell for cell in cells}
    found: dict[str, Record] = {}
    for file in sweeps:
        for _, record in records.lines(file):
            cell = of_name.get(record.key) or of_identity.get(_identity(record))
            if cell is None:
                continue
            taken = found.setdefault(cell.key, record._replace(overrides=cell.overrides))
            if says := _difference(taken.result, record.result):
                console.warn(f"{cell}: a line in {file} is not taken: {says}")
    return found


class Merged(NamedTuple):
    """What `merge` did with records."""

    added: int
    replaced: int
    kept: list[str]  # in words: the cells whose stored line says something else, and what


def merge(found: Iterable[Record], file: Path, *, replace: bool = False) -> Merged:
    """Adds records to a file of JSON lines; what is stored there stays.

    Args:
        found: finished cells.
        file: made if it is not there.
        replace: a cell whose stored line says something else, or less, takes its place.

    Raises:
        UserError: a line of the file is damaged.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with _alone(file.parent):
        return _merge(found, file, replace)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Held while lines are added: of two that read the same and write, one would lose the other's.

    The folder itself is locked: nothing is left among the lines that are kept.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _merge(found: Iterable[Record], file: Path, replace: bool) -> Merged:
    stored = records.lines(file) if file.exists() else []
    texts = [text.rstrip(b"\n") for text, _ in stored]
    places: dict[Any, int] = {}
    for i, (_, record) in enumerate(stored):
        places[record.key] = i
        places.setdefault(_identity(record), i)
    places.pop(None, None)
    replaced, kept = 0, []
    for record in found:
        i = places.get(record.key, places.get(_identity(record)))
        if i is None:
            places[record.key] = len(texts)
            texts.append(records.line(record).encode())
        elif i < len(stored):
            says = _difference(stored[i][1].result, record.result)
            if replace and (says or record.result.keys() - stored[i][1].result.keys()):
                texts[i] = records.line(record).encode()
                replaced += 1
            elif says:
                kept.append(f"{stored[i][1].key} ({says})")
    files.write(file, b"".join(text + b"\n" for text in texts))
    return Merged(len(texts) - len(stored), replaced, kept)


def _identity(record: Record) -> tuple[str, str] | None:
    """Two digests: of what a record's config determines, and looks at; None if it is of another version."""
    try:
        config = config_lib.from_json(record.result["config"], record.run)
        return store.digest(config_lib.identity(config)), views.view(config)
    except (KeyError, TypeError, ValueError):
        return None


def _difference(stored: Json, other: Json) -> str:
    """The first number in which two results differ, in words; "" where they agree in all that both have."""
    stored, other = files.plain(stored), files.plain(other)
    for name in stored:
        if name in other and name not in _CIRCUMSTANCES and stored[name] != other[name]:
            return f"{name} is {stored[name]} in the first, {other[name]} in the other"
    return ""
