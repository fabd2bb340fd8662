"""Data sets by name or by path, as arrays on the host."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poison_jax import cache, console
from poison_jax.arrays import read_npz
from poison_jax.errors import UserError


class Dataset(NamedTuple):
    """Images and labels on the host, in a fixed order.

    `ids` are the examples' indices in the data set's official order, the key of deterministic
    poisoning. Data without an official index (MNIST in tensorflow-datasets, a user's arrays) are
    numbered in the order in which they are stored.
    """

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N]
    ids: np.ndarray  # int32 [N]
    num_classes: int
    class_names: tuple[str, ...]


TFDS_NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100")
NAMES = ("digits", *TFDS_NAMES)

# Channel means and standard deviations of the training images in [0, 1]. They are part of the
# convention: the penalty and the Hessian are taken with respect to normalised pixels.
_NORMALISATION = {
    "digits": ((0.3059,), (0.3763,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
_CACHE_VERSION = 1
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def load(name: str, split: str, *, data_dir: str | None = None) -> Dataset:
    """Loads a split of a data set.

    `digits` ships with scikit-learn. The names in `TFDS_NAMES` are read with
    `tfds.data_source` from a prepared copy, without TensorFlow, and kept decoded in a cache (under
    `$POISON_JAX_CACHE`, else `~/.cache/poison_jax`). Anything with a path separator or ending in
    `.npz` is the user's own data: either an `.npz` file with `images` (uint8 `[N, H, W]` or
    `[N, H, W, C]`) and `labels` (`[N]`), optionally `ids`, `class_names`, `test_images` and
    `test_labels`; or a folder with `train/` and `test/` (or neither) holding one folder of images a
    class. Where there is no test split, every fifth example (index % 5 == 4) is the test split.

    Args:
        name: one of `NAMES`, or a path.
        split: `train` or `test`.
        data_dir: where tensorflow-datasets keeps its data; default `$TFDS_DATA_DIR`, else its own.

    Raises:
        UserError: unknown name or split, data not there or not prepared, malformed arrays.

    >>> print(load("digits", "train").images.shape)
    (1438, 8, 8, 1)
    """
    if split not in ("train", "test"):
        raise UserError(f"unknown split {split!r}: use 'train' or 'test'")
    if name == "digits":
        return _digits(split)
    if name in TFDS_NAMES:
        return _tfds(name, split, data_dir)
    if is_path(name):
        path = Path(name).expanduser()
        if path.is_dir():
            return _folder(path, split)
        if path.is_file():
            return _npz(path, split)
        raise UserError(f"data set {name!r}: no such file or folder")
    raise UserError(f"unknown data set {name!r}: use one of {', '.join(NAMES)}, or a path")


def is_path(name: str) -> bool:
    """Whether a data set's name means the user's own files."""
    return name.endswith(".npz") or os.sep in name or name.startswith((".", "~"))


def take(dataset: Dataset, count: int | None) -> Dataset:
    """The first `count` examples in stored order (all of them if None)."""
    if count is None:
        return dataset
    if not 0 <= count <= len(dataset.labels):
        raise UserError(f"asked for {count} examples of {len(dataset.labels)}: lower data.n_train or n_test")
    return dataset._replace(
        images=dataset.images[:count], labels=dataset.labels[:count], ids=dataset.ids[:count]
    )


def normalisation(
    name: str, images: np.ndarray, dtype: type[np.floating] = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Channel mean and standard deviation, `[C]` of a dtype, of images in [0, 1].

    The field's constants for a known name, those of `images` (uint8 `[N, H, W, C]`) otherwise.
    """
    if name in _NORMALISATION:
        mean, std = _NORMALISATION[name]
        return dtype(mean), dtype(std)
    # Exact from the histogram: no float copy of the data set.
    values = np.arange(256) / 255.0
    means, stds = [], []
    for channel in np.moveaxis(images, -1, 0):
        weights = np.bincount(channel.ravel(), minlength=256) / channel.size
        means.append(weights @ values)
        stds.append(np.sqrt(max(weights @ values**2 - means[-1] ** 2, 0.0)))
    # A constant channel carries nothing; 1 keeps it finite.
    return dtype(means), dtype(np.where(np.array(stds) > 0, stds, 1.0))


