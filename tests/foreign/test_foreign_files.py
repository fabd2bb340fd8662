"""Files of weights: every format read, what is no plain tensor refused by name, nothing run."""

import io
import os
import sys

import numpy as np
import pytest
import torch_format as tf

from poison_jax import foreign
from poison_jax.errors import UserError
from poison_jax.foreign import files, pickles

WEIGHTS = tf.weights()
IMAGES = np.random.default_rng(1).uniform(size=(5, 6, 6, 1)).astype(np.float32)
WRITERS = {
    "zip": lambda arrays: tf.zipped(tf.pickled(tf.state_dict(arrays)), arrays),
    "legacy": lambda arrays: tf.legacy(tf.pickled(tf.state_dict(arrays, legacy=True)), arrays),
    "safetensors": tf.safetensors,
}


def written(tmp_path, content):
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    return path


def zipped(tmp_path, value, arrays=WEIGHTS, **members):
    return written(tmp_path, tf.zipped(tf.pickled(value), arrays, **members))


def refused(path):
    """The one line that both readers say."""
    with pytest.raises(UserError) as inspected:
        foreign.inspect(path)
    with pytest.raises(UserError) as loaded:
        foreign.load(path, tf.DESCRIPTION)
    assert str(inspected.value) == str(loaded.value)
    assert "\n" not in str(loaded.value)
    assert str(loaded.value).startswith(str(path))
    return str(loaded.value)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", WRITERS)
def test_each_format_gives_the_numbers_that_were_written(tmp_path, kind, dtype):
    arrays = tf.weights(dtype=dtype)
    path = written(tmp_path, WRITERS[kind](arrays))
    assert foreign.inspect(path) == {name: (array.shape, dtype) for name, array in arrays.items()}
    subject = foreign.load(path, tf.DESCRIPTION)
    expected = tf.logits(arrays, IMAGES)
    np.testing.assert_allclose(subject.logits(IMAGES), expected, atol=1e-5 * np.abs(expected).max())


def test_npz(tmp_path):
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "w.npz", **WEIGHTS)
        found = foreign.load(tmp_path / "w.npz", tf.DESCRIPTION)
        np.testing.assert_allclose(found.logits(IMAGES), tf.logits(WEIGHTS, IMAGES), atol=1e-5)
    np.savez(tmp_path / "w.npz", a=np.array([{}], dtype=object))
    assert "a is of type object" in refused(tmp_path / "w.npz")
    np.savez(tmp_path / "w.npz", a=np.zeros([1] * 9))
    assert "a has 9 dimensions" in refused(tmp_path / "w.npz")


def test_safetensors_written_here(tmp_path):
    files.write_safetensors(tmp_path / "w.safetensors", WEIGHTS)
    with files.opened(tmp_path / "w.safetensors") as found:
        for name, entry in found.entries.items():
            np.testing.assert_array_equal(entry.read(), WEIGHTS[name])


def test_safetensors_as_the_package_writes_and_reads_it(tmp_path):
    package = pytest.importorskip("safetensors.numpy")
    package.save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert foreign.inspect(tmp_path / "w.safetensors").keys() == WEIGHTS.keys()
    files.write_safetensors(tmp_path / "w.safetensors", WEIGHTS)
    for name, array in package.load_file(tmp_path / "w.safetensors").items():
        np.testing.assert_array_equal(array, WEIGHTS[name])


def test_strides_offsets_and_shared_storages(tmp_path):
    numbers = np.arange(24, dtype=np.float32)
    value = {
        "all": tf.tensor(numbers, "0"),
        "transposed": tf.tensor(numbers, "0", offset=2, shape=(2, 3), strides=(1, 4)),
        "empty": tf.tensor(numbers, "0", shape=(0, 5), strides=(5, 1)),
        "number": tf.tensor(numbers, "0", offset=7, shape=(), strides=()),
    }
    with files.opened(zipped(tmp_path, value, {"0": numbers})) as found:
        read = {name: entry.read() for name, entry in found.entries.items()}
    np.testing.assert_array_equal(read["transposed"], [[2, 6, 10], [3, 7, 11]])
    assert read["empty"].shape == (0, 5)
    assert read["number"] == 7
    np.testing.assert_array_equal(read["all"], numbers)


