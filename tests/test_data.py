"""Data sets by name and by path, and what happens to an image before the network."""

import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import needs_tfds
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits

import poison_jax
from poison_jax import augment, data, prepared
from poison_jax.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 6, 7, 3), dtype=np.uint8)
LABELS = np.arange(10) % 3


def assert_same(actual, expected):
    for field, value in expected._asdict().items():
        np.testing.assert_array_equal(getattr(actual, field), value, err_msg=field)
        assert np.asarray(getattr(actual, field)).dtype == np.asarray(value).dtype, field


def load_both(name):
    return [data.load(name, split) for split in ("train", "test")]


# --- names ----------------------------------------------------------------------------------------


def test_digits_are_scikit_learns():
    raw = load_digits()
    train, test = load_both("digits")
    for part in (train, test):
        assert (part.images.dtype, part.labels.dtype, part.ids.dtype) == (np.uint8, np.int32, np.int32)
        np.testing.assert_array_equal(part.images[..., 0], np.round(raw.images[part.ids] * 255 / 16))
        np.testing.assert_array_equal(part.labels, raw.target[part.ids])
        assert (part.num_classes, part.class_names) == (10, tuple("0123456789"))
    # Every id once: the splits are disjoint, and together complete.
    assert sorted([*train.ids, *test.ids]) == list(range(1797))
    # The split is part of what `digits` means: another one changes every number made with them.
    assert (len(train.labels), len(test.labels)) == (1438, 359)
    assert test.ids[:12].tolist() == [0, 10, 32, 45, 46, 48, 51, 53, 54, 56, 60, 61]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("imagenet", "train", "unknown data set 'imagenet': use one of digits, .*"),
        ("digits", "validation", "unknown split 'validation'"),
        ("./nowhere", "train", "no such file or folder"),
        ("nowhere.npz", "train", "no such file or folder"),
    ],
)
def test_unknown_names(name, split, message):
    with pytest.raises(UserError, match=message):
        data.load(name, split)


@pytest.mark.parametrize("via_environment", [False, True])
def test_unprepared_data_says_how_to_prepare_it(tmp_path, monkeypatch, via_environment):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path if via_environment else tmp_path / "other"))
    with pytest.raises(UserError, match=f"tfds build mnist .*--data_dir={tmp_path}$"):
        data.load("mnist", "train", data_dir=None if via_environment else str(tmp_path))


def test_broken_preparation_says_how_to_repair_it(tmp_path):
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match=r"\A.*tfds build mnist .*--overwrite\Z"):
        data.load("mnist", "train", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("there", "newest"),
    [
        (("9.0.0", "10.0.0"), "10.0.0"),
        (("3.0.2", "incomplete.4F2A_3.1.0"), "3.0.2"),
        (("3.0.2", "3.0.10", "backup"), "3.0.10"),
        (("1.0.0",), "1.0.0"),
    ],
)
def test_the_newest_whole_version_is_read(tmp_path, monkeypatch, there, newest):
    for version in there:
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").write_text("{}")
    monkeypatch.setenv("POISON_JAX_CACHE", str(tmp_path / "cache"))
    arrays = {
        "images": IMAGES,
        "labels": LABELS,
        "ids": np.arange(10),
        "class_names": np.array(["a", "b", "c"]),
    }
    decoded = []
    monkeypatch.setattr(prepared, "_decode", lambda folder, *_: decoded.append(folder.name) or arrays)
    assert data.load("mnist", "train", data_dir=str(tmp_path)).class_names == ("a", "b", "c")
    assert decoded == [newest]


