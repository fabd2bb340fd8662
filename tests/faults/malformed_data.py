"""Data that must be refused, drawn by luck: arrays, images, triggers, tensorflow-datasets."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.malformed import HERE, Example, Luck, binary, one_of, tiny

Files = dict[str, bytes | None]

# --- arrays in .npz files --------------------------------------------------------------------------


def npz(**arrays: Any) -> bytes:
    """The content of an `.npz` file."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy(array: Any) -> bytes:
    """The content of an `.npy` file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def images(count: int = 40, *shape: int, seed: int = 0) -> np.ndarray:
    """Random images uint8 `[count, *shape]`, 8x8 by default."""
    return np.random.default_rng(seed).integers(0, 256, (count, *(shape or (8, 8))), dtype=np.uint8)


_LABELS = np.arange(40) % 4
_NAMES = np.array(list("abcd"))
_GOOD = {"images": images(), "labels": _LABELS}
_TESTS = {"test_images": images(10), "test_labels": np.arange(10) % 4}
_OBJECTS = np.array([{}, 1], dtype=object)
_SHAPES = [(), (40,), (40, 8), (40, 0, 8), (0, 8, 8), (3, 2, 1, 0), (40, 2, 2, 2, 2), (2, 3, 1), (1,) * 6]
# What is wrong with an array, or with several.
_BAD_IMAGES = [
    *(images().astype(kind) for kind in ("f4", "f8", "i8", "u2", "b1", "c16", "U3", "S2", "m8[s]")),
    *(images(count) for count in (0, 1, 39, 41)),
    *(np.zeros(shape, np.uint8) for shape in _SHAPES),
    np.full((40, 8, 8), np.nan),
    _OBJECTS,
]
_BAD_LABELS = [
    *(_LABELS.astype(kind) for kind in ("f4", "f8", "b1", "c16", "U3", "S2")),
    *(_LABELS + more for more in (10**6, 2**31, 2**40, 2**62)),
    *(np.where(np.arange(40) == i, -(2**i), _LABELS) for i in range(1, 31, 6)),
    *(_LABELS[None], _LABELS[:39], _LABELS[:0], np.array(3), np.tile(_LABELS, 2)),
    _OBJECTS,
]
_BAD_IDS = [np.arange(39), np.arange(40) / 2, np.arange(40) - 1, np.arange(40) + 2**31, np.array("x")]
_BAD_NAMES = [_NAMES[:3], np.array("a"), np.zeros(0, "U1"), np.zeros((0, 3)), _OBJECTS]
_BAD_TESTS = [
    {"test_images": images(10, 8, 7)},
    {"test_images": images(10, 8, 8, 3)},
    {"test_labels": np.arange(9)},
    {"test_labels": np.arange(10) - 1},
    {"test_images": images(0), "test_labels": np.zeros(0, int)},
    {"test_ids": np.arange(3)},
]


def _bad_arrays(luck: Luck) -> bytes:
    key = luck.choice(sorted(_GOOD | _TESTS))
    without = {name: array for name, array in (_GOOD | _TESTS).items() if name != key}
    return npz(
        **luck.choice(
            [
                without,
                _GOOD | {"images": luck.choice(_BAD_IMAGES)},
                _GOOD | {"labels": luck.choice(_BAD_LABELS)},
                _GOOD | {"ids": luck.choice([*_BAD_IDS, _LABELS[None], _OBJECTS])},
                _GOOD | {"class_names": luck.choice(_BAD_NAMES)},
                _GOOD | _TESTS | luck.choice(_BAD_TESTS),
            ]
        )
    )


def _zip(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


_WHOLE = npz(**_GOOD)
_GARBAGE = [
    npy(images()),
    _zip(),
    _zip(**{"readme.txt": b"hello"}),
    _zip(**{"images.npy": b"hello", "labels.npy": npy(_LABELS)}),
    _zip(**{"images.npy": npy(images())[:100], "labels.npy": npy(_LABELS)}),
    _zip(**{"../images.npy": npy(images()), "labels.npy": npy(_LABELS)}),
    b"PK\x03\x04" + bytes(100),
    b"\x80\x04\x95",
    b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (10995116277, 8), }\n",
]


def garbage(luck: Luck) -> bytes:
    """An `.npz` file that is cut off, damaged or something else."""
    at = luck.randint(70, 2500)
    damaged = _WHOLE[:at] + bytes(b ^ 85 for b in _WHOLE[at : at + 9]) + _WHOLE[at + 9 :]
    return one_of(luck, [binary(luck, 50)], [_WHOLE[: luck.randrange(len(_WHOLE))]], [damaged], _GARBAGE)


# --- folders of images, masks, pictures, tensorflow-datasets ---------------------------------------


def picture(array: np.ndarray) -> bytes:
    """The content of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


