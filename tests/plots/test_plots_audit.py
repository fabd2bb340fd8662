"""The audit's evidence from records whose truth is known."""

import numpy as np
import pytest
import small_sweeps as sweeps
from scipy import stats

from plots import audit


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
    assert header.count("|") == row.count("|") == 8
    cells = row.split(" | ")
    assert cells[0] == "| none; 7 epochs, weight decay 0.02"
    assert [cell.partition(" ")[0] for cell in cells[1:]] == ["3", "100%", "100%", "0%", "0%", "0%"]
    assert "| area under the ROC curve | l | pooled |" in text


def test_a_page():
    (text,) = audit.page([*CLEAN, *ATTACKED], "Audit")
    assert "| l | 0 | 0.1 | 8 | 50 ± 0 % | 100% [63%, 100%] | 100% | 0.40 ± 0.00 |" in text
    assert "| none | 0 | 0 | 20 |" in text
    assert "| the audit | 1.00 [" in text


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