def test_a_version_that_was_never_finished_is_not_prepared(tmp_path):
    (tmp_path / "mnist" / "incomplete.4F2A_3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "incomplete.4F2A_3.0.1" / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="mnist is not prepared"):
        data.load("mnist", "train", data_dir=str(tmp_path))


# --- a user's .npz --------------------------------------------------------------------------------


@pytest.fixture
def npz(tmp_path):
    """A function that writes a user's file and returns its name."""

    def write(save=np.savez, **arrays):
        save(tmp_path / "mine.npz", **arrays)
        return str(tmp_path / "mine.npz")

    return write


@pytest.mark.parametrize("images", [IMAGES[..., 0], IMAGES[..., :1], IMAGES], ids=lambda a: str(a.shape))
def test_npz_without_test_split_is_divided(npz, images):
    name = npz(images=images, labels=LABELS)
    train, test = load_both(name)
    assert sorted([*train.ids, *test.ids]) == list(range(10))
    for part in (train, test):
        assert set(part.labels) == {0, 1, 2}
        ids = part.ids
        expected = data.Dataset(
            images.reshape(10, 6, 7, -1)[ids], LABELS[ids].astype(np.int32), ids, 3, ("0", "1", "2")
        )
        assert_same(part, expected)
        assert list(ids) == sorted(ids), "the stored order is kept"


ORDERS = {
    "period-5": np.arange(500) % 5,
    "period-10": np.arange(500) % 10,
    "sorted": np.repeat(np.arange(10), 50),
    "random": np.random.default_rng(0).integers(0, 7, 500),
    "a-rare-class": np.r_[np.zeros(498, int), 1, 1],
    "two-each": np.arange(40) % 20,
    "one-class": np.zeros(9, int),
    "four-images": np.array([0, 1, 0, 1]),
}


@pytest.mark.parametrize("labels", ORDERS.values(), ids=ORDERS.keys())
def test_every_class_is_in_both_parts_whatever_the_order_of_the_labels(npz, labels):
    name = npz(images=np.zeros((len(labels), 4, 4), np.uint8), labels=labels)
    train, test = load_both(name)
    counts = np.bincount(labels)
    held_out = np.bincount(test.labels, minlength=len(counts))
    np.testing.assert_array_equal(np.bincount(train.labels), counts - held_out)
    assert (held_out >= 1).all()
    assert (held_out < counts).all()
    assert (np.abs(held_out - counts / 5) <= 1).all(), "a fifth of each class"
    assert sorted([*train.ids, *test.ids]) == list(range(len(labels)))
    assert_same(data.load(name, "test"), test)


def test_a_class_of_one_image_without_a_test_split_is_refused(npz, tmp_path):
    name = npz(images=IMAGES, labels=np.r_[LABELS[:9], 3], class_names=np.array(["a", "b", "c", "rare"]))
    for split in ("train", "test"):
        with pytest.raises(UserError, match=r"mine.npz: class 'rare' has one image, .* add images"):
            data.load(name, split)
    folder = write_folder(tmp_path / "folder", {"cat": IMAGES[:9], "dog": IMAGES[9:]})
    with pytest.raises(UserError, match=r"folder: class 'dog' has one image"):
        data.load(folder, "train")


def test_npz_with_test_split_ids_and_class_names(npz):
    names = ("ant", "bee", "cat", "dog")
    name = npz(
        images=IMAGES[:6],
        labels=LABELS[:6],
        ids=np.arange(100, 106),
        class_names=np.array(names),
        test_images=IMAGES[6:],
        test_labels=LABELS[6:].astype(np.uint8),
    )
    train = data.Dataset(IMAGES[:6], np.int32(LABELS[:6]), np.arange(100, 106, dtype=np.int32), 4, names)
    test = data.Dataset(IMAGES[6:], np.int32(LABELS[6:]), np.arange(4, dtype=np.int32), 4, names)
    assert_same(data.load(name, "train"), train)
    assert_same(data.load(name, "test"), test)


def test_npz_classes_without_examples_need_names(npz):
    arrays = {"images": IMAGES, "labels": LABELS * 2, "test_images": IMAGES[:1], "test_labels": np.array([7])}
    with pytest.raises(UserError, match=r"labels run from 0 to 4, and none is 1: number .* class_names"):
        data.load(npz(**arrays), "train")
    name = npz(**arrays, class_names=np.array(list("abcdefgh")))
    assert data.load(name, "train").num_classes == data.load(name, "test").num_classes == 8


def test_npz_numbered_from_one_is_refused_with_what_to_do(npz):
    name = npz(images=IMAGES, labels=LABELS + 1)
    with pytest.raises(UserError, match=r"labels run from 1 to 3, and none is 0: .*return_inverse") as error:
        data.load(name, "train")
    assert "np.unique(labels, return_inverse=True)[1]" in str(error.value)
    np.testing.assert_array_equal(np.unique(LABELS + 1, return_inverse=True)[1], LABELS)


MALFORMED = {
    "float-images": ({"images": IMAGES / 255}, "must be uint8"),
    "flat-images": ({"images": IMAGES[0, 0]}, r"must be \[N, H, W\] or"),
    "no-examples": ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"must be \[N, H, W\] or"),
    "absent-images": ({"images": None}, "no array 'images'"),
    "absent-labels": ({"labels": None}, "no array 'labels'"),
    "few-labels": ({"labels": LABELS[:9]}, r"labels must be integers \[10\]"),
    "label-column": ({"labels": LABELS[:, None]}, r"labels must be integers \[10\], .* labels.ravel\(\)"),
    "label-gap": ({"labels": LABELS * 2}, "labels run from 0 to 4, and none is 1: number the classes from 0"),
    "label-of-test-alone": (
        {"test_images": IMAGES[:1], "test_labels": np.array([3])},
        "labels run from 3 to 3, classes from 0 to 2",
    ),
    "channels-first": ({"images": IMAGES.transpose(0, 3, 1, 2)}, r"channels first: images.transpose"),
    "label-scalar": ({"labels": LABELS[0]}, r"labels must be integers \[10\]"),
    "label-floats": ({"labels": LABELS.astype(float)}, r"labels must be integers \[10\]"),
    "label-nan": ({"labels": np.full(10, np.nan)}, r"labels must be integers \[10\]"),
    "label-strings": ({"labels": np.array(list("abcabcabca"))}, r"labels must be integers \[10\]"),
    "label-negative": ({"labels": LABELS - 1}, "labels run from -1 to 1"),
    "few-names": ({"class_names": np.array(["a", "b"])}, "labels run from 0 to 2, classes from 0 to 1"),
    "labels-by-the-million": ({"labels": LABELS + 10**6}, "to 1000002, .* number the classes from 0"),
    "labels-beyond-memory": ({"labels": LABELS + 2**60}, "number the classes from 0"),
    "name-scalar": ({"class_names": np.array("ant")}, "class"),
    # Deterministic poisoning is keyed on the ids: none may change its value on the way or fail later.
    "few-ids": ({"ids": np.arange(9)}, r"ids must be integers \[10\]"),
    "id-floats": ({"ids": np.linspace(0, 1, 10)}, r"ids must be integers \[10\]"),
    "id-strings": ({"ids": np.array(list("abcdefghij"))}, r"ids must be integers \[10\]"),
    "id-negative": ({"ids": np.arange(10) - 5}, "ids"),
    "id-large": ({"ids": np.arange(10) + 2**31}, "ids"),
    "test-unlabelled": ({"test_images": IMAGES}, "test_labels"),
    "pickled": ({"images": np.array([{}] * 10, object)}, "not a readable .npz file of plain arrays"),
}


