"""What happens to an image before the network: normalisation, random crops and flips."""

from collections import Counter

import jax
import numpy as np
import pytest
from scipy import stats

from poison_jax import augment


def test_normalise_channel_by_channel():
    images = np.ones((2, 3, 3, 2), np.float32)
    actual = augment.normalise(images, np.float32([0.5, 0.2]), np.float32([0.25, 0.4]))
    np.testing.assert_allclose(actual, np.broadcast_to([2.0, 2.0], images.shape), rtol=1e-6)


def windows(image, crop):
    """Every image that `crop_and_flip` may give, by (row, column, flipped)."""
    height, width = image.shape[:2]
    if crop == "pad4":
        image, freedom = np.pad(image, ((4, 4), (4, 4), (0, 0))), 9
    else:
        height, width, freedom = height - 4, width - 4, 5
    crops = {
        (row, col): image[row : row + height, col : col + width]
        for row in range(freedom)
        for col in range(freedom)
    }
    return {(*at, flipped): w[:, ::-1] if flipped else w for at, w in crops.items() for flipped in (0, 1)}


@pytest.mark.parametrize(("crop", "count"), [("pad4", 81 * 2), ("crop28", 25 * 2)])
def test_augmentation_is_a_uniform_draw_of_all_windows(crop, count):
    image = np.random.default_rng(0).random((6, 7, 2), np.float32)
    possible = {window.tobytes(): at for at, window in windows(image, crop).items()}
    assert len(possible) == count
    keys = jax.random.split(jax.random.key(0), 40 * count)
    images = jax.jit(jax.vmap(lambda key: augment.crop_and_flip(key, image, crop)))(keys)
    drawn = Counter(possible[augmented.tobytes()] for augmented in np.asarray(images))
    assert len(drawn) == count
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-3


@pytest.mark.parametrize("crop", ["pad4", "crop28"])
def test_augmentation_depends_on_nothing_but_the_key(crop):
    keys = jax.random.split(jax.random.key(1), 10)
    crop_and_flip = jax.jit(jax.vmap(lambda key, image: augment.crop_and_flip(key, image, crop)))
    images = np.random.default_rng(0).integers(0, 256, (10, 6, 7, 3), dtype=np.uint8)
    together = crop_and_flip(keys, images)
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(together[3:5], crop_and_flip(keys[3:5], images[3:5]))


@pytest.mark.parametrize(
    ("mode", "crop", "size"),
    [("none", "pad4", 32), ("none", "crop28", 32), ("crop_flip", "pad4", 32), ("crop_flip", "crop28", 28)],
)
def test_evaluation_sees_the_central_window(mode, crop, size):
    images = np.random.default_rng(0).random((2, 32, 32, 3))
    margin = (32 - size) // 2
    expected = images[:, margin : 32 - margin, margin : 32 - margin]
    assert augment.output_size(32, mode, crop) == size
    np.testing.assert_array_equal(augment.centre(images, mode, crop), expected)
