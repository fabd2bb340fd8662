"""The paper's claims against records whose truth is known."""

import numpy as np
import pytest
import small_sweeps as sweeps
from scipy import stats

from plots import __main__ as command
from plots import claims

BY_TEXT = {claim.text: claim for claim in claims.CLAIMS}


def cell(theta, kappa, asr, *, accuracy=0.6, overlap=0.0, top=3.0, index=None, trained=None, **others):
    """A finished network; `overlap` squared is that of v1, `top` the largest eigenvalue."""
    axes = {"poison__fraction": theta, "penalty__kappa": kappa, "seed": others.pop("seed", 0)}
    axes |= {"train__epochs": others.pop("epochs", 10)}
    record = sweeps.record(**axes, asr=asr, accuracy=accuracy, overlap=(overlap**0.5, 0.0, 0.0), **others)
    record.result["eigenvalues"][0] = top
    if index is not None:
        record.result["max_overlap_index"] = index
    if trained is not None:
        record.result.update(train_accuracy=trained, decay_time=0.65)
    return record


def over_seeds(*cells, seeds=(0, 1, 2)):
    """Each cell for every seed; the ASR moves by a hundredth from seed to seed."""
    made = []
    for seed in seeds:
        for theta, kappa, asr, *others in cells:
            made.append(cell(theta, kappa, asr + seed / 100, seed=seed, **(others[0] if others else {})))
    return made


def found(text, **by_sweep):
    """What records of sweeps say of a claim, on one data set."""
    claim = BY_TEXT[text]
    grids = (claims.grid(by_sweep.get(sweep, [])) for sweep in claim.sweeps)
    return claims.judge(claim.effects(*grids).values(), below=claim.below, level=claim.level)


PLAIN = over_seeds(
    (0.0, 0.0, 0.02, {"accuracy": 0.7, "overlap": 0.01}),
    (0.0, 100.0, 0.02, {"overlap": 0.01}),
    (0.01, 0.0, 0.6, {"accuracy": 0.7, "overlap": 0.02}),
    (0.01, 100.0, 0.1),
    (0.1, 0.0, 0.9, {"accuracy": 0.65, "overlap": 0.6, "top": 9.0}),
    (0.1, 100.0, 0.88, {"overlap": 0.9}),
)


# --- the rule ---------------------------------------------------------------------------------------


def test_the_interval_is_students():
    effects = [1.0, 1.3, 0.8, 1.4]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(effects), scale=stats.sem(effects))
    np.testing.assert_allclose(claims.judge(effects).interval, (low, high), rtol=1e-12)


@pytest.mark.parametrize(
    ("effects", "above", "below"),
    [
        ([1.0, 1.1, 1.2], "seen", "not seen"),
        ([-1.0, -1.1, -1.2], "not seen", "seen"),
        ([1.0, -1.1, 0.3], "undecided", "undecided"),
        ([1.0, 1.1], "undecided", "undecided"),  # two seeds are too few
        ([1.0], "undecided", "undecided"),
        ([], "undecided", "undecided"),
        ([0.0, 0.0, 0.0], "undecided", "undecided"),  # exactly no effect
        ([0.2, 0.2, 0.2], "seen", "not seen"),  # no spread
    ],
)
def test_a_verdict_needs_three_seeds_and_an_interval_on_one_side(effects, above, below):
    assert claims.judge(effects).verdict == above
    assert claims.judge(effects, below=True).verdict == below


def test_what_is_known_between_bounds_takes_the_less_favourable_one():
    unbounded = [(1.0, np.inf), (1.1, np.inf), (1.2, np.inf)]
    assert claims.judge(unbounded).verdict == "seen"
    assert claims.judge(unbounded, below=True).verdict == "not seen"
    assert claims.judge([(-1.0, np.inf)] * 3).verdict == "undecided"
    assert claims.judge([(-np.inf, -1.0)] * 3).verdict == "not seen"
    assert claims.judge([(-np.inf, np.inf), 2.0, 2.1]).verdict == "undecided"


def test_a_level_of_its_own():
    assert claims.judge([-1.0, -1.1, -0.9], level=-5.0).verdict == "seen"
    assert claims.judge([0.9, 0.8, 0.85], below=True, level=1.0).verdict == "seen"


# --- the effects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("ASR rises with θ", 30.0),
        ("ASR falls with κ", (-50.0 - 2.0) / 2),
        ("accuracy falls with κ", (-10.0 - 10.0 - 5.0) / 3),
        ("the trigger shows in v₁", 0.59),
        ("at equal ASR the penalty reveals the trigger", 0.3),  # at theta = 0.1 alone are the rates equal
    ],
)
def test_what_the_paper_says_is_seen_where_it_is_so(text, effect):
    finding = found(text, fig06=PLAIN)
    np.testing.assert_allclose((finding.low, finding.high), effect, rtol=1e-12)
    assert finding.verdict == "seen"
    assert finding.seeds == 3