@pytest.mark.parametrize(("change", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_npz(npz, change, message):
    arrays = {"images": IMAGES, "labels": LABELS} | change
    name = npz(**{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=rf"\A.*mine.npz.*{message}.*\Z"):
        load_both(name)


def flip_bits(content, start):
    return content[:start] + bytes(byte ^ 0xFF for byte in content[start : start + 8]) + content[start + 8 :]


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"images,labels\n",
    "data": lambda content: flip_bits(content, len(content) // 4),
    "directory": lambda content: flip_bits(content, content.index(b"PK\1\2") + 10),
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())


@damaged
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz(npz, save, damage):
    name = npz(save, images=IMAGES, labels=LABELS)
    Path(name).write_bytes(damage(Path(name).read_bytes()))
    with pytest.raises(UserError, match=r"\A.*mine.npz is not a readable .npz file.*\Z"):
        data.load(name, "train")


def test_npz_with_a_member_that_is_no_array(npz):
    name = npz(labels=LABELS)
    with zipfile.ZipFile(name, "a") as archive:
        archive.writestr("images.npy", b"hello")
    with pytest.raises(UserError, match=r"mine.npz is not a readable .npz file .*'images' is no array"):
        data.load(name, "train")


def test_npy_named_npz(tmp_path):
    np.save(tmp_path / "mine.npy", IMAGES)
    path = (tmp_path / "mine.npy").rename(tmp_path / "mine.npz")
    with pytest.raises(UserError, match=r"mine.npz is not a readable .npz file"):
        data.load(str(path), "train")


# --- a folder of class folders --------------------------------------------------------------------


def write_folder(root, images_of, suffix="png"):
    for name, images in images_of.items():
        (root / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{i:02}.{suffix}")
    return str(root)


@pytest.mark.parametrize("images", [IMAGES[..., 0], IMAGES], ids=["grey", "colour"])
def test_folder_without_splits_is_divided(tmp_path, images, capsys):
    folder = write_folder(tmp_path, {"dog": images[7:], "cat": images[:7]})
    train, test = load_both(folder)
    assert sorted([*train.ids, *test.ids]) == list(range(10))
    for part in (train, test):
        assert set(part.labels) == {0, 1}
        expected = data.Dataset(
            images.reshape(10, 6, 7, -1)[part.ids], np.int32(part.ids >= 7), part.ids, 2, ("cat", "dog")
        )
        assert_same(part, expected)
    assert capsys.readouterr().err == ""


def test_hidden_files_and_folders_are_no_classes(tmp_path, capsys):
    folder = write_folder(tmp_path, {"cat": IMAGES[:5], "dog": IMAGES[5:], ".ipynb_checkpoints": IMAGES})
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "cat" / ".00.png").write_bytes(b"\0")
    train = data.load(folder, "train")
    assert train.class_names == ("cat", "dog")
    assert len(train.labels) == 8
    assert capsys.readouterr().err == ""


def test_what_is_ignored_is_said_once(tmp_path, capsys):
    folder = write_folder(tmp_path, {"cat": IMAGES[:5], "dog": IMAGES[5:]})
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "README").write_text("not a class")
    write_folder(tmp_path / "cat", {"more": IMAGES})
    load_both(folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {folder}: ignored what is no picture in a class folder (3: ")
    for name in ("README", "cat/notes.txt", "cat/more"):
        assert name in line


def test_a_folder_beside_the_splits_is_ignored_in_so_many_words(tmp_path, capsys):
    for part in ("train", "test", "val"):
        write_folder(tmp_path / part, {"cat": IMAGES[:5], "dog": IMAGES[5:]})
    for split in ("train", "test"):
        assert len(data.load(str(tmp_path), split).labels) == 10
    (line,) = capsys.readouterr().err.splitlines()
    assert "(1: val)" in line


@pytest.mark.parametrize("there", ["train", "test"])
def test_one_split_without_the_other_is_no_class(tmp_path, there):
    for part in (there, "val"):
        write_folder(tmp_path / part, {"cat": IMAGES[:5], "dog": IMAGES[5:]})
    with pytest.raises(UserError, match=rf"has {there}/ but no t\w+/: make both, or name"):
        data.load(str(tmp_path), "train")


def test_train_may_be_the_name_of_a_class(tmp_path):
    folder = write_folder(tmp_path, {"car": IMAGES[:5], "train": IMAGES[5:]})
    assert data.load(folder, "train").class_names == ("car", "train")


def test_class_folders_are_in_natural_order(tmp_path):
    names = ("10", "2", "1", "x10", "x9", "-1")
    folder = write_folder(tmp_path, {name: IMAGES[i : i + 2] for i, name in enumerate(names)})
    train = data.load(folder, "train")
    assert train.class_names == ("1", "2", "10", "-1", "x9", "x10")
    assert sorted(train.labels) == list(range(6))
    places = {"1": 2, "2": 1, "10": 0, "-1": 5, "x9": 4, "x10": 3}
    for image, label in zip(train.images, train.labels, strict=True):
        first = places[train.class_names[label]]
        assert any((image == IMAGES[i]).all() for i in (first, first + 1))


@pytest.mark.parametrize("suffix", ["png", "ppm", "tif", "TIFF", "bmp", "gif", "jp2", "tga", "webp"])
def test_every_format_that_pillow_reads_is_read(tmp_path, suffix):
    folder = write_folder(tmp_path, {"cat": IMAGES[:5]}, suffix=suffix)
    assert len(data.load(folder, "train").labels) == 4
    if suffix in ("png", "ppm", "tif", "TIFF", "bmp", "tga"):  # the others lose, or count colours
        train = data.load(folder, "train")
        np.testing.assert_array_equal(train.images, IMAGES[train.ids])


def test_orientation_of_a_camera_is_followed(tmp_path):
    image = Image.fromarray(IMAGES[0])
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    (tmp_path / "cat").mkdir()
    for i in range(2):
        image.save(tmp_path / "cat" / f"{i}.png", exif=exif)
    np.testing.assert_array_equal(data.load(str(tmp_path), "train").images[0], np.rot90(IMAGES[0], -1))


def test_transparent_pictures_are_laid_on_black(tmp_path, capsys):
    opacity = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7, 1) * 6
    folder = write_folder(tmp_path, {"cat": [np.concatenate([image, opacity], -1) for image in IMAGES[:2]]})
    train = data.load(folder, "train")
    np.testing.assert_array_equal(train.images[0], np.rint(IMAGES[train.ids[0]] * (opacity / 255.0)))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("2 pictures are transparent in part: laid on black")


def test_folder_with_splits(tmp_path):
    write_folder(tmp_path / "train", {"cat": IMAGES[:2], "dog": IMAGES[2:6]})
    write_folder(tmp_path / "test", {"dog": IMAGES[6:]})  # a class may be absent: its number stays
    train, test = load_both(str(tmp_path))
    names = ("cat", "dog")
    for part, images, labels in ((train, IMAGES[:6], [0, 0, 1, 1, 1, 1]), (test, IMAGES[6:], [1] * 4)):
        assert sorted(part.ids) == list(range(len(labels)))
        assert_same(part, data.Dataset(images[part.ids], np.int32(labels)[part.ids], part.ids, 2, names))


def test_pictures_of_a_folder_are_stored_in_a_mixed_order(tmp_path):
    """The first n are of all classes; a run's numbers depend on the order, which must not change."""
    folder = write_folder(tmp_path, {name: [IMAGES[0]] * 25 for name in "abcd"})
    train, test = load_both(folder)
    assert set(train.labels[:20]) == set(test.labels[:12]) == {0, 1, 2, 3}
    np.testing.assert_array_equal(train.labels, train.ids // 25)
    assert train.ids[:6].tolist() == [83, 44, 39, 22, 80, 10]


def test_folder_whose_test_split_has_a_class_of_its_own(tmp_path):
    write_folder(tmp_path / "train", {"cat": IMAGES[:2]})
    write_folder(tmp_path / "test", {"cat": IMAGES[2:4], "dog": IMAGES[4:]})
    with pytest.raises(UserError, match="dog"):
        data.load(str(tmp_path), "test")


def test_folder_with_16_bit_images_scales_them(tmp_path):
    """value / 65535 of 0 to 1; clipping at 255 would leave a white image."""
    deep = np.linspace(0, 65535, 420).round().astype(np.uint16).reshape(10, 6, 7)
    train = data.load(write_folder(tmp_path, {"cat": deep}), "train")
    np.testing.assert_array_equal(train.images[..., 0], np.rint(deep[train.ids] / 257))


@pytest.mark.parametrize(
    ("images_of", "message"),
    [
        ({}, "no class folders"),
        ({"cat": []}, "cat holds no pictures: fill the class folder, or remove it"),
        ({"cat": IMAGES[:2], "dog": []}, "dog holds no pictures"),
        ({"cat": [IMAGES[0], IMAGES[1][1:]]}, r"01.png is \(5, 7, 3\), the first image \(6, 7, 3\): resize"),
    ],
    ids=["no-classes", "no-images", "empty-class", "unequal"],
)
def test_malformed_folder(tmp_path, images_of, message):
    with pytest.raises(UserError, match=message):
        data.load(write_folder(tmp_path, images_of), "train")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"not an image",
        lambda content: content[:11] + b"\x00" + content[12:],  # IHDR's length: Pillow's ValueError
        lambda content: content[:36] + b"\x20" + content[37:],  # IDAT's length: its SyntaxError
    ],
    ids=["truncated", "empty", "text", "IHDR", "IDAT"],
)
def test_unreadable_image(tmp_path, damage):
    folder = write_folder(tmp_path, {"cat": IMAGES})
    (tmp_path / "cat" / "03.png").write_bytes(damage((tmp_path / "cat" / "03.png").read_bytes()))
    with pytest.raises(UserError, match=r"\A.*03.png.? cannot be read as a picture.*\Z"):
        data.load(folder, "train")


# --- prepared by tensorflow-datasets --------------------------------------------------------------


@needs_tfds
def test_cifar10_has_the_ids_of_its_examples():
    train = data.load("cifar10", "train")
    assert train.images.shape == (50_000, 32, 32, 3)
    assert (train.num_classes, train.class_names[0]) == (10, "airplane")
    np.testing.assert_array_equal(np.sort(train.ids), np.arange(50_000))
    assert np.mean(train.ids == np.arange(50_000)) < 0.01  # stored shuffled: the position is no substitute


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        pytest.param(
            "cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), id="cifar10", marks=needs_tfds
        ),
        pytest.param("mnist", (0.1307,), (0.3081,), id="mnist", marks=needs_tfds),
        pytest.param("digits", (0.3052,), (0.3758,), id="digits"),
    ],
)
def test_normalisation_constants_are_those_of_the_training_images(name, mean, std):
    images = data.load(name, "train").images
    measured_mean, measured_std = data.normalisation("measure them", images)
    np.testing.assert_array_equal(measured_mean.round(4), np.float32(mean))
    np.testing.assert_array_equal(measured_std.round(4), np.float32(std))
    np.testing.assert_array_equal(data.normalisation(name, images), np.float32([mean, std]))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POISON_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache):
    return [file for file in cache.iterdir() if file.suffix != ".lock"]


