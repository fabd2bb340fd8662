"""CIFAR-10 in 97 MiB, for a machine that has no network: `python -m benchmarks.gpu.pack`.

    python -m benchmarks.gpu.pack pack FOLDER         lossless WebP mosaics, in FOLDER/data1 to data3
    python -m benchmarks.gpu.pack unpack FOLDER       there: into the decoded cache, without tfds

The second needs `TFDS_DATA_DIR`, a folder that it makes look like prepared data, and $POISON_JAX_CACHE.
"""

import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from poison_jax import data
from poison_jax.data import prepared

ROWS, COLUMNS, PARTS = 20, 50, 3  # 1,000 images a file
SPLITS = ("train", "test")


def mosaic(images: np.ndarray) -> np.ndarray:
    """1,000 images `[1000, h, w, C]` side by side."""
    _, h, w, channels = images.shape
    grid = images.reshape(ROWS, COLUMNS, h, w, channels).transpose(0, 2, 1, 3, 4)
    return grid.reshape(ROWS * h, COLUMNS * w, channels)


def tiles(picture: np.ndarray) -> np.ndarray:
    """The images of a mosaic."""
    height, width, channels = picture.shape
    h, w = height // ROWS, width // COLUMNS
    return picture.reshape(ROWS, h, COLUMNS, w, channels).transpose(0, 2, 1, 3, 4).reshape(-1, h, w, channels)


def pack(folder: Path) -> None:
    sets = [data.load("cifar10", split) for split in SPLITS]
    images, labels, ids = (np.concatenate(parts) for parts in zip(*(d[:3] for d in sets), strict=True))
    count = len(images) // (ROWS * COLUMNS)
    for i, part in enumerate(np.split(images, count)):
        file = folder / f"data{1 + i * PARTS // count}" / f"{i:02d}.webp"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mosaic(part)).save(file, lossless=True, quality=80, method=4)
    rest = {"labels": labels.astype(np.uint8), "ids": ids, "class_names": np.array(sets[0].class_names)}
    np.savez_compressed(folder / "data1" / "rest.npz", sizes=[len(d.labels) for d in sets], **rest)


def unpack(folder: Path) -> None:
    files = sorted(folder.glob("data*/*.webp"), key=lambda file: file.name)
    images = np.concatenate([tiles(np.asarray(Image.open(file))) for file in files])
    with np.load(folder / "data1" / "rest.npz") as rest:
        sizes, names = rest["sizes"], rest["class_names"]
        labels, ids = rest["labels"].astype(np.int32), rest["ids"].astype(np.int32)
    version = Path(os.environ["TFDS_DATA_DIR"]) / "cifar10" / "3.0.2"
    version.mkdir(parents=True, exist_ok=True)
    (version / "dataset_info.json").touch()
    for split, rows in zip(SPLITS, np.split(np.arange(len(images)), [sizes[0]]), strict=True):
        arrays = {"images": images[rows], "labels": labels[rows], "ids": ids[rows], "class_names": names}
        prepared._write_cache(prepared._cache_file(version, "cifar10", split), arrays)


if __name__ == "__main__":
    {"pack": pack, "unpack": unpack}[sys.argv[1]](Path(sys.argv[2]))