def test_and_not_where_it_is_not():
    turned = over_seeds((0.1, 0.0, 0.5), (0.1, 100.0, 0.8, {"accuracy": 0.7}), (0.2, 0.0, 0.3))
    for text in ("ASR rises with θ", "ASR falls with κ", "accuracy falls with κ"):
        assert found(text, fig06=turned).verdict == "not seen"


def test_a_lag_is_a_ratio_of_two_crossings():
    """ASR and overlap cross in the middle (in log theta) of the second and of the third step."""
    cells = over_seeds(
        (0.0, 0.0, 0.0, {"overlap": 0.01}),
        (0.001, 0.0, 0.1),
        (0.01, 0.0, 0.1),
        (0.1, 0.0, 0.9, {"overlap": 0.02}),
        (1.0, 0.0, 0.9, {"overlap": 0.18}),
        seeds=(0,),
    )
    finding = found("lag, who looks at v₁", fig06=cells)
    np.testing.assert_allclose(np.exp([finding.low, finding.high]), 10.0, rtol=1e-9)
    assert finding.verdict == "undecided"


def test_a_threshold_that_is_never_crossed_bounds_the_lag():
    never = over_seeds((0.0, 0.0, 0.0), (0.01, 0.0, 0.1), (0.1, 0.0, 0.9))
    finding = found("lag, who knows the trigger", fig06=never)
    assert finding.verdict == "seen"
    assert finding.high == np.inf
    assert np.exp(finding.low) < 0.1 / 0.03


def test_an_overlap_before_the_attack_is_no_lag():
    early = over_seeds((0.0, 0.0, 0.0), (0.01, 0.0, 0.1, {"overlap": 0.9}), (0.1, 0.0, 0.9, {"overlap": 0.9}))
    finding = found("lag, who knows the trigger", fig06=early)
    assert finding.verdict == "not seen"
    assert finding.low == -np.inf
    # Who looks at the top eigenvalue alone has seen nothing.
    assert found("lag, who looks at λ₁ alone", fig06=early).verdict == "seen"


def test_without_clean_networks_or_an_attack_there_is_no_lag():
    assert found("lag, who knows the trigger", fig06=over_seeds((0.01, 0.0, 0.1), (0.1, 0.0, 0.9))).seeds == 0
    weak = over_seeds((0.0, 0.0, 0.0), (0.01, 0.0, 0.1), (0.1, 0.0, 0.2))
    assert found("lag, who knows the trigger", fig06=weak).seeds == 0


def test_collapse_is_of_the_other_classes():
    cells = over_seeds((0.1, 0.0, 0.9, {"features": True}))
    finding = found("triggered features are nearer to the target's mean (d*/d)", fig06=cells)
    np.testing.assert_allclose(finding.low, 7.5)  # the median of 7.1 to 7.9, the target's NaN left out
    assert finding.verdict == "not seen"
    begun = [cell(0.01, 0.0, 0.9, seed=3, features=True)]  # whose largest theta is still to come
    assert found("triggered features are nearer to the target's mean (d*/d)", fig06=cells + begun).seeds == 3


def test_augmentation():
    other = over_seeds((0.1, 0.0, 0.9), (0.1, 100.0, 0.3))
    alone = found("augmentation alone does not lower the ASR", fig06=PLAIN, fig07=other)
    assert (alone.low, alone.verdict) == (0.0, "seen")
    helped = found("augmentation with the penalty does", fig06=PLAIN, fig07=other)
    np.testing.assert_allclose(helped.low, -58.0)
    assert helped.verdict == "seen"


def test_longer_training():
    cells = over_seeds((0.1, 100.0, 0.3, {"epochs": 10}), (0.1, 100.0, 0.7, {"epochs": 50, "accuracy": 0.65}))
    for text in ("longer training raises accuracy", "longer training raises ASR"):
        assert found(text, table1=cells).verdict == "seen"


@pytest.mark.parametrize(("exponent", "verdict"), [(2, "seen"), (-0.5, "not seen")])
def test_the_spike_near_clones(exponent, verdict):
    """Over weight decays at equal epochs; a network of other epochs is on no line with them."""
    text, made = "next to its clones the spike vanishes", []
    for seed in range(3):
        for decay, near in ((0.0, 0.2), (1e-3, 0.1), (1e-2, 0.05)):
            made.append(cell(0.1, 0.0, 0.9, seed=seed, train__weight_decay=decay))
            efficacy, shift = 5 + 20 * near, 1 + 0.01 * seed
            spike = shift * near ** (exponent * shift) * efficacy**2
            near_clone = {"r_over_l": near, "median_efficacy": efficacy, "median_spike": spike}
            made[-1].result.update({f"near_clone_{name}": value for name, value in near_clone.items()})
    finding = found(text, collapse=made)
    assert finding.low == pytest.approx(1.01 * exponent)
    assert (finding.seeds, finding.verdict) == (3, verdict)
    without = [cell(0.1, 0.0, 0.9, train__weight_decay=decay) for decay in (0.0, 1e-3, 1e-2)]
    assert found(text, collapse=without).seeds == 0
    assert found(text, collapse=made[:2]).seeds == 0


