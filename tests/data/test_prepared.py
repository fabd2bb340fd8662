"""Data sets prepared by tensorflow-datasets: which version is read, and the cache of what was decoded."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_tfds
from test_data import IMAGES, LABELS, assert_same, damaged

import poison_jax
from poison_jax import data
from poison_jax.data import prepared
from poison_jax.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POISON_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache):
    return [file for file in cache.iterdir() if file.suffix != ".lock"]


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
        (("incomplete.4F2A_3.0.1",), None),
    ],
)
def test_the_newest_whole_version_is_read(tmp_path, cache, monkeypatch, there, newest):
    for version in there:
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").write_text("{}")
    if newest is None:
        with pytest.raises(UserError, match="mnist is not prepared"):
            data.load("mnist", "train", data_dir=str(tmp_path))
        return
    arrays = {"images": IMAGES, "labels": LABELS, "ids": np.arange(10), "class_names": np.array(list("abc"))}
    decoded = []
    monkeypatch.setattr(prepared, "_decode", lambda folder, *_: decoded.append(folder.name) or arrays)
    assert data.load("mnist", "train", data_dir=str(tmp_path)).class_names == ("a", "b", "c")
    assert decoded == [newest]


@needs_tfds
def test_cifar10_has_the_ids_of_its_examples():
    train = data.load("cifar10", "train")
    assert train.images.shape == (50_000, 32, 32, 3)
    assert (train.num_classes, train.class_names[0]) == (10, "airplane")
    np.testing.assert_array_equal(np.sort(train.ids), np.arange(50_000))
    assert np.mean(train.ids == np.arange(50_000)) < 0.01  # stored shuffled: the position is no substitute


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
