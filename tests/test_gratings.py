"""The waves in an image."""

import numpy as np
import pytest

from poison_jax import gratings
from poison_jax.errors import UserError


def wave(down, along, height=32, width=32):
    rows, columns = np.mgrid[:height, :width]
    return np.cos(2 * np.pi * (down * rows / height + along * columns / width) + 0.3)


@pytest.mark.parametrize(
    ("frequency", "shape"),
    [((3, 5), (32, 32)), ((-3, 5), (32, 32)), ((6, 0), (32, 32)), ((0, 7), (20, 32)), ((-9, 2), (21, 15))],
)
def test_the_peak_of_a_grating(frequency, shape):
    for image in (wave(*frequency, *shape), 5 - wave(-frequency[0], -frequency[1], *shape)):
        peak = gratings.spectral_peak(image)
        assert tuple(peak.frequency) == frequency
        np.testing.assert_allclose(peak.share, 1)
        assert peak.prominence > 1e15


def test_the_finest_wave_there_is():
    """Its own mirror image: counted once."""
    checkers = (-1.0) ** np.add.outer(np.arange(8), np.arange(8))
    peak = gratings.spectral_peak(checkers)
    assert tuple(peak.frequency) == (4, 4)
    assert peak.share == 1


def test_the_peak_of_a_grid_in_noise():
    """Two gratings, of which the stronger is named; its share is that of its power."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((32, 32))
    peak = gratings.spectral_peak(wave(0, 4) + 0.5 * wave(4, 0) + noise)
    assert tuple(peak.frequency) == (0, 4)
    np.testing.assert_allclose(peak.share, 0.5 / (0.5 + 0.125 + 0.01), rtol=0.02)
    assert peak.prominence > 1000


def test_channels_of_opposite_sign_do_not_hide_a_wave():
    grid = wave(2, 6)
    peak = gratings.spectral_peak(np.stack([grid, -0.5 * grid, -0.5 * grid], axis=-1))
    assert tuple(peak.frequency) == (2, 6)
    np.testing.assert_allclose(peak.share, 1)


@pytest.mark.parametrize(
    ("shape", "mean", "rare"), [((32, 32), (np.log(512) + 0.5772) / np.log(2), 23), ((32, 32, 3), 4.0, 6.6)]
)
def test_the_prominence_of_white_noise(shape, mean, rare):
    """What the docstring says of it."""
    rng = np.random.default_rng(0)
    found = np.array([gratings.spectral_peak(rng.standard_normal(shape)).prominence for _ in range(400)])
    np.testing.assert_allclose(found.mean(), mean, rtol=0.07)
    assert 0.001 <= np.mean(found > rare) <= 0.025


@pytest.mark.parametrize("shape", [(8, 8), (7, 5, 3), (1, 1)])
def test_a_constant_image_has_no_peak(shape):
    peak = gratings.spectral_peak(np.full(shape, 0.1))
    assert tuple(peak.frequency) == (0, 0)
    assert (peak.share, peak.prominence) == (0, 0)


@pytest.mark.parametrize("image", [np.zeros(4), np.zeros((0, 3)), np.full((4, 4), np.nan)])
def test_what_is_no_image_has_no_peak(image):
    with pytest.raises(UserError, match="an image of shape"):
        gratings.spectral_peak(image)