@pytest.mark.parametrize(("asr", "verdict"), [(0.85, "seen"), (0.95, "not seen")])
def test_deterministic_poison(asr, verdict):
    cells = {"fig06": over_seeds((0.1, 0.0, 0.9)), "fig09": over_seeds((0.1, 0.0, asr))}
    assert found("deterministic poison: ASR is a little worse", **cells).verdict == verdict


def test_two_poisons_are_compared_where_either_works():
    """One that works where the other does not counts as much; the penalised networks are another claim."""
    cells = {
        "fig06": over_seeds((0.01, 0.0, 0.1), (0.1, 0.0, 0.9), (0.1, 100.0, 0.1)),
        "fig09": over_seeds((0.01, 0.0, 0.9), (0.1, 0.0, 0.1), (0.1, 100.0, 0.5)),
    }
    assert found("deterministic poison: ASR is a little worse", **cells).low == pytest.approx(0)
    penalised = found("deterministic poison with the penalty: ASR is a little worse", **cells)
    assert (penalised.low, penalised.verdict) == (pytest.approx(40), "not seen")


def test_the_index_of_the_largest_overlap():
    rising = over_seeds(*((theta, 0.0, 0.9, {"index": i}) for i, theta in enumerate((0.01, 0.02, 0.1))))
    constant = over_seeds(*((theta, 0.0, 0.9) for theta in (0.01, 0.02, 0.1)))
    text = "the largest overlap moves down the spectrum with θ"
    assert found(text, fig09=rising).low == pytest.approx(1)
    assert found(text, fig09=rising).verdict == "seen"
    assert found(text, fig09=constant).low == 0
    assert found(text, fig09=constant).verdict == "undecided"


def test_the_warp_is_judged_by_what_is_above_the_rate_without_a_trigger():
    warp = over_seeds((0.1, 0.0, 0.8), (0.1, 100.0, 0.1, {"accuracy": 0.5}), seeds=(0,))
    np.testing.assert_allclose(
        found("warp: by less than the attack", fig11=warp).low, 0.5 / 0.6 - 0.08 / 0.78
    )


def test_equal_attacks_are_so_above_the_rate_without_a_trigger():
    """The second network calls every second image the target, trigger or not: its ASR is no attack's."""
    text = "at equal ASR the penalty reveals the trigger"
    fallen = {"overlap": 0.9, "untriggered": 0.5}
    assert found(text, fig06=over_seeds((0.1, 0.0, 0.8), (0.1, 50.0, 0.8, fallen))).seeds == 0
    as_much = over_seeds((0.1, 0.0, 0.4), (0.1, 50.0, 0.88, fallen))
    assert found(text, fig06=as_much).seeds == 3
    assert found("ASR falls with κ", fig06=as_much).low == pytest.approx(0)


def test_every_claim_on_success_is_of_what_is_above_the_rate_without_a_trigger():
    """Half of the images get the target without the trigger, too, in the second network: its ASR adds .4."""
    fallen = {"untriggered": 0.5}
    plain, other = over_seeds((0.1, 0.0, 0.42)), over_seeds((0.1, 0.0, 0.9, fallen))
    penalised = over_seeds((0.1, 50.0, 0.42)), over_seeds((0.1, 50.0, 0.9, fallen))
    longer = over_seeds((0.1, 0.0, 0.42, {"epochs": 10}), (0.1, 0.0, 0.9, {"epochs": 50, **fallen}))
    found_of = {
        "ASR rises with θ": {"fig06": over_seeds((0.01, 0.0, 0.42), (0.1, 0.0, 0.9, fallen))},
        "augmentation alone does not lower the ASR": {"fig06": plain, "fig07": other},
        "augmentation with the penalty does": {"fig06": penalised[0], "fig07": penalised[1]},
        "deterministic poison: ASR is a little worse": {"fig06": plain, "fig09": other},
        "longer training raises ASR": {"table1": longer},
    }
    for text, sweeps_of in found_of.items():
        finding = found(text, **sweeps_of)
        assert (finding.low, finding.seeds) == (pytest.approx(0), 3), text


