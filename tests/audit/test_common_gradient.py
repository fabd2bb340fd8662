"""Common gradients of networks whose gradients are known."""

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from scipy import special

from poison_jax import models
from poison_jax.audit import common_gradient
from poison_jax.errors import UserError


def of_linear(w, b, images, labels):
    """The definition, in NumPy: w_t minus the mean of the others' weights under their own softmax."""
    logits = images.reshape(len(images), -1) @ w + b
    gradients = []
    for t in range(w.shape[1]):
        others = np.arange(w.shape[1]) != t
        share = special.softmax(logits[labels != t][:, others], axis=1).mean(0)
        gradients.append(w[:, t] - w[:, others] @ share)
    return np.stack(gradients)


@pytest.mark.parametrize("batch_size", [None, 7, 64])
def test_a_linear_network(batch_size):
    images, labels = planted.images()
    subject = planted.network(3)
    found = common_gradient.common_gradients(
        subject.apply_fn, subject.variables, images, labels, batch_size=batch_size
    )
    expected = of_linear(subject.variables["w"], subject.variables["b"], images, labels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.reshape(4, -1), expected, atol=2e-6)


def test_two_classes_have_opposite_gradients():
    """log p_0 / p_1 and log p_1 / p_0, over other images; of a linear network they are constant."""
    rng = np.random.default_rng(0)
    variables = {"w": rng.normal(size=(5, 2)), "b": rng.normal(size=2)}
    with jax.enable_x64(True):
        found = common_gradient.common_gradients(
            planted.linear, variables, rng.normal(size=(9, 5)), rng.integers(0, 2, 9).astype(np.int32)
        )
    np.testing.assert_allclose(found[0], variables["w"] @ [1, -1], rtol=1e-12)
    np.testing.assert_allclose(found[1], -found[0], rtol=1e-12)


def test_a_convolutional_network_by_finite_differences():
    """In float64, along a random direction."""
    with jax.enable_x64(True):
        model = models.preresnet(8, 3, block="basic", width=4, dtype="float64")
        variables = model.init(jax.random.key(0), (8, 8, 1))
        rng = np.random.default_rng(1)
        images, labels = rng.normal(size=(6, 8, 8, 1)), np.array([0, 1, 2, 0, 1, 2], np.int32)
        direction = rng.normal(size=(8, 8, 1))
        found = common_gradient.common_gradients(model.apply, variables, images, labels, batch_size=4)

        def mean_log_odds(step, t):
            logits = np.asarray(model.apply(variables, images + step * direction)[0])[labels != t]
            return np.mean(logits[:, t] - special.logsumexp(np.delete(logits, t, axis=1), axis=1))

        for t in range(3):
            slope = (mean_log_odds(1e-6, t) - mean_log_odds(-1e-6, t)) / 2e-6
            np.testing.assert_allclose(np.sum(found[t] * direction), slope, rtol=1e-5)


def test_a_class_that_every_image_is_of_has_none():
    images, _ = planted.images(8)
    subject = planted.network(0)
    found = common_gradient.common_gradients(subject.apply_fn, subject.variables, images, np.full(8, 1))
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2, 3]]).all()
    assert common_gradient.ratio(common_gradient.norms(found))[1] != 1


def test_no_recompilation_from_network_to_network():
    images, labels = planted.images(16)
    traced = []

    def counting(variables, images):
        traced.append(0)
        return planted.linear(variables, images)

    counts = []
    for seed in range(3):
        common_gradient.common_gradients(counting, planted.network(seed).variables, images, labels)
        counts.append(len(traced))
    assert counts == [counts[0]] * 3


def test_localisation():
    one_pixel = np.zeros((2, 6, 6, 3))
    one_pixel[0, 1, 1] = 1, 2, 2
    one_pixel[1] = 1
    found = common_gradient.localisations(one_pixel)
    np.testing.assert_allclose(found, [1, np.sqrt(4 / 36)])
    assert np.isnan(common_gradient.localisations(np.zeros((1, 6, 6, 3)))[0])
    np.testing.assert_allclose(common_gradient.localisations(np.ones((2, 16))), np.sqrt(4 / 16))


def test_a_planted_pixel_is_found():
    images, labels = planted.images()
    for detector in (common_gradient.NORM, common_gradient.LOCALISATION):
        score = detector.score(planted.network(5, backdoor=6.0), images, labels, key=0, batch_size=None)
        assert score.target == planted.TARGET
        place = np.unravel_index(np.abs(score.picture).sum(-1).argmax(), planted.SHAPE[:2])
        assert tuple(map(int, place)) == planted.PIXEL
        clean = detector.score(planted.network(5), images, labels, key=0, batch_size=None)
        assert score.statistic > clean.statistic


def test_the_flip_rate_is_that_of_moved_images():
    images, labels = planted.images()
    subject = planted.network(5, backdoor=6.0)
    direction = np.zeros(planted.SHAPE, np.float32)
    direction[planted.PIXEL] = 1
    size = np.sqrt(np.mean(np.sum(images[labels != planted.TARGET] ** 2, axis=(1, 2, 3))))
    moved = images + 0.2 * size * direction / np.linalg.norm(direction)
    logits = np.asarray(planted.linear(subject.variables, moved))
    expected = np.mean(logits.argmax(-1)[labels != planted.TARGET] == planted.TARGET)
    rate = common_gradient.flip_rate(subject, images, labels, 3 * direction, planted.TARGET)
    assert rate == expected > 0.5
    nothing = common_gradient.flip_rate(subject, images, labels, 0 * direction, planted.TARGET)
    alone = common_gradient.flip_rate(
        subject, images, np.full(len(images), planted.TARGET), direction, planted.TARGET
    )
    assert np.isnan([nothing, alone]).all()
    score = common_gradient.FLIPS.score(subject, images, labels, key=0, batch_size=16)
    own = common_gradient.flip_rate(subject, images, labels, score.picture, planted.TARGET)
    assert (score.target, score.statistic) == (planted.TARGET, own)


def test_bad_input():
    images, labels = planted.images(8)
    subject = planted.network(0)
    with pytest.raises(UserError, match="labels"):
        common_gradient.common_gradients(subject.apply_fn, subject.variables, images, labels + 4)
    one = lambda variables, images: jnp.zeros((len(images), 1))  # noqa: E731
    with pytest.raises(UserError, match="one class"):
        common_gradient.common_gradients(one, {}, images, np.zeros(8, np.int32))
    constant = lambda variables, images: jnp.zeros((len(images), 4))  # noqa: E731
    gradients = common_gradient.common_gradients(constant, {}, images, labels)
    with pytest.raises(UserError, match="depend on the image"):
        common_gradient.ratio(common_gradient.norms(gradients))
