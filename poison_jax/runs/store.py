"""Run directories: what a run leaves, written so that a kill at any moment loses nothing.

`<workdir>/<name>-<hash>/{config.json, inputs.json, metrics.jsonl, checkpoints/, spectrum.npz,
spectrum.json, attack.npz, ..., digests.json, result.json}`. Every file is complete or absent (written
beside, then renamed); `result.json` comes last, and its presence means done. JSON has a checksum in it, and
the digests seal what is there when a run is done: damage is noticed, set aside, and made again from what is
whole. Nothing here needs an ML package, and nothing is ever unpickled.

The hash is that of the run's identity, the keys that determine the trained parameters. What is looked at in
the trained network are *stages*, each with an identity of its own: a stage that is asked for with other keys
leaves a further pair of files, `spectrum-<hash>.npz` and `.json`, beside the first. A *view* is one choice
of an identity for every stage; `result.json` is that of the view asked for last, `view-<hash>.json` of each.
"""

import base64
import contextlib
import hashlib
import html
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from poison_jax import console
from poison_jax.arrays import read_npz
from poison_jax.errors import Damaged, UserError
from poison_jax.runs import files, lease
from poison_jax.runs.files import Json, plain

_SEALED = (".json", ".jsonl", ".npz")  # pictures and tables are drawn again from these
_VERIFY = "python -m poison_jax.verify --set_aside names all that is damaged, and makes way for it"


