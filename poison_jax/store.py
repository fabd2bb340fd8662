"""What a run leaves behind: a directory, written so that a kill at any moment loses nothing.

`<workdir>/<name>-<hash>/{config.json, inputs.json, metrics.jsonl, checkpoints/, spectrum.npz,
examples.npz, features.npz, ..., result.json}`. Every file is complete or absent (written beside, then
renamed); `result.json` comes last, and its presence means done. Nothing here needs an ML package, and
nothing is ever unpickled.
"""

import contextlib
import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from poison_jax import lease
from poison_jax.arrays import read_npz
from poison_jax.errors import UserError

Json = dict[str, Any]
TEMPORARY = ".tmp"  # ends the name of a file that is being written


def config_hash(config: Json, not_identity: tuple[str, ...] = ()) -> str:
    """Eight hexadecimal digits that name a config, `not_identity` (dotted keys) left out.

    >>> config_hash({"a": {"b": 1, "c": 2}}, ("a.c",)) == config_hash({"a": {"b": 1, "c": 3}}, ("a.c",))
    True
    """
    text = json.dumps(_identity(config, not_identity), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(name: str, config: Json, not_identity: tuple[str, ...] = ()) -> str:
    """The name of the directory of a config's run."""
    return f"{name}-{config_hash(config, not_identity)}"


class Run:
    """One run's directory."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._lease: lease.Lease | None = None

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints of the training state are."""
        return self.path / "checkpoints"

    def config(self) -> Json:
        """The config that the run was made with."""
        return self.read_json("config.json")

    def result(self) -> Json | None:
        """What the run found; None while it is not done."""
        return self.read_json("result.json") if self.done else None

    @property
    def done(self) -> bool:
        """Whether the run has its result."""
        return (self.path / "result.json").exists()

    def finish(self, result: Json) -> None:
        """Writes `result.json`, the last file of a run."""
        self._check_claim()
        write_json(self.path / "result.json", result)

    def pin_inputs(self, digest: str) -> None:
        """Ties the run to what it reads: data that changed under the same name are not mixed up.

        Raises:
            UserError: the run was begun with other inputs.
        """
        file = self.path / "inputs.json"
        if not file.exists():
            write_json(file, {"sha256": digest})
        elif read_json(file).get("sha256") != digest:
            raise UserError(
                f"the data or the trigger have changed since {self.path} was begun: choose another --workdir"
            )

    def append_metrics(self, row: Json) -> None:
        """Adds a line to `metrics.jsonl`; on the disk when this returns."""
        self._check_claim()
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(plain(row)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def metrics(self) -> list[Json]:
        """The lines of `metrics.jsonl`; one that was cut off in the middle is left out."""
        try:
            lines = (self.path / "metrics.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        rows = []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def keep_metrics(self, epochs: int) -> None:
        """Drops the lines of later epochs than the first `epochs`: a resumed run writes them again."""
        kept = [row for row in self.metrics() if row["epoch"] <= epochs]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write(self.path / "metrics.jsonl", text.encode())

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Writes `<name>.npz`, compressed."""
        self._check_claim()
        with replacing(self.path / f"{name}.npz") as stream:
            np.savez_compressed(stream, **arrays)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Reads `<name>.npz`; plain arrays only, nothing is unpickled."""
        file = self.path / f"{name}.npz"
        try:
            return read_npz(file)
        except Exception as error:
            raise UserError(f"{file} cannot be read: {error}") from None

    def save_json(self, name: str, value: Json) -> None:
        """Writes a JSON file, whole or not at all."""
        write_json(self.path / name, value)

    def read_json(self, name: str) -> Json:
        """Reads a JSON file.

        Raises:
            UserError: it is absent or damaged.
        """
        return read_json(self.path / name)

    def save_text(self, name: str, text: str) -> None:
        """Writes a text file, whole or not at all."""
        write(self.path / name, text.encode())

    def stage(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays of `<name>.npz`; made and saved first, with their `seconds`, if they are not there."""
        if not (self.path / f"{name}.npz").exists():
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
        """
        with lease.hold(self._claims, patience=patience) as self._lease:
            for left in self.path.glob(f".*{TEMPORARY}"):  # by a process that was killed
                left.unlink(missing_ok=True)
            try:
                yield
            finally:
                self._lease = None

    @property
    def claimed(self) -> bool:
        """Whether some process is working on the run."""
        return lease.held(self._claims)

    @property
    def deaths(self) -> int:
        """How many processes have died while they were working on the run."""
        return lease.deaths(self._claims)

    def forgive(self) -> None:
        """Forgets the processes that have died."""
        lease.forgive(self._claims)

    @property
    def _claims(self) -> Path:
        return self.path / "claims"

    def _check_claim(self) -> None:
        if self._lease is not None:
            self._lease.check()


def open_run(workdir: str | os.PathLike, name: str, config: Json, not_identity: tuple[str, ...] = ()) -> Run:
    """The directory of a config's run, made if it is not there.

    Raises:
        UserError: the directory holds the run of another config, or a damaged one.
        OSError: the disk is full or read-only.
    """
    config = plain(config)
    run = Run(Path(workdir) / run_name(name, config, not_identity))
    run.path.mkdir(parents=True, exist_ok=True)
    # Looked at first: another process that makes the same run now writes config.json before anything else.
    begun = any(run.path.glob("[!.]*.json*")) or run.checkpoints.exists()
    if (run.path / "config.json").exists():
        if _identity(run.config(), not_identity) != _identity(config, not_identity):
            raise UserError(
                f"{run.path} holds the run of a different config: choose another --workdir or name"
            )
    elif begun:
        raise UserError(f"{run.path} holds files of a run but no config.json: move it away")
    else:
        write_json(run.path / "config.json", config)
    return run


def _identity(config: Json, not_identity: tuple[str, ...]) -> Json:
    config = json.loads(json.dumps(plain(config)))
    for key in not_identity:
        *parents, last = key.split(".")
        group = config
        for parent in parents:
            group = group.get(parent, {})
        group.pop(last, None)
    return config


def plain(value: Any) -> Any:
    """A value as JSON has it: a number that is not finite becomes null, a tuple a list."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_json(file: Path) -> Json:
    """The object that a JSON file holds.

    Raises:
        UserError: it is absent, damaged or no object.
    """
    try:
        value = json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}): move it away") from None
    if not isinstance(value, dict):
        raise UserError(f"{file} is not a JSON object: move it away")
    return value


def write_json(file: Path, value: Json) -> None:
    """Writes a JSON file, whole or not at all."""
    write(file, (json.dumps(plain(value), indent=2) + "\n").encode())


def write(file: Path, content: bytes) -> None:
    """Writes a file, whole or not at all; on the disk when this returns."""
    with replacing(file) as stream:
        stream.write(content)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """A stream whose content takes the place of `file` when all of it is on the disk.

    Of a name of its own: several processes may write the same file at once, and the last one wins.
    """
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
