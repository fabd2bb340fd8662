"""The harness's verdict on growth: on what the program holds, not on the mood of the machine."""

import pytest

from tests.faults.chapter import Chapter
from tests.faults.load import _measure


@pytest.fixture
def chapter(tmp_path):
    return Chapter("load", tmp_path, seed=0, seconds=1)


def looks(count=100, **growth):
    """What a training holds after each step: what is named grows by so much a step."""
    held = {"seconds": 0.0, "arrays": 10**6, "blocks": 10**6, "memory": 500.0, "threads": 30, "files": 6}
    return [{name: held[name] + growth.get(name, 0) * step for name in held} for step in range(count)]


def test_steady_is_well(chapter):
    _measure(chapter, "toy", looks(seconds=0.5), settled=20)
    assert chapter.failures == []
    assert chapter.measured["toy: seconds a step"] == "0.5"


def test_resident_memory_and_time_are_reported_without_a_verdict(chapter):
    """Other programs and the C library decide over them."""
    _measure(chapter, "toy", looks(memory=3.0, seconds=100.0), settled=20)
    assert chapter.failures == []
    assert chapter.measured["toy: resident MiB after 20 steps, and after 100"] == "557, 797"


@pytest.mark.parametrize(("what", "by"), [("arrays", 4), ("blocks", 2000), ("threads", 0.1), ("files", 0.1)])
def test_what_the_program_holds_must_not_grow(chapter, what, by, capsys):
    _measure(chapter, "toy", looks(**{what: by}), settled=20)
    (failure,) = chapter.failures
    assert f"{what} grew by" in failure
    assert "BROKEN" in capsys.readouterr().err