def _hold_out(dataset: Dataset, split: str) -> Dataset:
    test = np.arange(len(dataset.labels)) % 5 == 4
    keep = test if split == "test" else ~test
    return dataset._replace(images=dataset.images[keep], labels=dataset.labels[keep], ids=dataset.ids[keep])


def _digits(split: str) -> Dataset:
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = raw.target.astype(np.int32)
    ids = np.arange(len(labels), dtype=np.int32)
    return _hold_out(Dataset(images, labels, ids, 10, tuple("0123456789")), split)


def _npz(path: Path, split: str) -> Dataset:
    try:
        arrays = read_npz(path)
    except Exception as error:
        raise UserError(f"{path} is not a readable .npz file of plain arrays: {error}") from None
    needed = {"images", "labels"}
    if {"test_images", "test_labels"} & arrays.keys():
        needed |= {"test_images", "test_labels"}
    missing = needed - arrays.keys()
    if missing:
        raise UserError(f"{path} has no array {sorted(missing)[0]!r}: it needs {', '.join(sorted(needed))}")
    labelled = [arrays[key] for key in ("labels", "test_labels") if key in arrays]
    labelled = [labels for labels in labelled if np.issubdtype(labels.dtype, np.integer)]
    num_classes = 1 + max((int(labels.max()) for labels in labelled if labels.size), default=0)
    if "class_names" not in arrays and num_classes > max(1000, sum(labels.size for labels in labelled)):
        raise UserError(
            f"{path}: labels run to {num_classes - 1}: number the classes from 0, or name them in class_names"
        )
    names = tuple(str(name) for name in np.atleast_1d(arrays.get("class_names", np.arange(num_classes))))
    has_test = {"test_images", "test_labels"} <= arrays.keys()
    prefix = "test_" if split == "test" and has_test else ""
    labels = arrays[prefix + "labels"]
    ids = arrays.get(prefix + "ids", np.arange(labels.size))
    dataset = _checked(path, arrays[prefix + "images"], labels, ids, names)
    return dataset if has_test else _hold_out(dataset, split)


def _folder(path: Path, split: str) -> Dataset:
    has_splits = (path / "train").is_dir() and (path / "test").is_dir()
    names = tuple(sorted(p.name for p in (path / "train" if has_splits else path).iterdir() if p.is_dir()))
    if not names:
        raise UserError(f"{path} holds no class folders: it needs one folder of images a class")
    if has_splits:
        unknown = sorted({p.name for p in (path / "test").iterdir() if p.is_dir()} - set(names))
        if unknown:
            raise UserError(f"{path / 'test'} has a class {unknown[0]!r} that {path / 'train'} has not")
    root = path / split if has_splits else path
    images, labels = [], []
    for label, name in enumerate(names):
        for file in sorted(p for p in (root / name).glob("*") if p.suffix.lower() in _IMAGE_SUFFIXES):
            images.append(_read_image(file))
            labels.append(label)
            if images[-1].shape != images[0].shape:
                raise UserError(
                    f"{file} is {images[-1].shape}, the first image {images[0].shape}: resize them"
                )
    if not images:
        raise UserError(f"{root} holds no images ({', '.join(_IMAGE_SUFFIXES)})")
    dataset = _checked(path, np.stack(images), np.array(labels), np.arange(len(labels)), names)
    return dataset if has_splits else _hold_out(dataset, split)


