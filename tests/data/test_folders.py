"""A folder of class folders of pictures: classes, splits, what is ignored and what is refused."""

import numpy as np
import pytest
from PIL import Image
from test_data import IMAGES, assert_same, load_both

from poison_jax import data
from poison_jax.errors import UserError


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


@pytest.mark.parametrize(
    ("images_of", "message"),
    [
        ({}, "no class folders"),
        ({"cat": []}, "cat holds no pictures: fill the class folder, or remove it"),
        ({"cat": IMAGES[:2], "dog": []}, "dog holds no pictures"),
        ({"cat": IMAGES[:9], "dog": IMAGES[9:]}, "class 'dog' has one image"),
        ({"cat": [IMAGES[0], IMAGES[1][1:]]}, r"01.png is \(5, 7, 3\), the first image \(6, 7, 3\): resize"),
    ],
    ids=["no-classes", "no-images", "empty-class", "one-image", "unequal"],
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
