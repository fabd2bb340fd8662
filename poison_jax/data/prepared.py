"""Data sets that tensorflow-datasets has prepared, read without TensorFlow and kept decoded in a cache."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

import numpy as np

from poison_jax import cache, console
from poison_jax.arrays import read_npz
from poison_jax.errors import UserError

_CACHE_VERSION = 1
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")  # tfds writes `incomplete.*` until a version is whole
_ARRAYS = ("images", "labels", "ids", "class_names")


def read(name: str, split: str, data_dir: str | None) -> tuple[Path, dict[str, np.ndarray]]:
    """The folder of the newest whole version, and its `images`, `labels`, `ids` and `class_names`.

    Args:
        name: of a data set of tensorflow-datasets.
        split: `train` or `test`.
        data_dir: where tensorflow-datasets keeps its data; default `$TFDS_DATA_DIR`, else its own.

    Raises:
        UserError: not prepared, or it cannot be read; says how to prepare it.
    """
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(os.path.expanduser(chosen))  # stays as it is where there is no home directory
    folder = _newest(root / name)
    if folder is None:
        build = f"tfds build {name} --file_format=array_record --data_dir={root}"
        raise UserError(
            f"{name} is not prepared in {root}: set --config.data.dir or TFDS_DATA_DIR to where it is, "
            f"or run: pip install -e '.[prepare]' && {build}"
        )
    file = _cache_file(folder, name, split)
    if (arrays := _read_cache(file)) is None:
        with cache.lock(file):  # of many processes that start together one decodes
            if (arrays := _read_cache(file)) is None:
                if file.exists():
                    console.warn(f"{file} is damaged: decoded again")
                arrays = _decode(folder, name, split)
                _write_cache(file, arrays)
    return folder, arrays


def _newest(folder: Path) -> Path | None:
    """The folder of the highest version that is whole, 10.0.0 above 9.0.0; None where there is none."""
    versions = {
        tuple(map(int, match.groups())): file.parent
        for file in folder.glob("*/dataset_info.json")
        if (match := _VERSION.fullmatch(file.parent.name))
    }
    return versions[max(versions)] if versions else None


def _decode(folder: Path, name: str, split: str) -> dict[str, np.ndarray]:
    # Imported here: with a warm cache a run never needs it.
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        source = builder.as_data_source(split=split)
        examples = [source[i] for i in range(len(source))]
        has_ids = "id" in examples[0]
    except Exception as error:  # what tfds raises on bad files is not documented
        raise UserError(
            f"{name} in {folder} cannot be read ({str(error).splitlines()[0]}): prepare it again with "
            f"tfds build {name} --file_format=array_record --overwrite"
        ) from None
    if has_ids:  # b"train_00042" -> 42
        ids = np.array([int(example["id"].split(b"_")[-1]) for example in examples])
    else:
        ids = np.arange(len(examples))
    return {
        "images": np.stack([example["image"] for example in examples]),
        "labels": np.array([example["label"] for example in examples]),
        "ids": ids,
        "class_names": np.array(builder.info.features["label"].names),
    }


def _cache_file(folder: Path, name: str, split: str) -> Path:
    """A name that changes with the prepared files."""
    digest = hashlib.sha256(f"{_CACHE_VERSION} {folder.resolve()}".encode())
    for file in sorted(folder.iterdir()):
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return cache.folder() / f"{name}-{split}-{digest.hexdigest()[:12]}.npz"


def _read_cache(file: Path) -> dict[str, np.ndarray] | None:
    try:
        arrays = read_npz(file)  # zip members carry a CRC, checked here
        return {key: arrays[key] for key in _ARRAYS}
    except Exception:
        return None


def _write_cache(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Best effort: a full or read-only disk costs the next start some seconds, nothing else."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as temporary:
            try:
                np.savez(temporary, **arrays)
                os.replace(temporary.name, file)
            except BaseException:
                os.unlink(temporary.name)
                raise
    except OSError:
        pass
