"""A folder of class folders of pictures, as arrays."""

import re
from pathlib import Path

import numpy as np
import PIL.Image

from poison_jax import console
from poison_jax.data.pictures import read_picture
from poison_jax.errors import UserError


def read(path: Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], bool]:
    """The pictures of a split, their labels, the classes' names, and whether the folder has splits.

    Class folders are in natural order ("2" before "10"), pictures in the order of their names. Hidden files
    and folders are skipped; other files that are no pictures are named in a warning.

    Args:
        path: holds a folder a class, or `train/` and `test/` that do; a class may be absent from `test/`.
        split: `train` or `test`; without splits all pictures are returned.

    Returns:
        uint8 `[N, H, W, C]`, int `[N]`, names, bool.

    Raises:
        UserError: no classes, a class without pictures, pictures of several sizes, or one that is unreadable.
    """
    has_splits = _has_splits(path)
    names = _classes(path / "train" if has_splits else path)
    root = path / split if has_splits else path
    if unknown := set(_classes(root)) - set(names):
        raise UserError(f"{root} has a class {min(unknown)!r} that {path / 'train'} has not")
    known = PIL.Image.registered_extensions()  # loads all plugins
    suffixes = {suffix for suffix, name in known.items() if name in PIL.Image.OPEN}
    images, labels, transparent = [], [], 0
    ignored = [file for file in _visible(root) if not file.is_dir()]
    if has_splits and split == "train":
        ignored += [file for file in _visible(path) if file.name not in ("train", "test")]
    for label, name in enumerate(names):
        if not (root / name).is_dir():
            continue
        first = len(images)
        for file in _visible(root / name):
            if file.suffix.lower() not in suffixes or file.is_dir():
                ignored.append(file)
                continue
            pixels, opacity = read_picture(file)
            image = np.rint(255 * pixels * opacity[..., None]).astype(np.uint8)
            if images and image.shape != images[0].shape:
                raise UserError(
                    f"{file} is {image.shape}, the first image {images[0].shape}: resize or convert them"
                )
            images.append(image)
            labels.append(label)
            transparent += bool((opacity < 1).any())
        if len(images) == first:
            raise UserError(f"{root / name} holds no pictures: fill the class folder, or remove it")
    unsaid = has_splits or split == "train"  # else it was said when the training images were read
    if ignored and unsaid:
        some = ", ".join(str(file.relative_to(path)) for file in ignored[:3])
        more = ", ..." if len(ignored) > 3 else ""
        console.warn(f"{path}: ignored what is no picture in a class folder ({len(ignored)}: {some}{more})")
    if transparent and unsaid:
        console.warn(f"{root}: {transparent} pictures are transparent in part: laid on black")
    return np.stack(images), np.array(labels), names, has_splits


def _has_splits(path: Path) -> bool:
    """Whether a folder holds `train/` and `test/`; one without the other is refused, unless it is a class."""
    train, test = path / "train", path / "test"
    if train.is_dir() and test.is_dir():
        return True
    for here, lacks in ((train, test), (test, train)):
        if here.is_dir() and any(child.is_dir() for child in _visible(here)):
            raise UserError(
                f"{path} has {here.name}/ but no {lacks.name}/: make both, or name {here} as the data set"
            )
    return False


def _classes(root: Path) -> tuple[str, ...]:
    names = sorted((child.name for child in _visible(root) if child.is_dir()), key=_natural)
    if not names:
        raise UserError(f"{root} holds no class folders: it needs one folder of images a class")
    return tuple(names)


def _visible(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if not child.name.startswith("."))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts digits as numbers.

    >>> sorted(["10", "2", "a10", "a9", "1"], key=_natural)
    ['1', '2', '10', 'a9', 'a10']
    """
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), part) if part[0] in "0123456789" else (1, 0, part) for part in parts]