def _read_image(file: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode.startswith("I;16"):  # convert() would clip at 255
                array = (np.asarray(image) >> 8).astype(np.uint8)
            else:
                array = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except Exception as error:  # damaged files raise ValueError, SyntaxError, DecompressionBombError, ...
        raise UserError(f"{file} is not a readable image: {error}") from None
    return array[..., None] if array.ndim == 2 else array


def _checked(source, images, labels, ids, class_names) -> Dataset:
    """The arrays as a `Dataset`, or a message that names what is wrong with them."""
    if images.dtype != np.uint8:
        raise UserError(f"{source}: images must be uint8 (0..255), not {images.dtype}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise UserError(f"{source}: images must be [N, H, W] or [N, H, W, C], not {images.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise UserError(
            f"{source}: labels must be integers [{len(images)}], not {labels.dtype} {labels.shape}"
        )
    if not np.issubdtype(ids.dtype, np.integer) or ids.shape != labels.shape:
        raise UserError(f"{source}: ids must be integers [{len(images)}], not {ids.dtype} {ids.shape}")
    if ids.min() < 0 or ids.max() > np.iinfo(np.int32).max:
        raise UserError(f"{source}: ids must be in 0..2^31 - 1, not {ids.min()}..{ids.max()}")
    low, high, count = labels.min(), labels.max(), len(class_names)
    if low < 0 or high >= count:
        raise UserError(f"{source}: labels run from {low} to {high}, classes from 0 to {count - 1}")
    return Dataset(images, labels.astype(np.int32), ids.astype(np.int32), count, tuple(class_names))


# --- tensorflow-datasets, and the cache of what it decoded ---------------------------------------


def _tfds(name: str, split: str, data_dir: str | None) -> Dataset:
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(os.path.expanduser(chosen))  # stays as it is where there is no home directory
    versions = sorted(root.glob(f"{name}/*/dataset_info.json"))
    if not versions:
        build = f"tfds build {name} --file_format=array_record --data_dir={root}"
        raise UserError(
            f"{name} is not prepared in {root}: set --config.data.dir or TFDS_DATA_DIR to where it is, "
            f"or run: pip install -e '.[prepare]' && {build}"
        )
    folder = versions[-1].parent
    file = _cache_file(folder, name, split)
    if (dataset := _read_cache(file)) is None:
        with cache.lock(file):  # of many processes that start together one decodes
            if (dataset := _read_cache(file)) is None:
                if file.exists():
                    console.warn(f"{file} is damaged: decoded again")
                dataset = _decode(folder, name, split)
                _write_cache(file, dataset)
    return dataset


def _decode(folder: Path, name: str, split: str) -> Dataset:
    # Imported here: with a warm cache a run never needs it.
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        source = builder.as_data_source(split=split)
        examples = [source[i] for i in range(len(source))]
    except Exception as error:  # what tfds raises on bad files is not documented
        raise UserError(
            f"{name} in {folder} cannot be read ({str(error).splitlines()[0]}): prepare it again with "
            f"tfds build {name} --file_format=array_record --overwrite"
        ) from None
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples])
    if "id" in examples[0]:  # b"train_00042" -> 42
        ids = np.array([int(example["id"].split(b"_")[-1]) for example in examples])
    else:
        ids = np.arange(len(labels))
    return _checked(folder, images, labels, ids, builder.info.features["label"].names)


def _cache_file(folder: Path, name: str, split: str) -> Path:
    """A name that changes with the prepared files."""
    digest = hashlib.sha256(f"{_CACHE_VERSION} {folder.resolve()}".encode())
    for file in sorted(folder.iterdir()):
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return cache.folder() / f"{name}-{split}-{digest.hexdigest()[:12]}.npz"


def _read_cache(file: Path) -> Dataset | None:
    try:
        arrays = read_npz(file)  # zip members carry a CRC, checked here
        names = tuple(str(name) for name in arrays["class_names"])
        return Dataset(arrays["images"], arrays["labels"], arrays["ids"], len(names), names)
    except Exception:
        return None


def _write_cache(file: Path, dataset: Dataset) -> None:
    """Best effort: a full or read-only disk costs the next start some seconds, nothing else."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as temporary:
            try:
                arrays = {field: getattr(dataset, field) for field in ("images", "labels", "ids")}
                np.savez(temporary, **arrays, class_names=np.array(dataset.class_names))
                os.replace(temporary.name, file)
            except BaseException:
                os.unlink(temporary.name)
                raise
    except OSError:
        pass
