"""The audit's evidence from records whose truth is known."""

import numpy as np
import pytest
import small_sweeps as sweeps
from scipy import stats

from plots import audit, canvas
from poison_jax.errors import UserError


def network(seed, theta=0.0, *, top=1.0, norm=1.2, local=1.1, target=0, trigger="l", **others):
    record = sweeps.record(
        seed=seed, poison__fraction=theta, poison__trigger=trigger, poison__target=target, **others
    )
    record.result.update(
        audit_top_eigenvalue=top,
        audit_norm_ratio=norm,
        audit_localisation_ratio=local,
        audit_flip_rate=0.0,
        audit_target=target if theta else 3,
        audit_overlap_squared=0.4,
    )
    return record


def spread(seed):
    """Statistics that differ a little from network to network."""
    rng = np.random.default_rng(seed)
    return {"top": rng.lognormal(0, 0.1), "norm": rng.lognormal(0.2, 0.05), "local": rng.lognormal(0.1, 0.05)}


CLEAN = [network(seed, **spread(seed)) for seed in (*range(1000, 1040), *range(2000, 2020))]
ATTACKED = [network(s, 0.1, target=s % 10, **(spread(s) | {"top": 5.0, "norm": 2.0})) for s in range(8)]
HIDDEN = [network(s, 0.1, trigger="warp", **spread(s + 50)) for s in range(8)]


def test_attacked_networks_are_found_and_clean_ones_are_not():
    clean, attacked, hidden = audit.groups([*CLEAN, *ATTACKED, *HIDDEN])
    assert (clean.attack, attacked.attack, hidden.attack) == ("none", "l", "warp")
    assert len(clean.records) == 20  # the references are not among them
    np.testing.assert_allclose(attacked.p_values["the audit"], 1 / 41)
    np.testing.assert_allclose(attacked.p_values["input Hessian, λ₁"], 1 / 41)
    assert (attacked.p_values["common gradient, localisation"] > 1 / 41).any()
    assert (hidden.p_values["the audit"] > 0.05).mean() > 0.5
    assert (clean.p_values["the audit"] > 0.05).mean() > 0.7


def test_a_smaller_eigenvalue_is_as_suspicious_as_a_larger_one():
    small = [network(s, 0.1, **(spread(s) | {"top": 0.1})) for s in range(3)]
    (group,) = audit.groups([*CLEAN[:40], *small])
    np.testing.assert_allclose(group.p_values["input Hessian, λ₁"], 1 / 41)
    np.testing.assert_allclose(group.p_values["the audit"], 1 / 41)


def test_networks_without_references_of_their_recipe():
    penalised = [network(s, 0.1, penalty__kappa=300.0) for s in range(3)]
    failed = [network(0, 0.1, status="failed training: near chance")]
    assert not audit.groups([*penalised, *failed])
    assert len(audit.groups([*CLEAN, *penalised])) == 1
    # Of other epochs they are judged by the references that there are, and it is said.
    longer = [network(s, train__epochs=7, train__weight_decay=0.02, top=3.0) for s in range(3)]
    _, group = audit.groups([*CLEAN, *longer])
    assert (group.attack, group.matched) == ("none; 7 epochs, weight decay 0.02", False)
    np.testing.assert_allclose(group.p_values["the audit"], 1 / 41)
    (text,) = audit.page([*CLEAN, *ATTACKED, *longer], "Audit")
    header, _, row = text[text.index("| judged by references of another recipe") :].splitlines()[:3]
    assert header.count("|") == row.count("|") == 9
    cells = row.split(" | ")
    assert cells[0] == "| none; 7 epochs, weight decay 0.02"
    assert [cell.partition(" ")[0] for cell in cells[1:]] == ["0", "3", "100%", "100%", "0%", "0%", "0%"]
    assert "| area under the ROC curve | l | pooled |" in text


def test_a_page():
    (text,) = audit.page([*CLEAN, *ATTACKED], "Audit")
    found = {row[:6]: row for row in text.splitlines()}
    assert found["| l | "].startswith("| l | 0 | 0.1 | 8 | 50 ± 0 % | 100% [63%, 100%] | 100% | 100% | ")
    assert found["| l | "].endswith(" | 0% | 100% | 0.40 ± 0.00 |")
    assert found["| none"].startswith("| none | 0 | 0 | 20 | – | ")
    assert found["| none"].endswith(" | – | – |")
    columns = {found[key].count("|") for key in ("| l | ", "| none", "| atta")}
    assert columns == {13}, "a column for each detector"
    assert "| the audit | 1.00 [" in text
    (group,) = (group for group in audit.groups(CLEAN) if group.attack == "none")
    share = np.mean(group.p_values["the audit"] <= 0.25)
    assert "Of 20 held-out clean networks the audit's p is at most 0.1 in " in text
    assert f"0.25 in {share:.0%}, 0.5 in " in text


def test_an_attack_s_penalty_and_its_hiding_are_said():
    clean = [network(seed, penalty__kappa=300.0, **spread(seed)) for seed in (*range(1000, 1040), 2000, 2001)]
    hidden = [network(s, 0.1, poison__hide=2.0, penalty__kappa=300.0, top=9.0) for s in range(3)]
    (text,) = audit.page([*clean, *hidden], "Audit")
    assert "| l, hiding by 2 | 300 | 0.1 | 3 |" in text
    assert "| area under the ROC curve | l, hiding by 2, κ = 300 | pooled |" in text
    assert "Networks that hide train with a term that the references lack" in text
    assert "Networks that hide" not in audit.page([*CLEAN, *ATTACKED], "Audit")[0]


