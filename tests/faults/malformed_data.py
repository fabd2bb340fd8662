"""Strategies for data that must be refused: arrays, images, triggers, tensorflow-datasets."""

import io
import json
import zipfile
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.faults.malformed import HERE, Example, evenly, flags

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
_GOOD = {"images": images(), "labels": _LABELS}
_SPLIT = _GOOD | {"test_images": images(10), "test_labels": np.arange(10) % 4}
_bad_dtypes = st.sampled_from(["f4", "f8", "i8", "u2", "b1", "c16", "U3", "S2", "m8[s]"])


@st.composite
def _bad_images(draw) -> np.ndarray:
    way = draw(st.sampled_from(["dtype", "shape", "nan", "count"]))
    if way == "dtype":
        return images().astype(draw(_bad_dtypes))
    if way == "nan":
        return np.full((40, 8, 8), np.nan)
    if way == "count":
        return images(draw(st.sampled_from([0, 1, 39, 41])))
    shape = draw(
        st.lists(st.integers(0, 3), max_size=6).filter(lambda s: len(s) not in (3, 4) or 0 in s or s[0] != 40)
    )
    return np.zeros(shape, np.uint8)


@st.composite
def _bad_labels(draw) -> np.ndarray:
    way = draw(st.sampled_from(["dtype", "shape", "range"]))
    if way == "dtype":
        return _LABELS.astype(draw(st.sampled_from(["f4", "f8", "b1", "c16", "U3", "S2"])))
    if way == "shape":
        return draw(
            st.sampled_from([_LABELS[None], _LABELS[:39], _LABELS[:0], np.array(3), np.tile(_LABELS, 2)])
        )
    bad = _LABELS.astype(draw(st.sampled_from(["i8", "i4"])))
    bad[draw(st.integers(0, 39))] = draw(st.integers(-(2**31), -1))
    return bad


_NAMES = np.array(list("abcd"))


@st.composite
def _bad_arrays(draw) -> dict[str, Any]:
    way = draw(
        st.sampled_from(["images", "labels", "missing", "ids", "names", "objects", "half", "huge", "test"])
    )
    if way == "images":
        return _GOOD | {"images": draw(_bad_images())}
    if way == "labels":
        return _GOOD | {"labels": draw(_bad_labels())}
    if way == "missing":
        key = draw(st.sampled_from(sorted(_SPLIT)))
        return {name: array for name, array in _SPLIT.items() if name != key}
    if way == "ids":
        ids = [
            np.arange(39),
            np.arange(40) / 2,
            np.arange(40) - 1,
            np.arange(40) + 2**31,
            np.array("x"),
            _LABELS[None],
        ]
        return _GOOD | {"ids": draw(st.sampled_from(ids))}
    if way == "names":
        names = [_NAMES[:3], np.array("a"), np.zeros(0, "U1"), np.zeros((0, 3))]
        return _GOOD | {"class_names": draw(st.sampled_from(names))}
    if way == "objects":
        key = draw(st.sampled_from(["images", "labels", "ids", "class_names"]))
        return _GOOD | {key: np.array([{}, 1], dtype=object)}
    if way == "half":
        return {
            key: _SPLIT[key]
            for key in ("images", "labels", draw(st.sampled_from(["test_images", "test_labels"])))
        }
    if way == "huge":
        return _GOOD | {"labels": _LABELS + draw(st.sampled_from([10**6, 2**31, 2**40, 2**62]))}
    test = draw(
        st.sampled_from(
            [
                {"test_images": images(10, 8, 7)},
                {"test_images": images(10, 8, 8, 3)},
                {"test_labels": np.arange(9)},
                {"test_labels": np.arange(10) - 1},
                {"test_images": images(0), "test_labels": np.zeros(0, int)},
                {"test_ids": np.arange(3)},
            ]
        )
    )
    return _SPLIT | test


