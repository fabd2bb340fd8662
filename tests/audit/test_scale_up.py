"""SCALE-UP's consistency against its definition, and where it is known beforehand."""

import numpy as np
import pytest
from linear_subject import subject

from poison_jax.audit import scale_up
from poison_jax.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 0.5, size=(40, 2, 3, 2)).astype(np.float32)
W, B = RNG.standard_normal((12, 4)), np.zeros(4)
W += 0.05 * RNG.standard_normal(W.shape) - W.mean(0)  # a white image is in no class by much


@pytest.mark.parametrize("normalisation", [None, (0.5, 0.25)])
def test_consistency_is_the_papers(normalisation):
    network = subject(W, B, normalisation=normalisation)
    mean, std = normalisation or (0, 1)

    def predicted(images):
        return (((images - mean) / std).reshape(len(images), -1) @ W + B).argmax(1)

    copies = [predicted(np.clip(n * IMAGES, 0, 1)) for n in (3, 5, 7, 9, 11)]
    expected = np.mean(np.array(copies) == predicted(IMAGES), axis=0)
    assert len(np.unique(expected)) > 3  # otherwise it would show little
    actual = scale_up.score(network, IMAGES, key=0, batch_size=16)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_how_many_copies_keep_the_prediction():
    """One pixel x, class 1 where it is above 1/2: a copy n x is in class 0 as long as n x <= 1/2."""
    network = subject([[0, 1]], [0.5, 0])
    images = np.array([0.01, 0.06, 0.11, 0.3, 0.7, 1.0], np.float32).reshape(-1, 1, 1, 1)
    actual = scale_up.score(network, images)
    np.testing.assert_allclose(actual, [1, 0.6, 0.2, 0, 1, 1], rtol=1e-6)


def test_black_images_and_ties():
    """A multiple of a black image is black; of equal logits the first one is the prediction."""
    black = np.zeros((2, 1, 1, 1), np.float32)
    np.testing.assert_array_equal(scale_up.score(subject([[1, 1]]), black), 1)
    np.testing.assert_array_equal(scale_up.score(subject([[1, 1]]), black + 1), 1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": 255 * IMAGES}, "not in"),
        ({"factors": ()}, "above 1"),
        ({"factors": (1, 3)}, "above 1"),
        ({"subject": subject(W[:, :1])}, "at least 2 classes"),
    ],
)
def test_bad_input(change, match):
    with pytest.raises(UserError, match=match):
        scale_up.score(**({"subject": subject(W, B), "images": IMAGES} | change))
