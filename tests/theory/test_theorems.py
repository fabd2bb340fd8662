"""The theorems' entries can fail: a law that is off by one part in a hundred is found out."""

import pytest

from poison_jax import fisher, krr, linear
from poison_jax.theory import spectra, visibility


def off(function, factor):
    return lambda *arguments, **options: factor * function(*arguments, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entries", "room", "law", "factor", "fails"),
    [
        (visibility.theorem_b, krr, "spike_factor_at_clone", 1.01, {0}),
        (visibility.theorem_c, krr, "mean_square_frequency", 1.01, {0}),
        (visibility.theorem_c, visibility, "mean_square_on_torus", 1.01, {1}),
        (spectra.theorem_d, linear, "spike_overlap", 1.01, {0}),
        (spectra.theorem_d, linear, "dead_trigger_overlap", 1.01, {1}),
        (spectra.theorem_f, fisher, "expected_overlap", 1.01, {0}),
        (spectra.theorem_g, fisher, "visible_mean", 1.02, {0}),
    ],
)
def test_a_law_that_is_off(entries, room, law, factor, fails, monkeypatch):
    monkeypatch.setattr(room, law, off(getattr(room, law), factor))
    verdicts = [entry.verdict for entry in entries()]
    assert {i for i, verdict in enumerate(verdicts) if verdict == "fails"} == fails


@pytest.mark.slow
@pytest.mark.parametrize("quantity", [0, 1])
def test_a_penalty_identity_that_is_off(quantity, monkeypatch):
    """E or V of Theorem A: the derivative, and the bound where it is attained."""
    right = krr.visibility_on

    def wrong(*arguments):
        found = list(right(*arguments))
        found[quantity] *= 1.01
        return krr.PenaltyVisibility(*found)

    monkeypatch.setattr(krr, "visibility_on", wrong)
    identity, bounds, _ = visibility.theorem_a()
    assert (identity.verdict, bounds.verdict) == ("fails", "fails")