@pytest.mark.parametrize(
    "other", [{"offset": 1}, {"strides": (2,)}, {"shape": (25,)}, {"strides": (0,), "shape": (99,)}]
)
def test_a_tensor_outside_its_storage(tmp_path, other):
    numbers = np.arange(24, dtype=np.float32)
    path = zipped(tmp_path, {"w": tf.tensor(numbers, "0", **other)}, {"0": numbers})
    assert "outside its storage" in refused(path)


@pytest.mark.parametrize("bad", [-1, 2**60, 1.5, "1", None])
def test_sizes_that_are_none(tmp_path, bad):
    numbers = np.arange(24, dtype=np.float32)
    bad = bad if not isinstance(bad, float) else tf.Raw(b"G" + bytes(8))
    for part in ("offset", "shape"):
        other = {part: (bad,) if part == "shape" else bad}
        assert "whole numbers" in refused(
            zipped(tmp_path, {"w": tf.tensor(numbers, "0", **other)}, {"0": numbers})
        )


@pytest.mark.parametrize("key", ["state_dict", "model", "anything"])
def test_a_state_dict_inside(tmp_path, key):
    extra = {"epoch": 3, "optimizer": {"state": {}}, "args": tf.Call(tf.Name("argparse", "Namespace"))}
    found = foreign.inspect(zipped(tmp_path, {key: tf.state_dict(WEIGHTS)} | extra))
    assert found.keys() == WEIGHTS.keys()


def test_legacy_storages_besides_the_state_dict(tmp_path):
    arrays = WEIGHTS | {"momentum": np.arange(5.0)}
    parts = tf.state_dict(arrays, legacy=True)
    value = {"optimizer": {"state": {"x": parts.pop("momentum")}}, "model": parts}
    path = written(tmp_path, tf.legacy(tf.pickled(value), arrays))
    assert foreign.inspect(path).keys() == WEIGHTS.keys()
    found = foreign.load(path, tf.DESCRIPTION)
    np.testing.assert_allclose(found.logits(IMAGES), tf.logits(WEIGHTS, IMAGES), atol=1e-5)


def test_backdoorbench(tmp_path):
    made = tf.Call(tf.Name("utils.save_load_attack", "prepro_cls_DatasetBD_v2"))
    value = {"model_name": "preactresnet18", "num_classes": 3, "model": tf.state_dict(WEIGHTS)}
    value |= {"clean_data": "cifar10", "bd_train": made}
    path = zipped(tmp_path, value)
    own = foreign.load(path, tf.DESCRIPTION)
    assert own.normalisation == foreign.BACKDOORBENCH["cifar10"]
    assert foreign.load(path, tf.DESCRIPTION, normalisation=(0.5, 0.5)).normalisation == (0.5, 0.5)
    value["clean_data"] = "unheard"
    with pytest.raises(UserError, match="unheard"):
        foreign.load(zipped(tmp_path, value), tf.DESCRIPTION)


def test_several_state_dicts_are_not_chosen_from(tmp_path):
    state = tf.state_dict(WEIGHTS)
    assert "several state dicts (model, ema)" in refused(zipped(tmp_path, {"model": state, "ema": state}))
    assert "no tensors" in refused(zipped(tmp_path, {"model": {}}))


def test_the_counter_and_the_prefix_of_data_parallel_are_dropped(tmp_path):
    arrays = {f"module.{name}": array for name, array in WEIGHTS.items()}
    arrays["module.b.num_batches_tracked"] = np.array(7)
    found = foreign.load(zipped(tmp_path, tf.state_dict(arrays), arrays), tf.DESCRIPTION)
    np.testing.assert_allclose(found.logits(IMAGES), tf.logits(WEIGHTS, IMAGES), atol=1e-5)


