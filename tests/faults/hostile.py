"""Run directories and results that somebody made to do harm to whoever reads them.

None of them runs a line of its own, is followed out of its folder, waits for ever or fills the memory; each
is refused in a line. `tests.faults.visitor` reads them, in a process that watches itself.
"""

import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from poison_jax.runs import checkpoint, files, records
from poison_jax.runs.store import Run
from tests.faults import runs
from tests.faults.chapter import Chapter, output
from tests.faults.malformed_data import npz
from tests.program import start

SHORT = 60  # seconds, below which a third of the attacks is made, by the seed
MEMORY = 2**30  # bytes by which reading may let the process grow
_SCRIPT = "<script>alert(1)</script>"


class _Code:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path):
        self._mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self._mark),)


class Attack:
    """A copy of a sound run, and the places around it that an attack is about.

    Attributes:
        run: the copy, in a store of its own.
        outside: a folder that nothing may be read from or written to.
        mark: comes to be if code is run.
    """

    def __init__(self, sound: Path, folder: Path):
        self.store, self.outside, self.mark = folder / "store", folder / "outside", folder / "mark"
        self.run = Run(shutil.copytree(sound, self.store / sound.name))
        self.outside.mkdir()

    def file(self, name: str) -> Path:
        """A file of the run; `NEWEST/` begins the name of one of the newest checkpoint."""
        if name.startswith("NEWEST"):
            newest = max(self.run.checkpoints.glob("[0-9]*"), key=lambda step: int(step.name))
            name = name.replace("NEWEST", f"checkpoints/{newest.name}")
        return self.run.path / name

    def reseal(self) -> None:
        """Whoever can write a file can write its digest."""
        files.seal(self.run.path, self.run._sealed())
        files.seal(self.file("NEWEST"), self.file("NEWEST").rglob("*"))


Make = Callable[[Attack], None]


# --- attacks ------------------------------------------------------------------------------------------


def _written(names: list[str], content: Callable[[Attack], bytes]) -> Make:
    """Other content in some files."""

    def make(attack: Attack) -> None:
        for name in names:
            attack.file(name).write_bytes(content(attack))
        attack.reseal()

    return make


def _linked(name: str) -> Make:
    """A file or folder moved out and linked to."""

    def make(attack: Attack) -> None:
        file, target = attack.file(name), attack.outside / name.replace("/", "-")
        shutil.move(file, target)
        file.symlink_to(target)

    return make


def _pipes(*names: str) -> Make:
    """Pipes, for whose writers a reader waits."""

    def make(attack: Attack) -> None:
        for name in names:
            attack.file(name).unlink()
            os.mkfifo(attack.file(name))

    return make


def _holes(*names: str) -> Make:
    """Files of a tebibyte that take no room on the disk."""

    def make(attack: Attack) -> None:
        for name in names:
            with open(attack.file(name), "ab") as file:
                file.truncate(2**40)

    return make


def _pickle(attack: Attack) -> bytes:
    return pickle.dumps(_Code(attack.mark))


def _class_of_ones_own(attack: Attack) -> None:
    """Orbax's metadata name the classes that read them."""
    for file in [file for file in attack.file("NEWEST").rglob("*") if file.is_file()]:
        content = file.read_bytes()
        for known in (b"orbax.checkpoint._src.handlers", b"jax.Array", b"NamedSharding"):
            content = content.replace(known, b"evil.module")
        file.write_bytes(content)
    attack.reseal()


def _linked_picture(attack: Attack) -> None:
    """Drawing writes a picture: over what a link leads to?"""
    (attack.outside / "mine.png").write_text("mine")
    attack.file("figure.png").unlink(missing_ok=True)
    attack.file("figure.png").symlink_to(attack.outside / "mine.png")


def _array(shape: tuple[int, ...], content: list[bytes]) -> bytes:
    """An `.npz` file with one array, whatever its header says of it."""
    header, archive = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with (
        zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("vectors.npy", "w", force_zip64=True) as member,
    ):
        for piece in (header.getvalue(), *content):
            member.write(piece)
    return archive.getvalue()


