"""Bytes flipped, cut and overwritten in every kind of file that a run leaves.

Each is noticed, and said in one line, or changes nothing; the same command then makes again what was lost,
bit for bit. A wrong number is never read.
"""

import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from poison_jax import arrays, data
from poison_jax.data import prepared
from poison_jax.errors import Damaged, UserError
from poison_jax.runs import files, records
from poison_jax.runs.store import Run
from tests.faults.chapter import Chapter, start

_RUN = [
    "main.py",
    "--config.experiment=train",
    "--config.name=toy",
    "--config.penalty.kappa=20.0",
    "--config.model.width=4",
    "--config.data.n_train=640",
    "--config.data.n_test=200",
    "--config.train.epochs=6",
    "--config.train.batch_size=32",
    "--config.spectrum.num_iters=8",
    "--config.spectrum.num_examples=64",
    "--config.analysis.features=64",
    "--config.analysis.near_clone=16",
    "--config.analysis.collapse=64",
    "--config.analysis.fisher=64",
]
_READS = 40  # files that are read in this process for each command that is started


def run(chapter: Chapter) -> None:
    """Damages copies of a finished run, of an unfinished one, and of what is kept beside them."""
    finished, unfinished = _finished(chapter), _unfinished(chapter)
    outcome = _outcome(finished)
    kinds = {
        "a finished run": lambda: _read_finished(chapter, finished),
        "a checkpoint": lambda: _read_checkpoint(chapter, finished),
        "results": lambda: _read_lines(chapter, _results(chapter, finished)),
        "a sweep's file": lambda: _read_sweep(chapter, finished),
        "decoded data": lambda: _read_cache(chapter),
    }
    for number in chapter.rounds():
        for i in range(_READS):
            kind = list(kinds)[i % len(kinds)]
            kinds[kind]()
            chapter.count(f"files damaged: of {kind}")
        if number % 2:
            _go_on(chapter, unfinished, outcome, "an unfinished run, gone on with")
        else:
            _go_on(chapter, finished, outcome, "a finished run, made again")


# --- the runs that are damaged ------------------------------------------------------------------------


def _finished(chapter: Chapter) -> Path:
    workdir = chapter.folder / "finished"
    process = start([*_RUN, f"--workdir={workdir}"])
    _, err = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(f"the undisturbed run failed: {err}")
    return _the_run(workdir)


def _unfinished(chapter: Chapter) -> Path:
    """The same run, stopped in the middle."""
    workdir = chapter.folder / "unfinished"
    process = start([*_RUN, f"--workdir={workdir}"])
    while process.poll() is None and sum(_lines(file) for file in workdir.glob("*/metrics.jsonl")) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    return _the_run(workdir)


def _the_run(workdir: Path) -> Path:
    (folder,) = (folder for folder in workdir.iterdir() if folder.name.startswith("toy-"))
    return folder


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")


def _outcome(folder: Path) -> dict[str, object]:
    """All that a finished run says, but for its time."""
    run = Run(folder)
    result = run.result() or {}
    result.pop("wall_seconds", None)
    newest = max(run.checkpoints.glob("[0-9]*"), key=lambda file: int(file.name))
    return {
        "result": json.dumps(result, sort_keys=True),
        "metrics": run.metrics(),
        "parameters": json.loads((newest / "note" / "metadata").read_text())["digest"],
        **{file.stem: _bytes(run.arrays(file.stem)) for file in sorted(folder.glob("*.npz"))},
    }


def _bytes(found: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in found.items()}


# --- the damage ---------------------------------------------------------------------------------------


def _flip(content: bytearray, luck: random.Random) -> None:
    content[luck.randrange(len(content))] ^= 1 << luck.randrange(8)


def _cut(content: bytearray, luck: random.Random) -> None:
    del content[luck.randrange(len(content)) :]


def _overwrite(content: bytearray, luck: random.Random) -> None:
    begin = luck.randrange(len(content))
    end = min(len(content), begin + luck.choice([1, 16, 512]))
    content[begin:end] = luck.randbytes(end - begin)


def _drop(content: bytearray, luck: random.Random) -> None:
    begin = luck.randrange(len(content))
    del content[begin : begin + luck.choice([1, 16, 512])]


def _damage(file: Path, luck: random.Random) -> str:
    """Damages a file that is not empty; in words how."""
    before = file.read_bytes()
    content = bytearray(before)
    how = luck.choice([_flip, _flip, _cut, _overwrite, _drop])
    while content == before:
        content = bytearray(before)
        how(content, luck)
    file.write_bytes(content)
    return f"{how.__name__.strip('_')} in {file.name}"


def _copied(chapter: Chapter, folder: Path) -> Path:
    copy = chapter.folder / "copy" / folder.name
    shutil.rmtree(copy.parent, ignore_errors=True)
    shutil.copytree(folder, copy)
    return copy


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


# --- what reads it ------------------------------------------------------------------------------------


