"""Section 5's sentences against records whose truth is known."""

import pytest
import small_sweeps as sweeps

from plots import __main__ as command
from plots import claims


def cell(theta, kappa, asr, *, accuracy=0.6, overlap=0.0, seed=0, **others):
    axes = {"poison__fraction": theta, "penalty__kappa": kappa, "seed": seed}
    return sweeps.record(**axes, asr=asr, accuracy=accuracy, overlap=(overlap, 0.0, 0.0), **others)


def found(**by_sweep):
    """text -> (what was found, verdict)."""
    made = claims.all_claims(by_sweep)
    return {claim.text: (claim.found, claim.verdict) for claim in made}


PLAIN = [
    cell(0.0, 0.0, 0.02, accuracy=0.7),
    cell(0.0, 100.0, 0.02),
    cell(0.01, 0.0, 0.6, accuracy=0.7),
    cell(0.01, 100.0, 0.1),
    cell(0.1, 0.0, 0.9, accuracy=0.65, overlap=0.9),
    cell(0.1, 100.0, 0.7, overlap=0.01),
]


def test_without_cells_everything_is_open():
    assert {verdict for _, verdict in found().values()} == {"open"}


def test_what_the_paper_says_is_seen_where_it_is_so():
    said = found(fig06=PLAIN)
    assert said["ASR increases with θ"][1] == "seen"
    assert said["ASR increases with θ"][0].startswith("2 of 2 steps; +45.0 points a step")
    assert said["ASR decreases with κ"][1] == "seen"
    assert said["increasing κ always reduces test accuracy"][1] == "seen"
    assert said["ASR comes before an overlap² that is above both nulls"][1] == "seen"
    assert said["ASR comes before an overlap² above 0.1"][1] == "seen"


def test_and_not_where_it_is_not():
    turned = [cell(t, k, asr, accuracy=0.6 + k / 1000) for t, k, asr in ((0.1, 0.0, 0.5), (0.1, 100.0, 0.8))]
    said = found(fig06=[*turned, cell(0.2, 0.0, 0.3)])
    assert said["ASR decreases with κ"][1] == "not seen"
    assert said["ASR increases with θ"][1] == "not seen"
    assert said["increasing κ always reduces test accuracy"][1] == "not seen"


def test_an_overlap_before_the_attack_is_no_lag():
    early = [cell(0.0, 0.0, 0.02), cell(0.01, 0.0, 0.1, overlap=0.9), cell(0.1, 0.0, 0.9, overlap=0.9)]
    for claim in (
        "ASR comes before an overlap² that is above both nulls",
        "ASR comes before an overlap² above 0.1",
    ):
        words, verdict = found(fig06=early)[claim]
        assert verdict == "not seen"
        assert "κ = 0: ASR > 50 % from" in words


def test_augmentation():
    alike = [cell(0.1, 0.0, 0.9), cell(0.1, 100.0, 0.3)]
    said = found(fig06=PLAIN, fig07=alike)
    assert said["augmentation without the penalty does not help"] == (
        "ASR falls by +0.0 points; helps in 0 of 1",
        "seen",
    )
    assert said["augmentation with the penalty does"] == (
        "ASR falls by +40.0 points; helps in 1 of 1",
        "seen",
    )


def test_longer_training():
    said = found(
        table1=[
            cell(0.1, 100.0, 0.3, train__epochs=10),
            cell(0.1, 100.0, 0.7, train__epochs=50, accuracy=0.65),
        ]
    )
    assert said["longer training raises accuracy"][1] == said["longer training raises ASR"][1] == "seen"


@pytest.mark.parametrize(("asr", "verdict"), [(0.85, "seen"), (0.95, "not seen")])
def test_deterministic_poison(asr, verdict):
    said = found(fig06=[cell(0.1, 0.0, 0.9)], fig09=[cell(0.1, 0.0, asr)])
    assert said["deterministic poison: ASR is a little worse"][1] == verdict


def test_the_warp_is_judged_by_what_is_above_the_rate_without_a_trigger():
    warp = [cell(0.1, 0.0, 0.8), cell(0.1, 100.0, 0.1, accuracy=0.5)]
    words, verdict = found(fig11=warp)["warp: κ costs less accuracy than ASR"]
    assert verdict == "seen"
    assert words == "accuracy × 0.83, ASR above the rate without a trigger × 0.10"


def test_failed_training_is_left_out():
    failed = cell(0.1, 100.0, 1.0, accuracy=0.1, status="failed training: near chance")
    assert found(fig06=[*PLAIN[:-1], failed])["ASR decreases with κ"][1] == "seen"


def test_as_a_command(tmp_path, capsys):
    sweeps.write(tmp_path, "fig06-small", PLAIN)
    command.main(["claims", "--runs", str(tmp_path), "--out", str(tmp_path), "--size", "small"])
    text = (tmp_path / "claims.md").read_text()
    assert "| ASR increases with θ | fig06 | 2 of 2 steps" in text
    assert text in capsys.readouterr().out
    command.main(["claims", "--runs", str(tmp_path), "--out", str(tmp_path)])  # the first grid that is there
    assert text in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        command.main(["claims", "--runs", str(tmp_path), "--out", str(tmp_path), "--size", "paper"])
    assert stopped.value.code == 2
    assert "no finished cell" in capsys.readouterr().err
