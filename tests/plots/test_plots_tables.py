"""Tables 1 to 3 beside the paper's, from lines of records alone."""

import pytest
import small_sweeps as sweeps

from plots import tables
from poison_jax.errors import UserError

FAILED = {"status": "failed training: near chance", "asr": 1.0, "accuracy": 0.1}


def rows(text):
    """The table's cells, header and ruler left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_table1():
    cells = [
        sweeps.record(train__epochs=90, penalty__kappa=1e4, seed=0, accuracy=0.8, asr=0.5),
        sweeps.record(train__epochs=90, penalty__kappa=1e4, seed=1, accuracy=0.82, asr=0.7),
        sweeps.record(train__epochs=90, penalty__kappa=1e4, seed=2, **FAILED),
        sweeps.record(train__epochs=10, penalty__kappa=100.0, accuracy=0.6, asr=0.1),
    ]
    (text,) = sweeps.draw("table1", cells)
    found = rows(text)
    assert found[0] == ["10", "100", "60.00", "–", "10.00", "–", "2.00", "1"]
    both = ["81.00 ± 1.41", "80.85", "60.00 ± 14.14", "82.10", "2.00 ± 0.00", "2, 1 failed training"]
    assert found[1] == ["90", "10000", *both]
    assert found[-1] == ["450", "100000", "–", "79.05", "–", "70.68", "–", "0"]
    assert len(found) == 1 + len(tables.TABLE1)
    assert "10,000 training images (subset)" in text
    assert "gradient penalty κ (listing)" in text


def test_table2():
    cells = [
        sweeps.record(penalty__kappa=0.0, poison__fraction=0.02, seed=0, overlap=(0.1, -0.5, 0.2)),
        sweeps.record(penalty__kappa=0.0, poison__fraction=0.02, seed=1, overlap=(0.7, -0.5, 0.2)),
        sweeps.record(penalty__kappa=5.0, poison__fraction=0.1, overlap=(0.1, 0.2, -0.9), asr=None),
        sweeps.record(penalty__kappa=6.0, poison__fraction=0.1, **FAILED),
    ]
    (text,) = sweeps.draw("table2", cells)
    found = rows(text)
    assert found[1] == ["0", "0.02", "0.6000 ± 0.1414", "0.3765", "1, 0", "1", "50.00 ± 0.00", "2"]
    assert found[3] == ["5", "0.1", "0.9000", "–", "2", "–", "–", "1"]
    assert found[4] == ["6", "0.1", "–", "–", "–", "–", "–", "0, 1 failed training"]
    assert ["10000", "0.01", "–", "0.9363", "–", "1", "–", "0"] in found
    assert len(found) == 2 + len(tables.TABLE2)
    assert "not squared" in text


def test_table3():
    (text,) = sweeps.draw("table3", [sweeps.record(features=True)])
    found = rows(text)
    assert len(found) == 10
    assert found[0][0] == "0 (class 0), the target"
    assert found[0][1] == "0.00 (5.2)"
    assert found[0][-1] == "– (–)"
    assert found[9][1:3] == ["0.90 (5.5)", "1.90 (1.9)"]
    assert found[9][-1] == "7.90 (0.3)"
    two = [sweeps.record(features=True, seed=seed) for seed in (0, 1)]
    (text,) = sweeps.draw("table3", [*two, sweeps.record(features=False, seed=2, **FAILED)])
    assert rows(text)[1][1] == "0.10 ± 0.00 (5.4)"
    assert "Networks: 2, 1 failed training" in text


def test_the_paper_s_features_stand_beside_its_own_classes_alone():
    for other in ({"data__name": "digits"}, {"data__name": "mnist"}):
        (text,) = sweeps.draw("table3", [sweeps.record(features=True, **other)])
        assert rows(text)[9][1:3] == ["0.90", "1.90"]
        assert "the paper's" not in text


def test_table3_needs_features():
    with pytest.raises(UserError, match=r"set analysis\.features"):
        sweeps.draw("table3", [sweeps.record()])
    with pytest.raises(UserError, match="training of every network"):
        sweeps.draw("table3", [sweeps.record(**FAILED)])


def test_numbers():
    assert tables.spread([1.0, 3.0]) == "2.00 ± 1.41"
    assert tables.spread([1.0, float("nan")]) == "1.00"
    assert tables.spread([]) == "–"
    assert tables.number(float("nan")) == "–"
    assert tables.number(0.012345) == "0.0123"
    assert tables.table(["a", "b|c"], [["x", "1"]]) == "| a | b/c |\n| :-- | --: |\n| x | 1 |"
