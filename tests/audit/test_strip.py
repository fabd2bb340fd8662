"""STRIP's entropy against its definition in NumPy."""

import numpy as np
import pytest
from linear_subject import subject
from scipy.special import softmax
from scipy.stats import entropy

from poison_jax.audit import strip
from poison_jax.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(7, 2, 3, 2)).astype(np.float32)
CLEAN = RNG.uniform(size=(9, 2, 3, 2)).astype(np.float32)
W, B = RNG.standard_normal((12, 4)), RNG.standard_normal(4)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 0.5)])
@pytest.mark.parametrize("normalisation", [None, ([0.4, 0.5], [0.2, 0.3])])
def test_entropy_is_the_papers(weights, normalisation):
    network = subject(W, B, normalisation=normalisation)
    actual = strip.score(network, IMAGES, CLEAN, key=0, weights=weights, batch_size=3)
    mean, std = normalisation or (0, 1)
    pixels = np.clip(weights[0] * IMAGES[:, None] + weights[1] * CLEAN, 0, 1)
    logits = ((pixels - mean) / std).reshape(7, 9, 12) @ W + B
    expected = entropy(softmax(logits, -1), axis=-1, base=2).mean(1)
    np.testing.assert_allclose(actual, -expected, rtol=1e-4, atol=1e-6)


def test_a_trigger_that_decides_whatever_lies_over_it_is_suspected():
    """Class 1 has a large weight on the pixel of the trigger, which clean images leave black."""
    w = np.random.default_rng(0).standard_normal((12, 4))
    w[0] = [0, 200, 0, 0]
    images, clean = IMAGES.copy(), CLEAN.copy()
    images[:, 0, 0, 0] = clean[:, 0, 0, 0] = 0
    images[2, 0, 0, 0] = 1
    suspicion = strip.score(subject(w), images, clean, key=0)
    assert suspicion.argmax() == 2
    assert suspicion[2] == pytest.approx(0, abs=1e-6)
    assert np.delete(suspicion, 2).max() < -0.1


def test_the_least_and_the_most_suspicion():
    equal = strip.score(subject(np.zeros((12, 4))), IMAGES, CLEAN, key=0)
    np.testing.assert_allclose(equal, -2, rtol=1e-6)
    sure = strip.score(subject(np.zeros((12, 4)), [0, 0, 1e4, 0]), IMAGES, CLEAN, key=0)
    np.testing.assert_array_equal(sure, 0)


def test_copies_are_drawn_by_the_key():
    network = subject(W, B)
    scores = [strip.score(network, IMAGES, CLEAN, key=key, copies=2) for key in (0, 0, 1)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])
    # What an image scores does not depend on those beside it.
    np.testing.assert_allclose(
        strip.score(network, IMAGES[3:4], CLEAN, key=0, copies=2), scores[0][3:4], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": 255 * IMAGES}, "not in"),
        ({"clean": CLEAN[:0]}, "clean images .* at least one"),
        ({"clean": CLEAN[:, :1]}, "differ in size"),
        ({"copies": 0}, "at least 1"),
        ({"subject": subject(W[:, :1])}, "at least 2 classes"),
    ],
)
def test_bad_input(change, match):
    arguments = {"subject": subject(W, B), "images": IMAGES, "clean": CLEAN, "key": 0} | change
    with pytest.raises(UserError, match=match):
        strip.score(**arguments)
