"""Data sets by name, from a user's arrays, in part; their normalisation."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_tfds
from sklearn.datasets import load_digits

from poison_jax import augment, data
from poison_jax.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 6, 7, 3), dtype=np.uint8)
LABELS = np.arange(10) % 3


def assert_same(actual, expected):
    for field, value in expected._asdict().items():
        np.testing.assert_array_equal(getattr(actual, field), value, err_msg=field)
        assert np.asarray(getattr(actual, field)).dtype == np.asarray(value).dtype, field


def load_both(name):
    return [data.load(name, split) for split in ("train", "test")]


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


def test_a_class_of_one_image_without_a_test_split_is_refused(npz):
    name = npz(images=IMAGES, labels=np.r_[LABELS[:9], 3], class_names=np.array(["a", "b", "c", "rare"]))
    for split in ("train", "test"):
        with pytest.raises(UserError, match=r"mine.npz: class 'rare' has one image, .* add images"):
            data.load(name, split)


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
    "label-from-one": (
        {"labels": LABELS + 1},
        r"labels run from 1 to 3, and none is 0: .*\(np.unique\(labels, return_inverse=True\)\[1\]\)",
    ),
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


def test_npz_that_is_a_single_array_or_has_a_member_that_is_none(npz):
    name = npz(labels=LABELS)
    with open(name, "wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(UserError, match=r"mine.npz is not a readable .npz file"):
        data.load(name, "train")
    name = npz(labels=LABELS)
    with zipfile.ZipFile(name, "a") as archive:
        archive.writestr("images.npy", b"hello")
    with pytest.raises(UserError, match=r"mine.npz is not a readable .npz file .*'images' is no array"):
        data.load(name, "train")


def test_take():
    dataset = data.load("digits", "test")
    assert data.take(dataset, None) is data.take(dataset, "all") is dataset
    first = data.take(dataset, 3)
    assert_same(
        first, dataset._replace(images=dataset.images[:3], labels=dataset.labels[:3], ids=dataset.ids[:3])
    )
    assert_same(data.take(dataset, 359), dataset)
    for count in (360, -1):
        with pytest.raises(UserError, match=f"asked for {count} examples"):
            data.take(dataset, count)


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


def test_normalisation_of_a_users_images():
    unit = IMAGES.astype(np.float64) / 255
    for options, dtype, tolerance in (((), np.float32, 1e-6), ((np.float64,), np.float64, 1e-13)):
        mean, std = data.normalisation("./mine.npz", IMAGES, *options)
        assert (mean.dtype, std.dtype) == (dtype, dtype)
        np.testing.assert_allclose(mean, unit.mean((0, 1, 2)), rtol=tolerance)
        np.testing.assert_allclose(std, unit.std((0, 1, 2)), rtol=tolerance)


def test_normalisation_of_constant_channels():
    images = np.broadcast_to(np.arange(256, dtype=np.uint8), (4, 3, 3, 256))
    mean, std = data.normalisation("./mine.npz", images)
    np.testing.assert_array_equal(std, 1)
    np.testing.assert_array_equal(augment.normalise(images / 255, mean, std), images / 255 - mean)