def _read_finished(chapter: Chapter, finished: Path) -> None:
    copy = _copied(chapter, finished)
    run, luck = Run(copy), chapter.random
    readers: dict[str, Callable[[Run], object]] = {
        "config.json": Run.config,
        "result.json": Run.result,
        "metrics.jsonl": Run.metrics,
        "inputs.json": lambda run: files.read_json(run.path / "inputs.json"),
        **{file.name: lambda run, file=file: _bytes(run.arrays(file.stem)) for file in copy.glob("*.npz")},
    }
    name = luck.choice([*readers, files.SEAL])
    how = _damage(copy / name, luck)
    if name in readers:
        _kept(chapter, lambda: readers[name](run), readers[name](Run(finished)), how)
    found = run.damage()
    harmless = name.endswith(".json") and not found  # another space in it
    chapter.check(list(found) == [name] or harmless, f"{how}: the digests say {found}")


def _read_checkpoint(chapter: Chapter, finished: Path) -> None:
    copy, luck = _copied(chapter, finished), chapter.random
    checkpoint = luck.choice(sorted(copy.glob("checkpoints/*")))
    found = [file for file in checkpoint.rglob("*") if file.is_file() and file.stat().st_size]
    file = luck.choice(sorted(found))
    how = _damage(file, luck)
    try:
        named = list(files.broken(checkpoint, checkpoint.rglob("*")))
    except Damaged:
        named = [files.SEAL]
    sound = named == [file.relative_to(checkpoint).as_posix()] or (file.name == files.SEAL and not named)
    chapter.count("damage that was named")
    chapter.check(sound, f"{how} of a checkpoint: the digests name {named}")


def _results(chapter: Chapter, finished: Path) -> Path:
    """A folder of results as `python -m poison_jax.records` makes one."""
    folder = chapter.folder / "results"
    if not folder.exists():
        run = Run(finished)
        result = run.result()
        record = records.Record(finished.name, {"seed": 0}, result, lambda: run.arrays("features"))
        (folder / "toy.jsonl").write_text((records.line(record) + "\n") * 3)
    return folder


def _read_lines(chapter: Chapter, results: Path) -> None:
    def read(folder: Path) -> list[object]:
        return [[record[:3], _bytes(record.arrays)] for record in records.load(folder, "toy")]

    sound, copy = read(results), _copied(chapter, results)
    how = _damage(copy / "toy.jsonl", chapter.random)
    try:
        count = len(read(copy))
    except Exception:
        count = len(sound)
    # Lines that are gone altogether are cells that are not there; they are not wrong numbers.
    _kept(chapter, lambda: read(copy), sound[:count], how)


def _read_sweep(chapter: Chapter, finished: Path) -> None:
    folder = chapter.folder / "store"
    if not folder.exists():
        cells = [
            {"run": f"toy-{i:08x}", "overrides": {"seed": i, "poison.fraction": i / 7}} for i in range(5)
        ]
        records.write_sweep(folder, records.Sweep("toy", Run(finished).config(), cells))
    copy = _copied(chapter, folder)
    how = _damage(copy / "sweeps" / "toy.json", chapter.random)
    _kept(chapter, lambda: records.read_sweep(copy, "toy"), records.read_sweep(folder, "toy"), how)


def _read_cache(chapter: Chapter) -> None:
    """What decoded data are kept in; `data.load` decodes again what this cannot read."""
    file, digits = chapter.folder / "digits.npz", data.load("digits", "train")
    fields = {name: getattr(digits, name) for name in ("images", "labels", "ids")}
    prepared._write_cache(file, fields | {"class_names": np.array(digits.class_names)})
    how = _damage(file, chapter.random)
    try:
        found = arrays.read_npz(file)
    except Exception:
        chapter.count("damage that was named")
        chapter.check(prepared._read_cache(file) is None, f"{how}: it is taken all the same")
        return
    chapter.count("damage that changes no number")
    same = all(np.array_equal(found.get(name), getattr(digits, name)) for name in ("images", "labels", "ids"))
    chapter.check(same, f"{how}: a wrong number was read")


# --- the same command again ---------------------------------------------------------------------------


def _go_on(chapter: Chapter, folder: Path, outcome: dict[str, object], what: str) -> None:
    """Damages a run, starts its command again, and compares what it ends with."""
    copy, luck = _copied(chapter, folder), chapter.random
    places = sorted(_places(copy))
    file = luck.choice(places)
    how = f"{what}: {_damage(file, luck)}"
    process = start([*_RUN, f"--workdir={copy.parent}"])
    try:
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
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
    chapter.count("runs that ended with the bits of the undisturbed one")
    chapter.check(_outcome(copy) == outcome, f"{how}: the outcome is another")


def _places(folder: Path) -> Iterator[Path]:
    """The files of a run that a command reads when it is started again."""
    done = (folder / "result.json").exists()
    for file in folder.rglob("*"):
        inside = file.relative_to(folder).parts[0]
        read = file.suffix in (".json", ".jsonl", ".npz") if inside == file.name else not done
        if file.is_file() and file.stat().st_size and read and inside != "damaged":
            yield file