def _a_checkpoint_larger_than_its_note(attack: Attack) -> None:
    """An array of zeros that is small on the disk, under a note that says it is the network's."""
    folder = attack.file("NEWEST")
    note = json.loads((folder / "note" / "metadata").read_text())
    shutil.rmtree(folder)
    manager = checkpoint._manager(folder.parent.resolve())
    state = ocp.args.StandardSave({"params": jnp.zeros(2**28)})
    manager.save(int(folder.name), args=ocp.args.Composite(state=state, note=ocp.args.JsonSave(note)))
    manager.wait_until_finished()
    manager.close()
    attack.reseal()


def _out_of_the_store(attack: Attack) -> None:
    """A sweep whose cells are elsewhere."""
    shutil.copytree(attack.run.path, attack.outside / "run")
    cells = [{"run": f"../{attack.outside.name}/run", "overrides": {}}]
    records.write_sweep(attack.store, records.Sweep("toy", attack.run.config(), cells))


def _types_of_arrays(attack: Attack) -> None:
    for i, kind in enumerate(("O", "U1000000000", "V1000000000", "datetime64")):
        packed = {"shape": [2], "dtype": kind, "values": ["a", "b"]}
        line = {"format": records.FORMAT, "run": "a", "overrides": {}, "result": attack.run.result()}
        (attack.store / f"toy{i}.jsonl").write_text(files.dumps(line | {"arrays": {"a": packed}}) + "\n")


def _markup(attack: Attack) -> None:
    """Whatever a result says ends on a page that is opened in a browser."""
    result, config = attack.run.result(), attack.run.config()
    result["status"] = config["name"] = config["data"]["name"] = _SCRIPT
    files.write_json(attack.file("config.json"), config)
    files.write_json(attack.file("result.json"), result | {"config": config})
    attack.file("table3.md").write_text(f"| a |\n| -- |\n| {_SCRIPT} |\n")
    attack.reseal()


def _claims(attack: Attack) -> None:
    """Claims that are pipes, links or no numbers, in a run that must be claimed to be mended."""
    folder = attack.run.claims
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.mkfifo(folder / "7")
    os.utime(folder / "7", (1, 1))
    for number in (7, 8, 9):
        (folder / f"{number}.released").symlink_to(attack.outside / str(number))
    for name in ("²", "007", "9" * 200):
        (folder / name).write_text("[" * 4000)
    attack.file("result.json").write_bytes(b"{")


def _huge_network(attack: Attack) -> None:
    """A config that asks for more than any machine has."""
    config = attack.run.config()
    config["model"]["width"] = 10**6
    files.write_json(attack.file("config.json"), config)
    attack.reseal()


_JSON = ["config.json", "result.json", "metrics.jsonl"]
_NOTES = [
    "NEWEST/note/metadata",
    "NEWEST/_CHECKPOINT_METADATA",
    "NEWEST/state/_METADATA",
    "NEWEST/state/_sharding",
]
ATTACKS: dict[str, Make] = {
    "pickled arrays": _written(["spectrum.npz"], lambda a: npz(vectors=np.array([_Code(a.mark)], object))),
    "pickles by other names": _written(["spectrum.npz", "attack.npz", "config.json"], _pickle),
    "pickles in a checkpoint": _written(_NOTES, _pickle),
    "classes named in a checkpoint": _class_of_ones_own,
    **{f"a link for {name}": _linked(name) for name in (*_JSON, "spectrum.npz", "checkpoints", "claims")},
    "a link in a checkpoint": _linked("NEWEST/note/metadata"),
    "a link for a checkpoint": _linked("NEWEST"),
    "a link for a picture": _linked_picture,
    "pipes": _pipes(*_JSON, "spectrum.npz"),
    "a pipe in a checkpoint": _pipes("NEWEST/note/metadata"),
    # More than a gibibyte that compresses to a mebibyte.
    "zeros by the gibibyte": _written(
        ["spectrum.npz"], lambda _: _array((5 * 2**26,), [bytes(2**24)] * (5 * 2**4))
    ),
    "a shape without end": _written(["spectrum.npz"], lambda _: _array((2**50,), [bytes(64)])),
    "files of a tebibyte": _holes("result.json", "metrics.jsonl", "attack.npz"),
    "a checkpoint of a tebibyte": _holes("NEWEST/state/manifest.ocdbt"),
    "JSON nested a million deep": _written(_JSON, lambda _: b'{"a":' * 10**6),
    "numbers of a million digits": _written(_JSON, lambda _: b'{"a": ' + b"9" * 10**6 + b"}\n"),
    "a checkpoint larger than its note": _a_checkpoint_larger_than_its_note,
    "cells outside the store": _out_of_the_store,
    "arrays of other types": _types_of_arrays,
    "claims that are none": _claims,
    "markup": _markup,
    "a network without end": _huge_network,
}
# Those that a reader may take for what they are: they are not refused, they do nothing.
_HARMLESS = {"classes named in a checkpoint", "a link for a picture", "a link for claims", "markup"}


