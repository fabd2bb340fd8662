"""Files: written whole, sealed, read with care."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_jax.errors import Damaged, UserError
from poison_jax.runs import files

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text().filter(lambda key: key != files.CHECKSUM), VALUES, max_size=4)


@given(OBJECTS, st.none() | st.just(2))
def test_an_object_comes_back(value, indent):
    text = files.dumps(value, indent=indent).encode()
    assert files.loads(text, "here") == files.plain(value)
    json.loads(text, parse_constant=pytest.fail)  # strict: no NaN


@settings(max_examples=300)
@given(OBJECTS, st.data())
def test_no_damage_is_read_as_another_value(value, data):
    """A byte changed, inserted or lost: the same value, or an error of one line."""
    text = bytearray(files.dumps(value).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.sampled_from([place, place + 1, len(text)]))
    text[place:end] = data.draw(st.binary(max_size=2))
    said, found = "here ", files.plain(value)
    try:
        found = files.loads(bytes(text), "here")
    except Damaged as error:
        said = str(error)
    assert said.startswith("here ")
    assert "\n" not in said
    assert found == files.plain(value)


def test_an_error_survives_another_process():
    """What looks at the data of a sweep tells its parent."""
    import pickle

    error = pickle.loads(pickle.dumps(Damaged("here", "is gone")))
    assert (str(error), error.reason) == ("here is gone: move it away", "is gone")


def test_reading_is_bounded(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert files.read(file, most=5) == b"12345"
    with pytest.raises(Damaged, match="has 5 bytes, more than 4"):
        files.read(file, most=4)
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "absent", most=4)
    with pytest.raises(OSError, match="directory"):
        files.read(tmp_path, most=4)


@pytest.mark.parametrize("name", ["", ".", "..", "/etc", "a/b", "a\\b", "a\0b", 3, None])
def test_a_name_leads_nowhere_else(name):
    assert not files.is_name(name)
    assert files.is_name("run-1@2")


def test_lines_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_JSON", 4)
    file = tmp_path / "file"
    file.write_bytes(b"123\n12\n\n1")
    assert list(files.lines(file)) == [b"123\n", b"12\n", b"\n", b"1"]
    file.write_bytes(b"123\n1234\n")
    with pytest.raises(Damaged, match="a line of more than 4 bytes"):
        list(files.lines(file))


def test_no_link_is_read_appended_to_or_sealed(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("mine\n")
    link.symlink_to(target)
    for touch in (
        lambda: files.read(link, most=99),
        lambda: list(files.lines(link)),
        lambda: files.append(link, "more"),
        lambda: files.within(link),
        lambda: files.seal(tmp_path, tmp_path.iterdir()),
    ):
        with pytest.raises(UserError, match="link"):
            touch()
    files.write(link, b"other")  # takes the link's place
    assert not link.is_symlink()
    assert target.read_text() == "mine\n"


def test_a_seal_is_of_what_was_there(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("a", "b", "inner/c"):
        (tmp_path / name).write_text(name)
    assert files.broken(tmp_path, tmp_path.rglob("*")) == {}  # none
    files.seal(tmp_path, tmp_path.rglob("*"))
    assert files.broken(tmp_path, tmp_path.rglob("*")) == {}
    (tmp_path / "d").write_text("later")
    (tmp_path / "a").write_text("A")
    (tmp_path / "inner" / "c").unlink()
    expected = {"a": "is not as it was written", "inner/c": "is gone"}
    assert files.broken(tmp_path, tmp_path.rglob("*")) == expected
    files.seal(tmp_path, [tmp_path / "a"], more=True)
    assert files.broken(tmp_path, tmp_path.rglob("*")) == {"inner/c": "is gone"}
    os.truncate(tmp_path / files.SEAL, 20)
    with pytest.raises(Damaged):
        files.broken(tmp_path, tmp_path.rglob("*"))


def test_a_file_of_holes_is_not_digested(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MOST_SEALED", 2**20)
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**20 + 1)
    with pytest.raises(Damaged, match="1,048,577 bytes"):
        files.seal(tmp_path, tmp_path.iterdir())


def test_a_file_is_written_though_its_draft_is_cleared_away(tmp_path, monkeypatch):
    """Two processes begin one run: the one that claims it clears away what the other is writing."""
    rename, cleared = os.replace, []

    def clear_once(source, target):
        if not cleared:
            cleared.append(source)
            os.unlink(source)
        rename(source, target)

    monkeypatch.setattr(os, "replace", clear_once)
    files.write_json(tmp_path / "config.json", {"a": 1})
    assert cleared
    assert files.read_json(tmp_path / "config.json") == {"a": 1}
    with pytest.raises(FileNotFoundError):
        files.write_json(tmp_path / "absent" / "config.json", {})