def test_what_is_no_plain_tensor_is_refused_by_name(tmp_path):
    for name in ("_rebuild_qtensor", "_rebuild_sparse_tensor"):
        made = tf.Call(tf.Name("torch._utils", name), ())
        said = refused(zipped(tmp_path, tf.state_dict(WEIGHTS) | {"c.0.bias": made}))
        assert f"c.0.bias is made by torch._utils.{name}" in said
    assert "'epoch' in the state dict" in refused(zipped(tmp_path, tf.state_dict(WEIGHTS) | {"epoch": 3}))
    assert "whole pickled object (my.Net)" in refused(zipped(tmp_path, tf.Call(tf.Name("my", "Net"))))
    assert "pickled list" in refused(zipped(tmp_path, [1]))


def test_names_that_a_terminal_would_obey(tmp_path):
    state = tf.state_dict(WEIGHTS)
    for name in ("a\nb", "\x1b[2J", "n" * 10**5):
        said = refused(zipped(tmp_path, state | {name: 3}))
        assert len(said) < 1000
        assert said.isprintable()
        with pytest.raises(UserError) as error:
            foreign.load(zipped(tmp_path, state | {name: state["a.bias"]}), tf.DESCRIPTION)
        assert str(error.value).isprintable()


def test_types_that_are_no_weights(tmp_path):
    arrays = WEIGHTS | {"c.0.bias": np.arange(3)}
    with pytest.raises(UserError, match=r"c.0.bias is of type int64"):
        foreign.load(zipped(tmp_path, tf.state_dict(arrays), arrays), tf.DESCRIPTION)
    arrays["c.0.bias"] = np.array([0, np.nan, 1], np.float32)
    with pytest.raises(UserError, match=r"c.0.bias holds values that are not finite"):
        foreign.load(zipped(tmp_path, tf.state_dict(arrays), arrays), tf.DESCRIPTION)


def test_archives_that_are_not_as_torch_writes_them(tmp_path):
    state = tf.state_dict(WEIGHTS)
    assert "big-endian" in refused(zipped(tmp_path, state, byteorder=b"big"))
    without = dict(list(WEIGHTS.items())[:-1])
    assert "storage of c.0.bias is not in the archive" in refused(zipped(tmp_path, state, without))
    shorter = WEIGHTS | {"c.0.bias": np.zeros(2, np.float32)}
    with pytest.raises(UserError, match=r"c.0.bias cannot be read: its storage has 8 bytes, not 12"):
        foreign.load(zipped(tmp_path, state, shorter), tf.DESCRIPTION)


@pytest.mark.parametrize("kind", WRITERS)
def test_truncated_files(tmp_path, kind):
    """Wherever a file ends too early, one line says so."""
    content = WRITERS[kind](WEIGHTS)
    for size in range(0, len(content), 37):
        path = written(tmp_path, content[:size])
        with pytest.raises(UserError) as error:
            foreign.load(path, tf.DESCRIPTION)
        assert "\n" not in str(error.value)


def test_files_of_other_kinds(tmp_path):
    for content in (
        b"",
        b"hello",
        b"\x89PNG\r\n",
        b"PK\x03\x04" + bytes(50),
        bytes(200),
        b"\x89HDF\r\n\x1a\n",
    ):
        refused(written(tmp_path, content))
    assert "ask for a state dict" in refused(written(tmp_path, tf.pickled({"a": 1})))
    assert "cannot be read" in refused(tmp_path / "absent.pt")
    assert "no regular file" in refused("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refused(tmp_path / "pipe")


def test_a_safetensors_header_that_lies(tmp_path):
    for about in (
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]},
        {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]},
        {"shape": [1]},
        3,
    ):
        refused(written(tmp_path, tf.safetensors(WEIGHTS, **{"c.0.bias": about})))


# --- nothing is run ---------------------------------------------------------------------------------


def test_a_payload_is_inert_where_it_does_not_matter_and_named_where_it_does(tmp_path):
    mark = tmp_path / "mark"
    payload = tf.Call(tf.Name("os", "mkdir"), (str(mark),))
    beside = zipped(tmp_path, {"model": tf.state_dict(WEIGHTS), "args": payload})
    assert foreign.inspect(beside).keys() == WEIGHTS.keys()
    said = refused(zipped(tmp_path, tf.state_dict(WEIGHTS) | {"a.bias": payload}))
    assert "a.bias is made by os.mkdir" in said
    assert not mark.exists()