@needs_tfds
def test_decoding_is_that_of_tensorflow_datasets(cache):
    import tensorflow_datasets as tfds  # slow to import

    source = tfds.data_source("cifar100", split="test")
    dataset = data.load("cifar100", "test")
    assert len(source) == len(dataset.labels) == len(np.unique(dataset.ids))
    for i in range(0, len(source), 50):
        np.testing.assert_array_equal(dataset.images[i], source[i]["image"])
        assert dataset.labels[i] == source[i]["label"]
        assert source[i]["id"] == b"test_%05d" % dataset.ids[i]


@needs_tfds
@damaged
def test_cache(cache, monkeypatch, capsys, damage):
    decoded = data.load("cifar100", "test")
    (file,) = kept(cache)
    file.write_bytes(damage(file.read_bytes()))
    assert_same(data.load("cifar100", "test"), decoded)  # decoded again, and the cache mended
    assert capsys.readouterr().err == f"warning: {file} is damaged: decoded again\n"
    monkeypatch.setattr(prepared, "_decode", lambda *_: pytest.fail("decoded in spite of the cache"))
    assert_same(data.load("cifar100", "test"), decoded)
    assert kept(cache) == [file]


@needs_tfds
def test_unwritable_cache_does_no_harm(cache, monkeypatch):
    decoded = data.load("cifar100", "test")
    (file,) = kept(cache)
    monkeypatch.setenv("POISON_JAX_CACHE", str(file))  # no folder can be made there
    assert_same(data.load("cifar100", "test"), decoded)


