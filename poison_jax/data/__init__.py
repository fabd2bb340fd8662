"""Data sets by name or by path, as arrays on the host."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poison_jax.arrays import read_npz
from poison_jax.data import folders, prepared
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
    "digits": ((0.3052,), (0.3758,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
_SEED = 42  # of who is held out, and of the order of a folder's pictures: part of what such data are


def load(name: str, split: str, *, data_dir: str | None = None) -> Dataset:
    """Loads a split of a data set.

    `digits` ships with scikit-learn. The names in `TFDS_NAMES` are read with
    `tfds.data_source` from a prepared copy, without TensorFlow, and kept decoded in a cache (under
    `$POISON_JAX_CACHE`, else `~/.cache/poison_jax`). Anything with a path separator or ending in
    `.npz` is the user's own data:

    - an `.npz` file with `images` (uint8 `[N, H, W]` or `[N, H, W, C]`) and `labels` (`[N]`, numbers from 0
      of which none is left out), optionally `ids`, `class_names` (then classes may be without examples),
      `test_images` and `test_labels`;
    - a folder with `train/` and `test/` (or neither) holding one folder of pictures a class, classes in
      natural order, in any format that Pillow reads. Hidden files and folders are skipped. A picture is
      turned as its EXIF orientation says; 16-bit values are divided by 65535; what is transparent is laid
      on black. `ids` number the pictures class by class, in the order of their names; they are stored in a
      mixed order, the same in every run.

    Where there is no test split a fifth of each class is held out, drawn with a fixed seed: the same
    examples in every run, whatever the order of the labels.

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
        folder, arrays = prepared.read(name, split, data_dir)
        names = [str(name) for name in arrays["class_names"]]
        return _checked(folder, arrays["images"], arrays["labels"], arrays["ids"], names)
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


def fingerprint(name: str) -> tuple:
    """Changes with a user's files: their places, sizes and times; empty for a data set by name."""
    path = Path(name).expanduser().absolute()
    if not is_path(name) or not path.exists():
        return ()
    stats = [(file, file.stat()) for file in (path, *sorted(path.rglob("*")))]
    return tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


def take(dataset: Dataset, count: int | str | None) -> Dataset:
    """The first `count` examples in stored order (all of them if None, or "all")."""
    if count is None or count == "all":
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


def stated_normalisation(text: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, float64 `[channels]` each, from text: one number, or one for each channel.

    Raises:
        UserError: it does not say both, or of another number of channels, or a deviation is not above 0.

    >>> print(*stated_normalisation(".5/.25", 2))
    [0.5 0.5] [0.25 0.25]
    """
    try:
        mean, std = (np.array([float(number) for number in part.split(",")]) for part in text.split("/"))
        mean, std = (np.broadcast_to(part, (channels,)) for part in (mean, std))
    except ValueError:
        mean = std = np.zeros(1)
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise UserError(
            f"normalisation {text!r}: write MEAN/STD, each one number or {channels} with commas, STD above 0"
        )
    return mean, std


def _hold_out(source: object, dataset: Dataset, split: str) -> Dataset:
    """The part of a stratified split: a fifth of the examples is for the test, of each class at least one.

    Classes one after the other, each in a drawn order, every fifth example of all is held out; of a class
    that this leaves out, the first.
    """
    labels = dataset.labels
    draws = np.random.RandomState(_SEED).random_sample(len(labels))
    order = np.lexsort((draws, labels))
    test = np.zeros(len(labels), bool)
    test[order[4::5]] = True
    classes, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    if counts.min() < 2:
        name = dataset.class_names[classes[counts.argmin()]]
        raise UserError(
            f"{source}: class {name!r} has one image, and there is no test split: add images, or a test split"
        )
    absent = ~np.isin(classes, labels[test])
    test[order[first[absent]]] = True
    keep = test if split == "test" else ~test
    return dataset._replace(images=dataset.images[keep], labels=labels[keep], ids=dataset.ids[keep])


def _digits(split: str) -> Dataset:
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = raw.target.astype(np.int32)
    ids = np.arange(len(labels), dtype=np.int32)
    return _hold_out("digits", Dataset(images, labels, ids, 10, tuple("0123456789")), split)


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
    names = _class_names(path, arrays)
    has_test = {"test_images", "test_labels"} <= arrays.keys()
    prefix = "test_" if split == "test" and has_test else ""
    labels = arrays[prefix + "labels"]
    ids = arrays.get(prefix + "ids", np.arange(labels.size))
    dataset = _checked(path, arrays[prefix + "images"], labels, ids, names)
    return dataset if has_test else _hold_out(path, dataset, split)


def _class_names(path: Path, arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The names that a file gives its classes, else their numbers: then none may be left out."""
    if "class_names" in arrays:
        return tuple(str(name) for name in np.atleast_1d(arrays["class_names"]))
    found = arrays["labels"]
    if not np.issubdtype(found.dtype, np.integer) or not found.size:
        return ()  # refused with the labels
    classes = np.unique(found)
    if classes[0] < 0:
        raise UserError(f"{path}: labels run from {classes[0]} to {classes[-1]}: number the classes from 0")
    gaps = np.flatnonzero(classes != np.arange(len(classes)))
    if len(gaps):
        raise UserError(
            f"{path}: labels run from {classes[0]} to {classes[-1]}, and none is {gaps[0]}: number the "
            "classes from 0 without a gap (np.unique(labels, return_inverse=True)[1]), or name all in "
            "class_names"
        )
    return tuple(map(str, range(len(classes))))


def _folder(path: Path, split: str) -> Dataset:
    images, labels, names, has_splits = folders.read(path, split)
    # Mixed: sorted by class, the first n images would be of few classes.
    ids = np.random.RandomState(_SEED).permutation(len(labels))
    dataset = _checked(path, images[ids], labels[ids], ids, names)
    return dataset if has_splits else _hold_out(path, dataset, split)


def _checked(source, images, labels, ids, class_names) -> Dataset:
    """The arrays as a `Dataset`, or a message that names what is wrong with them."""
    if images.dtype != np.uint8:
        raise UserError(f"{source}: images must be uint8 (0..255), not {images.dtype}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise UserError(f"{source}: images must be [N, H, W] or [N, H, W, C], not {images.shape}")
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise UserError(
            f"{source}: images {images.shape} have their channels first: images.transpose(0, 2, 3, 1) has "
            "them last"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        advice = ": flatten them with labels.ravel()" if labels.shape == (len(images), 1) else ""
        raise UserError(
            f"{source}: labels must be integers [{len(images)}], not {labels.dtype} {labels.shape}{advice}"
        )
    if not np.issubdtype(ids.dtype, np.integer) or ids.shape != labels.shape:
        raise UserError(f"{source}: ids must be integers [{len(images)}], not {ids.dtype} {ids.shape}")
    if ids.min() < 0 or ids.max() > np.iinfo(np.int32).max:
        raise UserError(f"{source}: ids must be in 0..2^31 - 1, not {ids.min()}..{ids.max()}")
    low, high, count = labels.min(), labels.max(), len(class_names)
    if low < 0 or high >= count:
        raise UserError(f"{source}: labels run from {low} to {high}, classes from 0 to {count - 1}")
    return Dataset(images, labels.astype(np.int32), ids.astype(np.int32), count, tuple(class_names))