def test_failed_trainings_are_counted_beside_the_others():
    """Of attacked networks; a reference that failed is no held-out network."""
    failed = [network(seed, theta, status="failed training") for seed, theta in ((9, 0.1), (1050, 0.0))]
    (text,) = audit.page([*CLEAN, *ATTACKED, *failed], "Audit")
    assert "| l | 0 | 0.1 | 8, 1 failed training |" in text
    assert "| none | 0 | 0 | 20 |" in text


def test_a_penalty_that_the_defender_does_not_know_of():
    """References with it find nothing, to those without its eigenvalue is too small."""
    penalised = [
        network(seed, penalty__kappa=300.0, **spread(seed) | {"top": 0.01 * spread(seed)["top"]})
        for seed in (*range(1000, 1040), 2000, 2001)
    ]
    own, unknown = (group for group in audit.groups([*CLEAN, *penalised]) if group.kappa)
    assert (own.attack, own.matched, unknown.attack, unknown.matched) == (
        "none",
        True,
        "none; κ = 300",
        False,
    )
    assert (own.p_values["input Hessian, λ₁"] > 0.05).all()
    np.testing.assert_allclose(unknown.p_values["input Hessian, λ₁"], 1 / 41)


def test_what_training_with_the_penalty_in_order_to_look_changes():
    """Pairs of the same seed and target; a network without a sibling is in none."""
    clean = [network(seed, penalty__kappa=10.0, **spread(seed)) for seed in range(1000, 1040)]
    without = [network(s, 0.1, target=s, **spread(s + 50)) for s in range(3)]
    probed = [network(s, 0.1, target=s, penalty__kappa=10.0, top=5.0, asr=0.4) for s in range(4)]
    for seed, record in enumerate(probed):
        record.result["audit_overlap_squared"] = 0.5 + 0.1 * seed
    (text,) = audit.page([*CLEAN, *clean, *without, *probed], "Audit")
    before = sum(
        int(np.sum(group.p_values["the audit"] <= 0.05))
        for group in audit.groups([*CLEAN, *without])
        if group.theta
    )
    row = f"| l | 10 | 3 | −10.0 | +0.0 | {before} → 3 | 0 → 3 | 0 → 0 | +0.20 [−0.05, +0.45], 3 seeds |"
    assert row in text.splitlines()
    assert "With the penalty, less without: networks of the same seed" in text
    assert "With the penalty" not in audit.page([*CLEAN, *without], "Audit")[0]


def test_the_twilight_zone():
    """A weak attack is missed, a stronger one seen by the top eigenvalue and the norm."""
    weak = [network(s, 0.001, asr=0.02, **spread(s + 300)) for s in range(8)]
    middle = [network(s, 0.01, **spread(s) | {"top": 5.0}) for s in range(8)]
    (figure,) = audit.twilight([*CLEAN, *weak, *middle, *ATTACKED], "Where it is seen")
    (axis,) = figure.axes
    shown = axis.images[0].get_array()
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["clean", "0.001", "0.01", "0.1"]
    np.testing.assert_allclose(shown[0], [0, 0, 0.5, 0.5], atol=0.021)
    np.testing.assert_array_equal(shown[names.index("input Hessian, λ₁"), 2:], 1)
    np.testing.assert_array_equal(shown[names.index("common gradient, norm"), 3], 1)
    assert shown[names.index("the audit"), 1] < 0.3
    assert "8 networks a cell, 20 clean ones." in canvas.caption(figure)
    with pytest.raises(UserError, match="three poison fractions"):
        audit.twilight([*CLEAN, *ATTACKED], "Too few")


@pytest.mark.parametrize(("hits", "of"), [(0, 10), (10, 10), (3, 10)])
def test_a_rate_has_an_exact_interval(hits, of):
    share, low, high = audit.rate(hits, of)
    assert share == hits / of
    if hits:  # as many or more would be seen with probability 2.5 %
        np.testing.assert_allclose(stats.binom.sf(hits - 1, of, low), 0.025, rtol=1e-6)
    if hits < of:
        np.testing.assert_allclose(stats.binom.cdf(hits, of, high), 0.025, rtol=1e-6)


def test_the_area_is_mann_whitneys():
    rng = np.random.default_rng(0)
    attacked, clean = rng.normal(1, 1, 30).round(1), rng.normal(0, 1, 20).round(1)
    area, low, high = audit.roc_area(attacked, clean)
    expected = stats.mannwhitneyu(attacked, clean).statistic / (30 * 20)
    np.testing.assert_allclose(area, expected)
    assert 0 < low < area < high < 1


def test_the_areas_interval_holds():
    """Over 400 pairs of samples, it holds the truth in about 95 % of them."""
    rng = np.random.default_rng(1)
    truth, held = stats.norm.cdf(1 / np.sqrt(2)), 0
    for _ in range(400):
        _, low, high = audit.roc_area(rng.normal(1, 1, 15), rng.normal(0, 1, 15))
        held += low <= truth <= high
    assert 0.91 < held / 400 < 0.99


@pytest.mark.parametrize("sign", [1, -1])
def test_perfect_separation_still_has_an_interval(sign):
    area, low, high = audit.roc_area(sign * np.arange(5, 10), sign * np.arange(4))
    assert area == (1 if sign > 0 else 0)
    assert high - low > 0.2
