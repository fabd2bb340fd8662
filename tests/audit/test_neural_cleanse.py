"""Neural Cleanse on linear networks whose smallest masks are known."""

import jax
import numpy as np
import pytest
from linear_subject import subject
from scipy.stats import median_abs_deviation

from poison_jax.audit import neural_cleanse
from poison_jax.errors import UserError

# Class t is reached by its own pixel t alone: logit t is STRENGTH[t] * x_t, and the last class has logit 2
# whatever the image. Of black images the smallest mask has the norm 2 / STRENGTH[t] (with a white pattern).
STRENGTH = np.array([4.0, 5.0, 40.0, 4.5])
BIAS = [0, 0, 0, 0, 2]
BLACK = np.zeros((3, 3, 3, 1), np.float32)


def planted(**options):
    w = np.zeros((9, 5))
    w[np.arange(4), np.arange(4)] = STRENGTH
    return subject(w, BIAS, **options)


def test_smallest_masks_of_a_linear_network():
    found = neural_cleanse.smallest_patterns(planted(), BLACK, key=0)
    assert found.reached.all()
    # In 200 steps they come near to the smallest from above; the last class needs no mask at all.
    assert (found.norms[:4] > 2 / STRENGTH).all()
    np.testing.assert_array_less(found.norms[:4], 2 / STRENGTH + 0.15)
    assert found.norms[4] < 0.05
    for t in range(4):
        assert found.masks[t].ravel().argmax() == t
        images = (1 - found.masks[t][..., None]) * BLACK + found.masks[t][..., None] * found.patterns[t]
        assert (planted().logits(images).argmax(-1) == t).all()
    np.testing.assert_allclose(found.norms, found.masks.sum((1, 2)), rtol=1e-5)


def test_a_class_with_a_small_trigger_is_the_target():
    """Each class has a pixel of its own, class 3 a second one with fifteen times the weight."""
    w = np.eye(16)[:, :6] * np.random.default_rng(0).uniform(3, 4, 6)
    w[7, 3] = 60
    images, labels = np.zeros((42, 16), np.float32), np.arange(42) % 6
    images[np.arange(42), labels] = 0.8
    images, options = images.reshape(-1, 4, 4, 1), {"key": 1, "batch": 42, "steps": 100, "batch_size": 300}
    score = neural_cleanse.score(subject(w), images, labels, **options)
    assert (score.target, score.authors) == (3, "poisoned")
    norms = neural_cleanse.smallest_patterns(subject(w), images, **options).norms
    expected = (np.median(norms) - norms[3]) / median_abs_deviation(norms, scale=1 / 1.4826)
    assert score.statistic == pytest.approx(expected, rel=1e-5)
    assert score.statistic > 2
    assert score.picture.shape == (4, 4, 1)
    assert score.picture.ravel().argmax() == 7


def test_batches_change_nothing_and_keys_decide():
    rng = np.random.default_rng(0)
    network = subject(rng.standard_normal((9, 5)))
    images = rng.uniform(size=(20, 3, 3, 1)).astype(np.float32)
    options = {"steps": 10, "batch": 8}
    results = [
        neural_cleanse.smallest_patterns(network, images, key=jax.random.key(3), batch_size=size, **options)
        for size in (8, 512)
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other.norms, results[0].norms, rtol=1e-4)
        np.testing.assert_array_equal(other.reached, results[0].reached)
    again = neural_cleanse.smallest_patterns(network, images, key=4, **options)
    assert not np.array_equal(again.norms, results[0].norms)


def test_pixels_are_normalised_for_the_network():
    """With mean .5 and std .5 the pixel t is 2 x_t - 1: the logit passes 2 where x_t = (2 / s + 1) / 2."""
    found = neural_cleanse.smallest_patterns(planted(normalisation=(0.5, 0.5)), BLACK, key=0)
    expected = (2 / STRENGTH + 1) / 2
    assert (found.norms[:4] > expected).all()
    np.testing.assert_array_less(found.norms[:4], expected + 0.2)


def test_a_class_that_cannot_be_reached_needs_the_whole_image():
    found = neural_cleanse.smallest_patterns(subject(np.zeros((9, 2)), [0, 1]), BLACK, key=0, steps=20)
    np.testing.assert_array_equal(found.reached, [False, True])
    assert found.norms[0] == 9
    assert (found.masks[0] == 1).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": np.zeros((0, 3, 3, 1))}, "at least one"),
        ({"images": BLACK + 3}, "not in"),
        ({"images": BLACK[..., 0]}, r"not \[N, H, W, C\]"),
        ({"labels": np.array([0, 1, 5])}, "labels run from 0 to 5"),
        ({"labels": np.array([0, 1])}, "not N images and N labels"),
        ({"steps": 0}, "positive numbers"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"subject": subject(np.ones((9, 1)))}, "at least 2 classes"),
    ],
)
def test_bad_input(change, match):
    arguments = {"subject": planted(), "images": BLACK, "labels": np.zeros(3, int), "key": 0} | change
    with pytest.raises(UserError, match=match):
        neural_cleanse.score(**arguments)
