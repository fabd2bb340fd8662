"""A result in words: what a trigger adds comes first, and a collapse is no success."""

import pytest

from poison_jax import wording

RESULT = {
    "asr": 0.84,
    "no_trigger_target_rate": 0.02,
    "clean_accuracy": 0.6,
    "overlap": [0.1, -0.5],
    "overlap_squared": [0.01, 0.25],
    "max_overlap_index": 1,
    "trigger_found": True,
    "wall_seconds": 75.0,
    "status": "ok",
}


def test_what_the_trigger_adds_comes_first():
    first, *others = wording.rows([RESULT, RESULT | {"asr": 0.01}])
    assert first == ("ASR above the rate without trigger", "+82.0%", "-1.0%")
    assert others[0] == ("  ASR (target class excluded)", "84.0%", "1.0%")
    assert others[1] == ("  target rate without trigger", "2.0%", "2.0%")
    assert ("  in eigenvector", "v2 of 2", "v2 of 2") in others
    assert ("wall time", "1 min 15 s", "1 min 15 s") in others
    assert "status" not in dict.fromkeys(row[0] for row in others)


def test_a_measure_that_some_results_lack_is_a_dash_and_one_that_all_lack_is_left_out():
    found = {label: values for label, *values in wording.rows([RESULT, {"asr": None}])}
    assert found["clean accuracy"] == ["60.0%", wording.DASH]
    assert found["ASR above the rate without trigger"] == ["+82.0%", wording.DASH]
    assert "robust accuracy" not in found


@pytest.mark.parametrize(
    ("asr", "untriggered", "collapsed"),
    [
        (0.84, 0.74, True),
        (1.0, 1.0, True),
        (0.2, 0.9, True),
        (0.84, 0.02, False),  # an attack that works
        (0.03, 0.03, False),  # one that does not, in a sound network
        (0.95, 0.49, False),
        (0.6, 0.5, True),
        (None, 0.5, False),
        (0.5, None, False),
    ],
)
def test_a_collapse_is_named(asr, untriggered, collapsed):
    result = RESULT | {"asr": asr, "no_trigger_target_rate": untriggered}
    assert wording.concern(result).startswith("collapsed: ") == collapsed
    assert wording.headline(result).startswith("collapsed: ") == collapsed
    labels = dict(wording.rows([result]))
    assert labels.get("status") == ("collapsed" if collapsed else None)


def test_a_failed_training_is_said_before_anything_else():
    result = RESULT | {"status": "failed training: clean accuracy is near chance"}
    assert wording.headline(result).startswith("failed training: clean accuracy is near chance; ASR 82.0")
    assert ("status", "failed training", "ok") in wording.rows([result, RESULT])


def test_headline():
    assert wording.headline(RESULT) == (
        "ASR 82.0 percentage points above the rate without the trigger (84.0% with it, 2.0% without); "
        "clean accuracy 60.0%; "
        "trigger found in the top 2 eigenvectors of the input Hessian (largest overlap -0.500, v2)"
    )
    assert wording.headline({}) == "clean accuracy –"


def test_a_damaged_measure_raises_where_it_is_shown():
    damaged = RESULT | {"overlap_squared": []}
    assert "overlap" in wording.measures([damaged])
    with pytest.raises(LookupError):
        wording.rows([damaged])