_PNG = picture(images(1)[0])
_PICTURES = {f"mine/{name}/{i}.png": picture(images(1, seed=i)[0]) for name in "ab" for i in range(10)}
_NO_PICTURES = [b"", b"GIF89a", b"BM", b"\xff\xd8\xff", _PNG[:33] + bytes(50), b"<svg/>"]
_OTHER_PICTURES = [picture(images(1, *shape)[0]) for shape in ((8, 7), (9, 8), (8, 8, 3))]
_TOO_LARGE = [picture(images(1, side, side)[0]) for side in (9, 100)]
_FOLDERS: list[Files] = [
    {"mine": None},
    {"mine/a": None, "mine/b": None},
    {"mine/x.png": _PNG},
    {"mine/a/x.txt": b"text"},
    {"mine/a/x.png": None},
    {"mine/train": None, "mine/test": None},
    {"mine/train/a/x.png": _PNG, "mine/test": None},
    {"mine/train": None, "mine/test/a/x.png": _PNG},
    {"mine/train/a/x.png": _PNG, "mine/test/b/x.png": _PNG},
    {"mine/train/a/x.png": _PNG, "mine/test/a": None},
    *({"mine/train/a/x.png": _PNG, "mine/test/a/x.png": other} for other in _OTHER_PICTURES),
    {"mine/a/x.png": _PNG},
    {},
]
_MASK = np.ones((8, 8), bool)
_MASKS = [
    npy(np.zeros((8, 8), bool)),
    npy(np.ones((7, 8), bool)),
    npy(np.ones((8, 8, 3), bool)),
    npy(np.ones(64, bool)),
    npy(np.array(True)),
    npy(np.array([{}], dtype=object)),
    npy(np.full((8, 8), "x")),
    npy(np.full((8, 8), np.nan)),
    npy(np.zeros((8, 8), "m8[s]")),
    npy(np.zeros((8, 8), [("a", "i4")])),
    npz(mask=_MASK),
    _PNG,
    None,
]
_SPLITS = [{"name": n, "shardLengths": ["9"], "numBytes": "9"} for n in ("train", "test")]
_INFO = {"fileFormat": "array_record", "name": "mnist", "version": "3.0.1", "splits": _SPLITS}
_WHOLE_INFO = json.dumps(_INFO).encode()
_INFO_FILE = "tfds/mnist/3.0.1/dataset_info.json"
_FEATURES = {"tfds/mnist/3.0.1/features.json": b"{}"}
_SHARD = "tfds/mnist/3.0.1/mnist-train.array_record-00000-of-00001"


def _cut_off(luck: Luck) -> bytes:
    return _PNG[: luck.randrange(len(_PNG) - 20)]


def _folder(luck: Luck) -> Files:
    no_picture = one_of(luck, binary, _cut_off, _NO_PICTURES, _OTHER_PICTURES)
    return luck.choice([luck.choice(_FOLDERS), _PICTURES | {luck.choice(sorted(_PICTURES)): no_picture}])


def _mask(luck: Luck) -> Files:
    return {"mask.npy": one_of(luck, binary, [npy(_MASK)[: luck.randrange(150)]], _MASKS)}


def _blended(luck: Luck) -> Files:
    transparent = picture(np.zeros((8, 8, 4), np.uint8))
    return {"picture.png": one_of(luck, binary, _cut_off, [b"", transparent, *_TOO_LARGE], [None])}


def _tfds(luck: Luck) -> Files:
    broken = [
        {"tfds/mnist/3.0.1": None},
        {"tfds/mnist": b"file"},
        {_INFO_FILE: None},
        {_INFO_FILE: binary(luck)},
    ]
    infos = [_FEATURES | {_INFO_FILE: info} for info in (b"{}", b"[]", b"null", b"{", _WHOLE_INFO)]
    return one_of(luck, broken, infos, [_FEATURES | {_INFO_FILE: _WHOLE_INFO, _SHARD: binary(luck)}])


_BY_PATH = {"data.name": f"{HERE}/mine.npz", "data.n_train": 8, "data.n_test": 2, "train.batch_size": 4}
_OF_MASK = {"poison.trigger": "mask", "poison.mask": f"{HERE}/mask.npy"}
_BLEND = {"poison.trigger": "blend", "poison.picture": f"{HERE}/picture.png"}
_PREPARED = {"data.name": "mnist", "data.dir": f"{HERE}/tfds", "train.batch_size": 4}
_DATA: dict[str, tuple[dict[str, Any], Callable[[Luck], Files]]] = {
    "data sets in .npz files": (_BY_PATH, lambda luck: {"mine.npz": one_of(luck, _bad_arrays, garbage)}),
    "folders of images": (_BY_PATH | {"data.name": f"{HERE}/mine"}, _folder),
    "masks": (_OF_MASK, _mask),
    "pictures": (_BLEND, _blended),
    "folders of tensorflow-datasets": (_PREPARED, _tfds),
}
BAD = {
    kind: lambda luck, kind=kind, settings=settings, draw=draw: Example(kind, tiny(settings), draw(luck))
    for kind, (settings, draw) in _DATA.items()
}
