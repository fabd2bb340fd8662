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
from tests.faults.chapter import Chapter, start
from tests.faults.runs import COMMANDS, output

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

    def __init__(self, sound: Path, store: Path, outside: Path, mark: Path):
        shutil.copytree(sound, store / sound.name)
        self.store, self.run, self.outside, self.mark = store, Run(store / sound.name), outside, mark

    def file(self, name: str) -> Path:
        """A file of the run."""
        return self.run.path / name

    def newest(self) -> Path:
        """The newest checkpoint."""
        return max(self.run.checkpoints.glob("[0-9]*"), key=lambda step: int(step.name))

    def reseal(self) -> None:
        """Whoever can write a file can write its digest."""
        files.seal(self.run.path, self.run._sealed())
        files.seal(self.newest(), self.newest().rglob("*"))

    def link(self, name: str) -> None:
        """A file or folder of the run, moved out and linked to."""
        target = self.outside / name.replace("/", "-")
        shutil.move(self.file(name), target)
        self.file(name).symlink_to(target)


# --- attacks ------------------------------------------------------------------------------------------


def _pickled_arrays(attack: Attack) -> None:
    np.savez(attack.file("spectrum.npz"), vectors=np.array([_Code(attack.mark)], object))
    attack.reseal()


def _pickle_by_another_name(attack: Attack) -> None:
    for name in ("spectrum.npz", "attack.npz", "config.json"):
        attack.file(name).write_bytes(pickle.dumps(_Code(attack.mark)))
    attack.reseal()


def _pickle_in_the_checkpoint(attack: Attack) -> None:
    for file in [file for file in attack.newest().rglob("*") if file.is_file()]:
        if file.name in ("metadata", "_METADATA", "_sharding"):
            file.write_bytes(pickle.dumps(_Code(attack.mark)))
    attack.reseal()


def _class_of_ones_own(attack: Attack) -> None:
    """Orbax's metadata name the classes that read them."""
    for file in [file for file in attack.newest().rglob("*") if file.is_file()]:
        content = file.read_bytes()
        for known in (b"orbax.checkpoint._src.handlers", b"jax.Array", b"NamedSharding"):
            content = content.replace(known, b"evil.module")
        file.write_bytes(content)
    attack.reseal()


def _linked(name: str) -> Callable[[Attack], None]:
    return lambda attack: attack.link(name)


def _linked_checkpoint_file(attack: Attack) -> None:
    (file,) = attack.newest().glob("note/metadata")
    attack.link(str(file.relative_to(attack.run.path)))


def _linked_checkpoint(attack: Attack) -> None:
    attack.link(f"checkpoints/{attack.newest().name}")


def _linked_picture(attack: Attack) -> None:
    """Drawing writes a picture: over what a link leads to?"""
    (attack.outside / "mine.png").write_text("mine")
    attack.file("figure.png").unlink(missing_ok=True)
    attack.file("figure.png").symlink_to(attack.outside / "mine.png")


def _pipes(attack: Attack) -> None:
    for name in ("config.json", "result.json", "metrics.jsonl", "spectrum.npz"):
        attack.file(name).unlink()
        os.mkfifo(attack.file(name))


def _pipe_in_the_checkpoint(attack: Attack) -> None:
    file = attack.newest() / "note" / "metadata"
    file.unlink()
    os.mkfifo(file)


def _zeros_by_the_gibibyte(attack: Attack) -> None:
    """More than a gibibyte that compresses to a mebibyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (5 * 2**26,)}
    )
    with (
        zipfile.ZipFile(attack.file("spectrum.npz"), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("vectors.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(5 * 2**4):
            member.write(bytes(2**24))
    attack.reseal()


def _a_shape_without_end(attack: Attack) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(attack.file("spectrum.npz"), "w") as archive:
        archive.writestr("vectors.npy", header.getvalue() + bytes(64))
    attack.reseal()


def _holes(attack: Attack) -> None:
    """Files of a tebibyte that take no room on the disk."""
    for name in ("result.json", "metrics.jsonl", "attack.npz"):
        with open(attack.file(name), "ab") as file:
            file.truncate(2**40)


def _holes_in_the_checkpoint(attack: Attack) -> None:
    with open(attack.newest() / "state" / "manifest.ocdbt", "ab") as file:
        file.truncate(2**40)


def _deep(attack: Attack) -> None:
    for name in ("config.json", "result.json"):
        attack.file(name).write_text('{"a":' * 10**6)
    attack.file("metrics.jsonl").write_text("[" * 10**6 + "\n")


def _long_numbers(attack: Attack) -> None:
    for name in ("config.json", "result.json", "metrics.jsonl"):
        attack.file(name).write_text('{"a": ' + "9" * 10**6 + "}\n")


def _a_checkpoint_larger_than_its_note(attack: Attack) -> None:
    """An array of zeros that is small on the disk, under a note that says it is the network's."""
    folder = attack.newest()
    note = json.loads((folder / "note" / "metadata").read_text())
    shutil.rmtree(folder)
    manager = checkpoint._manager(folder.parent.resolve())
    state = {"params": jnp.zeros(2**28)}
    manager.save(
        int(folder.name),
        args=ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(note)),
    )
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
    result["config"] = config
    files.write_json(attack.file("config.json"), config)
    files.write_json(attack.file("result.json"), result)
    attack.file("table3.md").write_text(f"| a |\n| -- |\n| {_SCRIPT} |\n")
    attack.reseal()