def _zip(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


_WHOLE = npz(**_GOOD)
GARBAGE = st.one_of(
    st.binary(max_size=50),
    st.integers(0, len(_WHOLE) - 1).map(lambda end: _WHOLE[:end]),
    st.tuples(st.integers(70, 2500), st.binary(min_size=4, max_size=9)).map(
        lambda cut: (
            _WHOLE[: cut[0]] + bytes(b ^ 85 for b in _WHOLE[cut[0] : cut[0] + 9]) + _WHOLE[cut[0] + 9 :]
        )
    ),
    st.sampled_from(
        [
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
    ),
)
_BY_PATH = {"data.name": f"{HERE}/mine.npz", "data.n_train": 8, "data.n_test": 2, "train.batch_size": 4}

_arrays = evenly(_bad_arrays().map(lambda bad: npz(**bad)), GARBAGE)


# --- folders of images, masks, pictures, tensorflow-datasets ---------------------------------------


def picture(array: np.ndarray, format: str = "png") -> bytes:
    """The content of an image file."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format)
    return stream.getvalue()


_PNG = picture(images(1)[0])
_PICTURES = {f"mine/{name}/{i}.png": picture(images(1, seed=i)[0]) for name in "ab" for i in range(10)}
_not_pictures = st.one_of(
    st.binary(max_size=30),
    st.integers(0, len(_PNG) - 20).map(lambda end: _PNG[:end]),
    st.sampled_from(
        [b"", picture(images(1, 8, 7)[0]), picture(images(1, 9, 8)[0]), picture(images(1, 8, 8, 3)[0])]
    ),
    st.sampled_from([b"GIF89a", b"BM", b"\xff\xd8\xff", _PNG[:33] + bytes(50), b"<svg/>"]),
)
_FOLDERS = (
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
    {"mine/train/a/x.png": _PNG, "mine/test/a/x.png": picture(images(1, 7, 8)[0])},
    {"mine/train/a/x.png": _PNG, "mine/test/a/x.png": picture(images(1, 8, 8, 3)[0])},
    {"mine/a/x.png": _PNG},
    {},
)
_IN_FOLDER = _BY_PATH | {"data.name": f"{HERE}/mine"}
_mask = np.ones((8, 8), bool)
_masks = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 150).map(lambda end: npy(_mask)[:end]),
    st.sampled_from(
        [
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
            npz(mask=_mask),
            _PNG,
        ]
    ),
    st.none(),
)
_pictures = st.one_of(
    st.binary(max_size=30),
    st.integers(0, len(_PNG) - 20).map(lambda end: _PNG[:end]),
    st.sampled_from(
        [
            b"",
            picture(images(1, 9, 8)[0]),
            picture(images(1, 100, 100)[0]),
            picture(np.zeros((8, 8, 4), np.uint8)),
        ]
    ),
    st.none(),
)
_TFDS = {"mnist/3.0.1/dataset_info.json": b"{}", "mnist/3.0.1/features.json": b"{}"}
_INFO = {
    "fileFormat": "array_record",
    "name": "mnist",
    "version": "3.0.1",
    "splits": [{"name": n, "shardLengths": ["9"], "numBytes": "9"} for n in ("train", "test")],
}
_tfds = st.one_of(
    st.just({"mnist/3.0.1": None}),
    st.just({"mnist": b"file"}),
    st.just({"mnist/3.0.1/dataset_info.json": None}),
    st.binary(max_size=30).map(lambda info: {"mnist/3.0.1/dataset_info.json": info}),
    st.sampled_from([b"{}", b"[]", b"null", b"{", json.dumps(_INFO).encode()]).map(
        lambda info: _TFDS | {"mnist/3.0.1/dataset_info.json": info}
    ),
    st.binary(max_size=30).map(
        lambda records: (
            _TFDS
            | {
                "mnist/3.0.1/dataset_info.json": json.dumps(_INFO).encode(),
                "mnist/3.0.1/mnist-train.array_record-00000-of-00001": records,
            }
        )
    ),
)


_folders = evenly(
    st.sampled_from(_FOLDERS),
    st.tuples(st.sampled_from(sorted(_PICTURES)), _not_pictures).map(
        lambda one: _PICTURES | {one[0]: one[1]}
    ),
)


def _of_data(kind: str, settings: dict[str, Any], files: dict[str, bytes | None]) -> Example:
    return Example(kind, flags(settings), files)


_MASK = {"poison.trigger": "mask", "poison.mask": f"{HERE}/mask.npy"}
_BLEND = {"poison.trigger": "blend", "poison.picture": f"{HERE}/picture.png"}
_PREPARED = {"data.name": "mnist", "data.dir": f"{HERE}/tfds", "train.batch_size": 4}
DATA = {
    "data sets in .npz files": (_BY_PATH, _arrays.map(lambda content: {"mine.npz": content})),
    "folders of images": (_IN_FOLDER, _folders),
    "masks": (_MASK, _masks.map(lambda content: {"mask.npy": content})),
    "pictures": (_BLEND, _pictures.map(lambda content: {"picture.png": content})),
    "folders of tensorflow-datasets": (
        _PREPARED,
        _tfds.map(lambda files: {f"tfds/{path}": content for path, content in files.items()}),
    ),
}

BAD = {
    kind: files.map(lambda files, kind=kind, settings=settings: _of_data(kind, settings, files))
    for kind, (settings, files) in DATA.items()
}