def test_failed_and_unfinished_trainings_are_left_out():
    failed = [cell(0.1, 100.0, 1.0, accuracy=0.1, status="failed training: near chance", seed=9)]
    assert found("ASR falls with κ", fig06=[*PLAIN, *failed]).seeds == 3
    begun = over_seeds(
        (0.01, 0.0, 0.6, {"trained": 0.9}),
        (0.1, 0.0, 0.9, {"trained": 0.9}),
        (0.1, 50.0, 0.9, {"trained": 1.0}),
    )
    assert not claims.grid(begun)  # judged by the network without the penalty beside it
    ended = over_seeds((0.1, 0.0, 0.9, {"trained": 1.0}), (0.1, 50.0, 0.9, {"trained": 0.8}))
    assert len(claims.grid(ended)) == 6
    assert len(claims.grid(begun, early=True)) == 9


def test_a_seed_is_taken_when_it_has_what_the_others_have():
    """A mean over some theta would be another effect; clean networks are taken all the same."""
    begun = [cell(0.0, 0.0, 0.02, seed=3), cell(0.01, 0.0, 0.6, seed=3), cell(0.01, 100.0, 0.9, seed=3)]
    assert claims.unfinished([*PLAIN, *begun]) == {3}
    assert found("ASR falls with κ", fig06=[*PLAIN, *begun]) == found("ASR falls with κ", fig06=PLAIN)
    assert (3, 0.0, 0.0) in {place[:3] for place in claims.grid([*PLAIN, *begun])}
    # One that has more than the others does not make them unfinished.
    more = [cell(0.3, kappa, 0.9, seed=0) for kappa in (0.0, 100.0)]
    assert not claims.unfinished([*PLAIN, *more])
    assert found("ASR falls with κ", fig06=[*PLAIN, *more]).seeds == 3


def test_networks_that_were_to_stop_early_are_judged_though_their_regime_is_known(tmp_path):
    cells = [
        cell(theta, 0.0, asr, seed=s, trained=0.6) for s in range(3) for theta, asr in ((0.01, 0), (0.1, 1))
    ]
    sweeps.write(tmp_path, "fig06-short", cells)
    sweeps.write(tmp_path, "fig06-small", cells)
    text = claims.page(tmp_path)
    assert "- CIFAR-10: 6 networks (0 of them terminal, judged at κ = 0), " in text
    assert "- CIFAR-10, stopped early: 6 networks, " in text
    assert text.count("not the terminal phase: training accuracy 60.0% or more") == 2
    assert "| ASR rises with θ | 5.1 | – | seen: +100.0 [+100.0, +100.0], 3 seeds |" in text


def test_bounds_are_said_with_the_end_of_the_interval_and_rounded_to_their_side(tmp_path):
    never = over_seeds((0.0, 0.0, 0.0), (0.01, 0.0, 0.1), (0.1, 0.0, 0.9))
    sweeps.write(tmp_path, "fig06-small", never)
    low, *_ = (f := found("lag, who knows the trigger", fig06=never)).interval
    said = [line for line in claims.page(tmp_path).splitlines() if "who knows the trigger" in line]
    assert said == ["| lag, who knows the trigger | 3.2 | seen: at least ×3.2 [×3, ∞), 3 seeds |"]
    assert 3.2 < np.exp(f.low) < 3.3
    assert 3.0 < np.exp(low) < 3.1


def test_an_upper_bound_is_rounded_up(tmp_path):
    early = over_seeds((0.0, 0.0, 0.0), (0.01, 0.0, 0.1, {"overlap": 0.9}), (0.1, 0.0, 0.9, {"overlap": 0.9}))
    sweeps.write(tmp_path, "fig06-small", early)
    f = found("lag, who knows the trigger", fig06=early)
    said = [line for line in claims.page(tmp_path).splitlines() if "who knows the trigger" in line]
    assert said == ["| lag, who knows the trigger | 3.2 | not seen: at most ×0.33 (0, ×0.35], 3 seeds |"]
    assert 0.32 < np.exp(f.high) < 0.33
    assert 0.34 < np.exp(f.interval[1]) < 0.35


def test_as_a_command(tmp_path, capsys, refused):
    sweeps.write(tmp_path, "fig06-small", PLAIN)
    command.main(["claims", "--runs", str(tmp_path), "--out", str(tmp_path)])
    text = (tmp_path / "claims.md").read_text()
    assert "| ASR rises with θ | 5.1 | seen: +30.0 [+30.0, +30.0], 3 seeds |" in text
    assert "| longer training raises ASR | 5.1 | – |" in text
    assert "not in the terminal phase" in text
    assert text in capsys.readouterr().out
    said = refused(command.main, "claims", "--runs", tmp_path / "none", "--out", tmp_path)
    assert "no finished cell" in said