def _huge_network(attack: Attack) -> None:
    """A config that asks for more than any machine has."""
    config = attack.run.config()
    config["model"]["width"] = 10**6
    files.write_json(attack.file("config.json"), config)
    attack.reseal()


ATTACKS: dict[str, Callable[[Attack], None]] = {
    "pickled arrays": _pickled_arrays,
    "pickles by other names": _pickle_by_another_name,
    "pickles in a checkpoint": _pickle_in_the_checkpoint,
    "classes named in a checkpoint": _class_of_ones_own,
    **{
        f"a link for {name}": _linked(name)
        for name in ("config.json", "result.json", "metrics.jsonl", "spectrum.npz", "checkpoints", "claims")
    },
    "a link in a checkpoint": _linked_checkpoint_file,
    "a link for a checkpoint": _linked_checkpoint,
    "a link for a picture": _linked_picture,
    "pipes": _pipes,
    "a pipe in a checkpoint": _pipe_in_the_checkpoint,
    "zeros by the gibibyte": _zeros_by_the_gibibyte,
    "a shape without end": _a_shape_without_end,
    "files of a tebibyte": _holes,
    "a checkpoint of a tebibyte": _holes_in_the_checkpoint,
    "JSON nested a million deep": _deep,
    "numbers of a million digits": _long_numbers,
    "a checkpoint larger than its note": _a_checkpoint_larger_than_its_note,
    "cells outside the store": _out_of_the_store,
    "arrays of other types": _types_of_arrays,
    "markup": _markup,
    "a network without end": _huge_network,
}
# Those that a reader may take for what they are: they are not refused, they do nothing.
_HARMLESS = {"classes named in a checkpoint", "a link for a picture", "a link for claims", "markup"}


# --- what becomes of them -----------------------------------------------------------------------------


def run(chapter: Chapter) -> None:
    """Every attack once, on copies of a sound run."""
    workdir = chapter.folder / "sound"
    process = start(["main.py", f"--workdir={workdir}", *COMMANDS["training"]])
    _, err = output(process)
    if process.returncode:
        raise RuntimeError(f"the undisturbed run failed: {err}")
    (sound,) = (folder for folder in workdir.iterdir() if (folder / "checkpoints").exists())
    attacks = {}
    for number, (name, make) in enumerate(ATTACKS.items()):
        outside = chapter.folder / f"outside-{number}"
        outside.mkdir()
        attack = Attack(sound, chapter.folder / f"store-{number}", outside, chapter.folder / f"mark-{number}")
        make(attack)
        attacks[name] = attack, _content(outside)
        chapter.count("attacks")
    (chapter.folder / "evil.py").write_text("raise SystemExit('imported')\n")
    paths = os.pathsep.join([str(chapter.folder), *sys.path])
    visitor = start(
        ["-m", "tests.faults.visitor", workdir, *(attack.store for attack, _ in attacks.values())],
        PYTHONPATH=paths,
    )
    out, err = output(visitor, 900)
    lines = [json.loads(line) for line in out.splitlines() if line.startswith('{"store"')]
    if not chapter.check(len(lines) == 1 + len(attacks), f"the visitor did not come back: {err[-800:]!r}"):
        return
    first, *others = lines
    chapter.check(
        set(first["said"].values()) == {"ok"}, f"the sound run is not read: {first['said']} {err[-500:]}"
    )
    grew = max(line["grew"] for line in others)
    chapter.measured["MiB that reading one took more than reading the sound one"] = grew >> 20
    chapter.measured["longest that reading one took, s"] = round(max(line["seconds"] for line in others), 1)
    for (name, (attack, before)), line in zip(attacks.items(), others, strict=True):
        _judge(chapter, name, attack, before, line)


def _judge(chapter: Chapter, name: str, attack: Attack, before: dict[str, str], line: dict) -> None:
    refused = [said for said in line["said"].values() if said != "ok"]
    chapter.count("readers that refused one in a line", len(refused))
    chapter.check(not line["odd"], f"{name}: {line['odd']}")
    chapter.check(bool(refused) or name in _HARMLESS, f"{name}: nobody noticed")
    chapter.check(all("\n" not in said for said in refused), f"{name}: more than a line")
    chapter.check(not line["events"], f"{name}: {line['events']}")
    chapter.check(not attack.mark.exists(), f"{name}: code was run")
    chapter.check(not line["script"], f"{name}: a script is on the page")
    chapter.check(line["grew"] < MEMORY, f"{name}: the memory grew by {line['grew'] >> 20} MiB")
    after = _content(attack.outside)
    chapter.check(after == before, f"{name}: outside its folder {sorted(after.items() ^ before.items())}")


def _content(folder: Path) -> dict[str, str]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes()[: 2**20].hex() for file in found}
