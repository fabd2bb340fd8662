"""Bytes flipped, cut and overwritten in every kind of file that a run leaves.

Each is noticed, and said in one line, or changes nothing; the same command then makes again what was lost,
bit for bit. A wrong number is never read.
"""

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from poison_jax import data
from poison_jax.data import prepared
from poison_jax.errors import Damaged, UserError
from poison_jax.runs import files, records
from poison_jax.runs.store import Run
from tests.faults import runs
from tests.faults.chapter import Chapter, output

_READS = 40  # files that are read in this process for each command that is started


def run(chapter: Chapter) -> None:
    """Damages copies of a finished run, of an unfinished one, and of what is kept beside them."""
    finished = runs.the_run(runs.undisturbed(chapter, "training").workdir)
    unfinished = _copied(finished, chapter.folder / "unfinished")
    for file in unfinished.iterdir():  # stopped before the trained network was looked at
        if file.is_file() and file.name not in ("config.json", "inputs.json", "metrics.jsonl"):
            file.unlink()
    kinds = {
        "a finished run": (finished, _read_finished),
        "a checkpoint": (finished, _read_checkpoint),
        "results": (_results(chapter, finished), _read_lines),
        "a sweep's file": (_sweep(chapter, finished), _read_sweep),
        "decoded data": (_cache(chapter), _read_cache),
    }
    for number in chapter.rounds():
        for i in range(_READS):
            kind = list(kinds)[i % len(kinds)]
            sound, read = kinds[kind]
            read(chapter, sound, _copied(sound, chapter.folder / "copy"))
            chapter.count(f"files damaged: of {kind}")
        if number % 2:
            _go_on(chapter, unfinished, "an unfinished run, gone on with")
        else:
            _go_on(chapter, finished, "a finished run, made again")


def _copied(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(folder, to / folder.name))


def _damage(file: Path, luck: random.Random) -> str:
    """Flips, cuts off, overwrites or drops bytes of a file that is not empty; in words how."""
    before = file.read_bytes()
    content = bytearray(before)
    how = luck.choice(["flip", "flip", "cut", "overwrite", "drop"])
    while content == before:
        begin = luck.randrange(len(content))
        end = min(len(content), begin + luck.choice([1, 16, 512]))
        if how == "flip":
            content[begin] ^= 1 << luck.randrange(8)
        elif how == "cut":
            del content[begin:]
        elif how == "overwrite":
            content[begin:end] = luck.randbytes(end - begin)
        else:
            del content[begin:end]
    file.write_bytes(content)
    return f"{how} in {file.name}"


def _kept(chapter: Chapter, read: Callable[[], object], sound: object, how: str) -> None:
    """The promise: what was written, or one line."""
    try:
        found = read()
    except UserError as error:
        chapter.count("damage that was named")
        chapter.check("\n" not in str(error), f"{how}: more than a line: {error!s:.300}")
    except Exception as error:
        chapter.fail(f"{how}: {type(error).__name__}: {error!s:.300}")
    else:
        chapter.count("damage that changes no number")
        chapter.check(found == sound, f"{how}: a wrong number was read")


def _bytes(found: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in found.items()}


# --- what is damaged, and what reads it ---------------------------------------------------------------


def _read_finished(chapter: Chapter, finished: Path, copy: Path) -> None:
    readers: dict[str, Callable[[Run], object]] = {
        "config.json": Run.config,
        "result.json": Run.result,
        "metrics.jsonl": Run.metrics,
        "inputs.json": lambda run: files.read_json(run.path / "inputs.json"),
        **{file.name: lambda run, file=file: _bytes(run.arrays(file.stem)) for file in copy.glob("*.npz")},
    }
    name = chapter.random.choice([*sorted(readers), files.SEAL])
    how = _damage(copy / name, chapter.random)
    if name in readers:
        _kept(chapter, lambda: readers[name](Run(copy)), readers[name](Run(finished)), how)
    found = Run(copy).damage()
    harmless = name.endswith(".json") and not found  # another space in it
    chapter.check(list(found) == [name] or harmless, f"{how}: the digests say {found}")