# --- what becomes of them -----------------------------------------------------------------------------


def run(chapter: Chapter) -> None:
    """Every attack once, or a third of them, on copies of a sound run."""
    workdir = runs.undisturbed(chapter, "training").workdir
    (chapter.folder / "evil.py").write_text("raise SystemExit('imported')\n")
    paths = os.pathsep.join([str(chapter.folder), *sys.path])
    attacks = {}
    chosen = slice(chapter.seed % 3, None, 3) if chapter.seconds < SHORT else slice(None)
    for number, (name, make) in enumerate(list(ATTACKS.items())[chosen]):
        attack = Attack(runs.the_run(workdir), chapter.folder / str(number))
        make(attack)
        attacks[str(attack.store)] = name, attack, _content(attack.outside)
        chapter.count("attacks")
    command = ["-m", "tests.faults.visitor", workdir]
    halves = list(attacks)[::2], list(attacks)[1::2]  # drawing takes most of the time, on one core
    visitors = [start([*command, *half], PYTHONPATH=paths) for half in halves]
    lines = []
    for visitor in visitors:
        out, err = output(visitor)
        lines += [json.loads(line) for line in out.splitlines() if line.startswith('{"store"')]
    found = {line["store"]: line for line in lines}
    if not chapter.check(len(found) == 1 + len(attacks), f"a visitor did not come back: {err[-800:]!r}"):
        return
    sound = found.pop(str(workdir))
    read = set(sound["said"].values()) == {"ok"}
    chapter.check(read, f"the sound run is not read: {sound['said']} {err[-500:]}")
    grew = max(line["grew"] for line in found.values())
    chapter.measured["MiB that reading one took more than reading the sound one"] = grew >> 20
    longest = max(line["seconds"] for line in found.values())
    chapter.measured["longest that reading one took, s"] = round(longest, 1)
    for store, line in found.items():
        name, attack, before = attacks[store]
        refused = [said for said in line["said"].values() if said != "ok"]
        chapter.count("readers that refused one in a line", len(refused))
        chapter.check(not line["odd"], f"{name}: {line['odd']}")
        chapter.check(bool(refused) or name in _HARMLESS, f"{name}: nobody noticed")
        chapter.check(all("\n" not in said for said in refused), f"{name}: more than a line")
        chapter.check(not line["events"], f"{name}: {line['events']}")
        chapter.check(not attack.mark.exists(), f"{name}: code was run")
        chapter.check(not line["script"], f"{name}: a script is on the page")
        chapter.check(line["grew"] < MEMORY, f"{name}: the memory grew by {line['grew'] >> 20} MiB")
        changed = sorted(_content(attack.outside).items() ^ before.items())
        chapter.check(not changed, f"{name}: outside its folder {changed}")


def _content(folder: Path) -> dict[str, str]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes()[: 2**20].hex() for file in found}