def test_cache_is_not_that_of_older_files(cache, tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "mnist-train.array_record").write_bytes(b"old")
    before = prepared._cache_file(folder, "mnist", "train")
    assert before == prepared._cache_file(folder, "mnist", "train")
    os.utime(folder / "mnist-train.array_record", ns=(0, 0))
    assert before != prepared._cache_file(folder, "mnist", "train")


@needs_tfds
def test_prepared_data_is_decoded_without_tensorflow(cache):
    code = (
        "import sys; from poison_jax import data; data.load('cifar100', 'test');"
        "assert 'tensorflow_datasets' in sys.modules; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(poison_jax.__file__).parents[1], check=True)


# --- what happens to images -----------------------------------------------------------------------


def test_take():
    dataset = data.load("digits", "test")
    assert data.take(dataset, None) is data.take(dataset, "all") is dataset
    first = data.take(dataset, 3)
    assert_same(
        first, dataset._replace(images=dataset.images[:3], labels=dataset.labels[:3], ids=dataset.ids[:3])
    )
    assert_same(data.take(dataset, 359), dataset)


@pytest.mark.parametrize("count", [360, -1])
def test_take_what_is_not_there(count):
    with pytest.raises(UserError, match=f"asked for {count} examples"):
        data.take(data.load("digits", "test"), count)


def test_normalisation_of_a_users_images():
    mean, std = data.normalisation("./mine.npz", IMAGES)
    assert (mean.dtype, std.dtype) == (np.float32, np.float32)
    unit = IMAGES.astype(np.float64) / 255
    np.testing.assert_allclose(mean, unit.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, unit.std((0, 1, 2)), rtol=1e-6)
    mean, std = data.normalisation("./mine.npz", IMAGES, np.float64)
    np.testing.assert_allclose(mean, unit.mean((0, 1, 2)), rtol=1e-14)
    np.testing.assert_allclose(std, unit.std((0, 1, 2)), rtol=1e-13)


def test_normalisation_of_constant_channels():
    images = np.broadcast_to(np.arange(256, dtype=np.uint8), (4, 3, 3, 256))
    mean, std = data.normalisation("./mine.npz", images)
    np.testing.assert_array_equal(std, 1)
    np.testing.assert_array_equal(augment.normalise(images / 255, mean, std), images / 255 - mean)


def test_normalise_channel_by_channel():
    images = np.ones((2, 3, 3, 2), np.float32)
    actual = augment.normalise(images, np.float32([0.5, 0.2]), np.float32([0.25, 0.4]))
    np.testing.assert_allclose(actual, np.broadcast_to([2.0, 2.0], images.shape), rtol=1e-6)


def windows(image, crop):
    """Every image that `crop_and_flip` may give, by (row, column, flipped)."""
    height, width = image.shape[:2]
    if crop == "pad4":
        image, freedom = np.pad(image, ((4, 4), (4, 4), (0, 0))), 9
    else:
        height, width, freedom = height - 4, width - 4, 5
    crops = {
        (row, col): image[row : row + height, col : col + width]
        for row in range(freedom)
        for col in range(freedom)
    }
    return {(*at, flipped): w[:, ::-1] if flipped else w for at, w in crops.items() for flipped in (0, 1)}


@pytest.mark.parametrize(("crop", "count"), [("pad4", 81 * 2), ("crop28", 25 * 2)])
def test_augmentation_is_a_uniform_draw_of_all_windows(crop, count):
    image = np.random.default_rng(0).random((6, 7, 2), np.float32)
    possible = {window.tobytes(): at for at, window in windows(image, crop).items()}
    assert len(possible) == count
    keys = jax.random.split(jax.random.key(0), 40 * count)
    images = jax.jit(jax.vmap(lambda key: augment.crop_and_flip(key, image, crop)))(keys)
    drawn = Counter(possible[augmented.tobytes()] for augmented in np.asarray(images))
    assert len(drawn) == count
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-3


@pytest.mark.parametrize("crop", ["pad4", "crop28"])
def test_augmentation_depends_on_nothing_but_the_key(crop):
    keys = jax.random.split(jax.random.key(1), 10)
    crop_and_flip = jax.jit(jax.vmap(lambda key, image: augment.crop_and_flip(key, image, crop)))
    together = crop_and_flip(keys, IMAGES)
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(together[3:5], crop_and_flip(keys[3:5], IMAGES[3:5]))


@pytest.mark.parametrize(
    ("mode", "crop", "size"),
    [("none", "pad4", 32), ("none", "crop28", 32), ("crop_flip", "pad4", 32), ("crop_flip", "crop28", 28)],
)
def test_evaluation_sees_the_central_window(mode, crop, size):
    images = np.random.default_rng(0).random((2, 32, 32, 3))
    margin = (32 - size) // 2
    expected = images[:, margin : 32 - margin, margin : 32 - margin]
    assert augment.output_size(32, mode, crop) == size
    np.testing.assert_array_equal(augment.centre(images, mode, crop), expected)