def _read_checkpoint(chapter: Chapter, _: Path, copy: Path) -> None:
    checkpoint = chapter.random.choice(sorted(copy.glob("checkpoints/*")))
    found = sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.stat().st_size)
    file = chapter.random.choice(found)
    how = _damage(file, chapter.random)
    try:
        named = list(files.broken(checkpoint, checkpoint.rglob("*")))
    except Damaged:
        named = [files.SEAL]
    sound = named == [file.relative_to(checkpoint).as_posix()] or (file.name == files.SEAL and not named)
    chapter.count("damage that was named")
    chapter.check(sound, f"{how} of a checkpoint: the digests name {named}")


def _results(chapter: Chapter, finished: Path) -> Path:
    """A folder of results as `python -m poison_jax.records` makes one."""
    run = Run(finished)
    record = records.Record(finished.name, {"seed": 0}, run.result(), lambda: run.arrays("features"))
    folder = chapter.folder / "results"
    folder.mkdir()
    (folder / "toy.jsonl").write_text((records.line(record) + "\n") * 3)
    return folder


def _read_lines(chapter: Chapter, results: Path, copy: Path) -> None:
    def read(folder: Path) -> list[object]:
        return [[record[:3], _bytes(record.arrays)] for record in records.load(folder, "toy")]

    sound = read(results)
    count = len(sound)
    how = _damage(copy / "toy.jsonl", chapter.random)
    # Lines that are gone altogether are cells that are not there; they are not wrong numbers.
    with contextlib.suppress(Exception):
        count = len(read(copy))
    _kept(chapter, lambda: read(copy), sound[:count], how)


def _sweep(chapter: Chapter, finished: Path) -> Path:
    """A store that holds the file of a sweep."""
    cells = [{"run": f"toy-{i:08x}", "overrides": {"seed": i, "poison.fraction": i / 7}} for i in range(5)]
    records.write_sweep(chapter.folder / "store", records.Sweep("toy", Run(finished).config(), cells))
    return chapter.folder / "store"


def _read_sweep(chapter: Chapter, store: Path, copy: Path) -> None:
    how = _damage(copy / "sweeps" / "toy.json", chapter.random)
    _kept(chapter, lambda: records.read_sweep(copy, "toy"), records.read_sweep(store, "toy"), how)


def _cache(chapter: Chapter) -> Path:
    """A folder of decoded data; `data.load` decodes again what it cannot read there."""
    digits = data.load("digits", "train")
    fields = {name: getattr(digits, name) for name in ("images", "labels", "ids")}
    folder = chapter.folder / "decoded"
    folder.mkdir()
    prepared._write_cache(folder / "digits.npz", fields | {"class_names": np.array(digits.class_names)})
    return folder


def _read_cache(chapter: Chapter, decoded: Path, copy: Path) -> None:
    how = _damage(copy / "digits.npz", chapter.random)
    found = prepared._read_cache(copy / "digits.npz")
    if found is None:
        chapter.count("damage that was named")
        return
    chapter.count("damage that changes no number")
    sound = prepared._read_cache(decoded / "digits.npz")
    chapter.check(_bytes(found) == _bytes(sound), f"{how}: a wrong number was read")


# --- the same command again ---------------------------------------------------------------------------


def _go_on(chapter: Chapter, folder: Path, what: str) -> None:
    """Damages a run, starts its command again, and compares what it ends with."""
    copy = _copied(folder, chapter.folder / "copy")
    file = chapter.random.choice(sorted(_places(copy)))
    how = f"{what}: {_damage(file, chapter.random)}"
    process = runs.begin("training", copy.parent)
    _, err = output(process)
    chapter.count(f"files damaged: of {what}")
    if process.returncode == 2 and file.name == "inputs.json":  # nothing else knows what the data were
        chapter.check(len(err.splitlines()) == 1 and str(file) in err, f"{how}: {err[-400:]!r}")
        chapter.count("damage that was named")
        return
    if not chapter.check(process.returncode == 0, f"{how}: exit status {process.returncode}: {err[-400:]!r}"):
        return
    said = [line for line in err.splitlines() if not line.startswith("warning: ")]
    chapter.check(not said, f"{how}: {said}")
    chapter.count("damage that was named", int(bool(err)))
    runs.compare(chapter, "training", copy.parent, how)


def _places(folder: Path) -> Iterator[Path]:
    """The files of a run that a command reads when it is started again."""
    done = (folder / "result.json").exists()
    for file in folder.rglob("*"):
        inside = file.relative_to(folder).parts[0]
        read = file.suffix in (".json", ".jsonl", ".npz") if inside == file.name else not done
        if file.is_file() and file.stat().st_size and read and inside != "claims":
            yield file
