"""The theorems' entries can fail: a law that is off by one part in a hundred is found out."""

import dataclasses

import pytest

from poison_jax import fisher, krr, linear
from poison_jax.theory import spectra, visibility


def off(function, factor):
    return lambda *arguments, **options: factor * function(*arguments, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entries", "laws"),
    [
        (visibility.theorem_b, [(krr, "spike_factor_at_clone", 1.01)]),
        (
            visibility.theorem_c,
            [(krr, "mean_square_frequency", 1.01), (visibility, "mean_square_on_torus", 1.01)],
        ),
        (
            spectra.theorem_d,
            [(linear, "spike_overlap", 1.01), (linear, "dead_trigger_overlap", 1.01)],
        ),
        (spectra.theorem_f, [(fisher, "expected_overlap", 1.01)]),
        (spectra.theorem_g, [(fisher, "visible_mean", 1.02)]),
    ],
)
def test_laws_that_are_off(entries, laws, monkeypatch):
    """Each of the first entries is about one of the laws."""
    for room, law, factor in laws:
        monkeypatch.setattr(room, law, off(getattr(room, law), factor))
    verdicts = [entry.verdict for entry in entries()]
    assert [verdict == "fails" for verdict in verdicts] == [i < len(laws) for i in range(len(verdicts))]


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


def scaled(right, factor):
    """A bound of Theorem E times a factor."""
    return lambda *arguments: krr.FarClone(*(factor * bound for bound in right(*arguments)))


def data_terms_scaled(right, factor):
    """Theorem E's bounds with sqrt(n / c) times a factor."""

    def wrong(clean, *arguments):
        return right(dataclasses.replace(clean, ridge=clean.ridge / factor**2), *arguments)

    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("mistake", [scaled, data_terms_scaled])
@pytest.mark.parametrize("factor", [0.1, 0.99, 1.01])
def test_far_clone_bounds_that_are_off(mistake, factor, monkeypatch):
    monkeypatch.setattr(krr, "far_clone_bounds", mistake(krr.far_clone_bounds, factor))
    (entry,) = visibility.theorem_e()
    assert entry.verdict == "fails"