def test_no_module_is_imported(tmp_path):
    assert "antigravity" not in sys.modules
    named = tf.Call(tf.Name("antigravity", "geohash"), (1,))
    foreign.inspect(zipped(tmp_path, {"model": tf.state_dict(WEIGHTS), "x": named}))
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "code",
    [
        b"(S'x'\nios\nmkdir\n",  # INST
        b"(cos\nmkdir\nX\x01\x00\x00\x00xo",  # OBJ
        b"\x82\x01",  # EXT1
        b"\x83\x01\x00",  # EXT2
        b"\x84\x01\x00\x00\x00",  # EXT4
        b"Pstorage\n",  # PERSID
        b"I1\n",  # protocol 0
        b"\x97",  # NEXT_BUFFER
    ],
)
def test_instructions_that_torch_does_not_write(tmp_path, code):
    assert "which torch does not write" in refused(zipped(tmp_path, {"x": tf.Raw(code)}))


def test_a_long_pickle_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("poison_jax.foreign.pickles.MOST", 1000)
    assert "more than 1,000 instructions" in refused(zipped(tmp_path, [1] * 1001))
    # A list of 100 pairs, of which a dict is made again and again.
    for call in (b"R", b"\x81"):
        again = b"ccollections\nOrderedDict\nh\x00\x85" + call + b"0"
        code = tf.pickled([("a", 1)] * 100)[2:-1] + b"q\x00" + again * 20
        assert "more than 1,000 instructions" in refused(zipped(tmp_path, tf.Raw(code)))
    # A text of 100 characters, of which a name is made again and again.
    code = tf.pickled("a" * 100)[2:-1] + b"q\x00" + b"h\x00h\x00\x930" * 20
    assert "more than 1,000 instructions" in refused(zipped(tmp_path, tf.Raw(code)))


DEEP = b")q\x000" + b"h\x00h\x00\x86q\x000" * 60 + b"h\x00"  # a tuple of tuples, each twice the one before
HUGE = b"\x8b\x09\x00\x00\x00" + bytes(8) + b"\x01"  # 2^64


@pytest.mark.parametrize("key", [DEEP, HUGE])
def test_keys_that_would_take_ages_to_hash(tmp_path, key):
    found = foreign.inspect(zipped(tmp_path, {"model": tf.state_dict(WEIGHTS), tf.Raw(key): 1}))
    assert found.keys() == WEIGHTS.keys()
    loaded = pickles.load(io.BytesIO(tf.pickled({"a": 1, 2: 3, True: 4, tf.Raw(key): 5})))
    assert loaded.value == {"a": 1, 2: 3, True: 4}
    keys = tf.pickled([str(i) for i in range(len(WEIGHTS))])
    content = WRITERS["legacy"](WEIGHTS).replace(keys, tf.pickled([tf.Raw(key)]))
    assert "storages of a type that is not known" in refused(written(tmp_path, content))


@pytest.mark.parametrize("code", [b"h\x00h\x00\x93", b"}h\x00Ns"])
def test_names_and_keys_have_a_longest(tmp_path, code):
    def made(count):
        return zipped(tmp_path, tf.Raw(tf.pickled("a" * count)[2:-1] + b"q\x00" + code))

    assert "4,096 characters" in refused(made(4097))
    assert "4,096" not in refused(made(4096))


def test_a_storage_is_described_by_a_tuple_of_six_at_most(tmp_path):
    for raw in (b"](" + b"N" * 5 + b"e", b"(" + b"N" * 7 + b"t"):
        assert "torch did not describe" in refused(zipped(tmp_path, tf.Raw(raw + b"Q")))


def test_a_dict_in_many_places_is_looked_at_once(tmp_path, monkeypatch):
    looked = []
    has_tensors = files._has_tensors
    monkeypatch.setattr(files, "_has_tensors", lambda found: looked.append(found) or has_tensors(found))
    places = b"".join(b"K" + bytes([i]) + b"h\x00" for i in range(100))
    with pytest.raises(UserError, match="no tensors"):
        foreign.inspect(zipped(tmp_path, tf.Raw(b"}q\x00}(" + places + b"u")))
    assert len(looked) <= 2