def digest(identity: Json) -> str:
    """Twelve hexadecimal digits that stand for an identity, dotted keys and their values in any order.

    Enough for 100,000 runs in one store: that two of them have one name is less likely than one in 10,000.

    >>> digest({"a": 1, "b": (2, 3)}) == digest({"b": [2, 3], "a": 1})
    True
    """
    text = json.dumps(plain(identity), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_name(name: str, identity: Json) -> str:
    """The name of the directory of the run that an identity determines."""
    return f"{name}-{digest(identity)}"


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's directory; one that cannot be looked into may be one."""
    try:
        return any((folder / name).exists() for name in ("config.json", "result.json", "metrics.jsonl"))
    except OSError:
        return True


class Run:
    """One run's directory."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._lease: lease.Lease | None = None

    def __repr__(self) -> str:
        """Where it is, and whether it is done."""
        return f"Run({str(self.path)!r}, {'done' if self.done else 'not done'})"

    def _repr_html_(self) -> str:
        """The pictures that lie in the run's directory, the run's own first, for a notebook."""
        pictures = []
        for file in sorted(self.path.glob("[!.]*.png"), key=lambda file: (file.stem != "figure", file.name)):
            with contextlib.suppress(OSError, Damaged):
                data, name = base64.b64encode(files.read(file)).decode(), html.escape(file.name)
                image = f'<img alt="{name}" style="max-width: 100%" src="data:image/png;base64,{data}">'
                pictures.append(f"<figure>{image}<figcaption>{name}</figcaption></figure>")
        without = "" if pictures else ": no pictures lie here, plots.draw(run) makes them"
        return f"<p><code>{html.escape(repr(self))}</code>{without}</p>" + "".join(pictures)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints of the training state are."""
        return self.path / "checkpoints"

    @property
    def claims(self) -> Path:
        """Where those who work on the run say so; see `lease`."""
        return self.path / "claims"

    def config(self) -> Json:
        """The config that the run was made with.

        Raises:
            Damaged: its file is, or is absent.
        """
        return files.read_json(self.path / "config.json")

    def result(self, view: str = "") -> Json | None:
        """What the run found, in the view asked for last or in this one; None while that is not done.

        Raises:
            Damaged: its file is.
        """
        if not self.done_with(view):
            return None
        return files.read_json(self.path / (f"view-{view}.json" if view else "result.json"))

    @property
    def done(self) -> bool:
        """Whether the run has its result."""
        return (self.path / "result.json").exists()

    def done_with(self, view: str = "") -> bool:
        """Whether the run has its result in a view."""
        return self.done and (not view or (self.path / f"view-{view}.json").exists())

    def finish(self, result: Json, view: str = "") -> None:
        """Keeps the result of a view, seals what is there, then writes `result.json`, the last file of a run.

        Args:
            result: its `stages` say which files hold the arrays of each stage, where there are several.
            view: identity of the stages; "" for a run without.
        """
        self.check_claim()
        if view:
            files.write_json(self.path / f"view-{view}.json", result)
        files.seal(self.path, self._sealed())
        files.write_json(self.path / "result.json", result)

    def damage(self) -> dict[str, str]:
        """The files of a finished run that are not as they were written, and why; of another run none."""
        found: dict[str, str] = {}
        if not self.done:
            return found
        try:
            self.result()
        except Damaged as error:
            found["result.json"] = error.reason
        try:
            return found | files.broken(self.path, self._sealed())
        except Damaged as error:
            return found | {files.SEAL: error.reason}

    def finished(self, view: str = "") -> Json | None:
        """The result of a view, if that is done and all as it was written; else None: the run must go on.

        What is damaged is set aside in `damaged/`, and the results of all views as well: so the run stands
        where its last checkpoint does, and makes again what is missing.

        Raises:
            Busy: something is damaged, and another process is working on the run.
        """
        if not self.done:
            return None
        if self.damage():
            with self.claim():
                damaged = self.damage()
                # Killed between any two of them, the run is one with damage, or one without a result.
                views = [file.name for file in self.path.glob("view-*.json")]
                others = [name for name in damaged if name not in ("result.json", files.SEAL)]
                for name in dict.fromkeys([*views, *others, "result.json", files.SEAL]):
                    self.set_aside(name, damaged.get(name, ""))
        result = self.result(view)
        if view and result is not None and result != self.result():  # the view asked for last
            with self.claim():
                files.write_json(self.path / "result.json", result)
        return result

    def pin_inputs(self, digest: str, logits: np.ndarray | None = None) -> None:
        """Ties the run to what it reads: data that changed under the same name are not mixed up.

        Args:
            digest: of all that must be the same to the bit.
            logits: `[N, K]` of a network that is code of the user's; None: there is none. They may differ by
                5 % of the largest: rounding is another on another device. Runs begun by older versions have
                none to compare with.

        Raises:
            UserError: the run was begun with other inputs.
        """
        file, inputs = self.path / "inputs.json", {"sha256": digest}
        if logits is not None:
            inputs["logits"] = plain(logits)
        if not file.exists():
            files.write_json(file, inputs)
            return
        kept = files.read_json(file)
        same = kept.get("sha256") == digest
        if logits is not None and "logits" in kept:
            same = same and _alike(kept["logits"], inputs["logits"])
        if not same:
            raise UserError(
                f"the data, the trigger or the network have changed since {self.path} was begun: "
                "choose another --workdir"
            )

    def append_metrics(self, row: Json) -> None:
        """Adds a line to `metrics.jsonl`; on the disk when this returns."""
        self.check_claim()
        files.append(self.path / "metrics.jsonl", files.dumps(row))

    def metrics(self) -> list[Json]:
        """The lines of `metrics.jsonl`; the last one is left out where it was cut off, or is being written.

        Raises:
            Damaged: another line is.
        """
        file = self.path / "metrics.jsonl"
        try:
            *lines, _ = self._read(file.name).split(b"\n")
        except FileNotFoundError:
            return []
        return [files.loads(line, f"{file}, line {i}") for i, line in enumerate(lines, 1)]

    def keep_metrics(self, rows: list[Json]) -> None:
        """Has `metrics.jsonl` hold these rows, as the checkpoint has them: later ones are written again."""
        file = self.path / "metrics.jsonl"
        try:
            sound = self.metrics()[: len(rows)] == plain(rows)
        except Damaged:
            sound = False
        if not sound:
            console.warn(f"{file} is damaged: written again from the checkpoint")
        files.write(file, "".join(files.dumps(row) + "\n" for row in rows).encode())

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Writes `<name>.npz`, compressed; of a finished run it is sealed with the new content."""
        self.check_claim()
        file = self.path / f"{name}.npz"
        with files.replacing(file) as stream:
            np.savez_compressed(stream, **arrays)
        if self.done:
            files.seal(self.path, [file], more=True)

    def arrays(self, name: str, view: str = "") -> dict[str, np.ndarray]:
        """Reads the arrays of a stage; plain arrays only, nothing is unpickled.

        Args:
            name: of the stage.
            view: "" is the one asked for last.

        Raises:
            Damaged: they are absent, not as they were written, or too large.
            UserError: the run has no result in that view.
        """
        if view and not self.done_with(view):
            raise UserError(f"{self.path} has no result of the view {view}: make it first")
        stages = (self.result(view) or {}).get("stages")
        file = f"{stages.get(name, name) if isinstance(stages, dict) else name}.npz"
        if not files.is_name(file):
            raise Damaged(self.path / "result.json", f"names {file!r} for the arrays of {name}")
        return self._arrays(file)

    def _arrays(self, file: str) -> dict[str, np.ndarray]:
        """Those of a file; raises as `arrays` does."""
        try:
            return read_npz(io.BytesIO(self._read(file)), most=files.MOST_OF_A_RUN)
        except Damaged:
            raise
        except Exception as error:
            if files.passing(error):
                raise
            raise Damaged(self.path / file, f"cannot be read ({error})") from None

    def stage_file(self, stage: str, identity: str) -> str:
        """The name, without suffix, of a stage's files: the plain one for the identity that came first."""
        try:
            plainly = files.read_json(self.path / f"{stage}.json").get("identity")
        except Damaged:  # absent, or to be made again
            plainly = identity
        return stage if plainly == identity else f"{stage}-{identity}"

    def findings(self, stage: str, identity: str) -> Json | None:
        """What a stage found: its `findings` and `seconds`; None where they must be made, or made again."""
        name = self.stage_file(stage, identity)
        file, arrays = f"{name}.json", f"{name}.npz"
        if not all((self.path / part).exists() for part in (file, arrays)):
            return None
        try:
            self._arrays(arrays)  # a run is sealed with what is there
        except Damaged as error:
            self.set_aside(arrays, error.reason)
            return None
        try:
            return files.read_json(self.path / file)
        except Damaged as error:
            self.set_aside(file, error.reason)
            return None

    def save_stage(
        self, stage: str, identity: str, arrays: dict[str, np.ndarray], findings: Json, seconds: float
    ) -> None:
        """Keeps what a stage found: its arrays as `.npz`, then the rest, with its identity, as `.json`."""
        name = self.stage_file(stage, identity)
        self.save_arrays(name, **arrays)
        kept = {"identity": identity, "findings": findings, "seconds": seconds}
        files.write_json(self.path / f"{name}.json", kept)
        if self.done:
            files.seal(self.path, [self.path / f"{name}.json"], more=True)

    def save_text(self, name: str, text: str) -> None:
        """Writes a text file, whole or not at all."""
        files.write(self.path / name, text.encode())

    def stage(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays of `<name>.npz`; made and saved first, with their `seconds`, if they are not."""
        if (self.path / f"{name}.npz").exists():
            try:
                return self.arrays(name)
            except Damaged as error:
                self.set_aside(f"{name}.npz", error.reason)
        began = time.monotonic()
        arrays = make()
        self.save_arrays(name, **arrays, seconds=np.array(time.monotonic() - began))
        return self.arrays(name)

    @contextlib.contextmanager
    def claim(self, *, patience: float = lease.PATIENCE) -> Iterator[None]:
        """Keeps other processes off the run, on whichever machine they are; see `lease`.

        Should another take over all the same (this process slept for longer than `patience` seconds), then
        whatever is to be written next raises `Busy`.

        Raises:
            Busy: another process is working on the run.
            UserError: a folder in the run leads out of it.
        """
        for folder in (self.claims, self.checkpoints, self.path / "damaged"):
            files.within(folder)
        with lease.hold(self.claims, patience=patience) as self._lease:
            for left in self.path.glob(f".*{files.TEMPORARY}"):  # by a process that was killed
                left.unlink(missing_ok=True)
            try:
                yield
            finally:
                self._lease = None

    @property
    def claimed(self) -> bool:
        """Whether some process is working on the run."""
        return lease.held(self.claims)

    def check_claim(self) -> None:
        """Raises `Busy` if another process has taken over the run from this one, that had claimed it."""
        if self._lease is not None:
            self._lease.check()

    def _sealed(self) -> list[Path]:
        """The files that a seal is about."""
        return [
            file
            for file in self.path.iterdir()
            if file.suffix in _SEALED and file.name != "result.json" and not file.name.startswith(".")
        ]

    def _read(self, name: str) -> bytes:
        """The content of a file, of a finished run as it was sealed."""
        file, seal = self.path / name, self.path / files.SEAL
        content = files.read(file, most=files.MOST_OF_A_RUN)
        if self.done and seal.exists():
            digest = files.read_json(seal).get(name)
            if digest not in (None, hashlib.sha256(content).hexdigest()):
                raise Damaged(file, "is not as it was written", _VERIFY)
        return content

    def set_aside(self, name: str, reason: str = "") -> None:
        """Moves a file to `damaged/`, for whoever wants to look; says why, if there is a reason."""
        aside = self.path / "damaged"
        aside.mkdir(exist_ok=True)
        if (self.path / name).is_symlink() or (self.path / name).exists():
            taken = len(list(aside.glob(f"{name}*")))
            shutil.move(self.path / name, aside / (f"{name}.{taken}" if taken else name))
        if reason:
            console.warn(f"{self.path / name} {reason}: set aside in {aside}, made again")


def _alike(kept: object, found: object) -> bool:
    """Whether two arrays are the same up to 5 % of the largest number; null is NaN."""
    try:
        ours, theirs = (np.asarray(values, float) for values in (found, kept))
    except (TypeError, ValueError):
        return False
    most = np.max(np.abs(ours), initial=0, where=np.isfinite(ours))
    return ours.shape == theirs.shape and np.allclose(theirs, ours, rtol=0, atol=most / 20, equal_nan=True)


def open_run(workdir: str | os.PathLike, name: str, config: Json, identity: Json) -> Run:
    """The directory of the run that an identity determines, made if it is not there.

    Args:
        workdir: the store.
        name: what the directory's name begins with.
        config: the whole config, kept for whoever looks at the run.
        identity: the part of it that determines the outcome, dotted keys and their values.

    Raises:
        Busy: its config is damaged, and another process is working on it.
        OSError: the disk is full or read-only.
    """
    run = Run(Path(workdir) / run_name(name, identity))
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        run.config()
    except Damaged as error:  # the folder's name says which config it is of
        if (run.path / "config.json").exists():
            with run.claim():
                run.set_aside("config.json", error.reason)
        files.write_json(run.path / "config.json", plain(config))
    return run
