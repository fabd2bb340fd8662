"""What is said of an error: one line, that a terminal shows and does not obey."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poison_jax import console, errors


@given(st.text(max_size=2000))
def test_a_printable_text_is_one_short_line_of_what_can_be_seen(text):
    line = console.printable(text, most=100)
    assert line.isprintable()
    assert len(line) <= len("\\U0010ffff") * 105


def test_what_is_long_keeps_its_ends():
    assert console.printable("who " + "x" * 10**6 + " mend it", most=20) == "who xxxxxx ... xx mend it"


class Mute(Exception):
    """Fails when it is asked what it says."""

    def __str__(self):
        raise self


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\nlines"), "two lines"),
        (KeyError("key"), "key"),
        (KeyError(), "KeyError"),
        (SystemExit(), "SystemExit"),
        (Mute(), "Mute"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_an_exception_says(error, line):
    assert errors.one_line_of(error) == line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.UserError("no\n\x1b[31mway"), "no \\x1b[31mway"),
        (OSError(28, "No space left on device", "x"), "[Errno 28] No space left on device: 'x': free"),
    ],
)
def test_one_line_ends_the_process(error, said, capsys):
    with pytest.raises(SystemExit) as left, errors.one_line():
        raise error
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
