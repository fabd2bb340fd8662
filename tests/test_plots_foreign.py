"""Names and images that were not made for figures."""

import doctest

import matplotlib.pyplot as plt
import numpy as np
import pytest

from plots import command, foreign


def test_examples():
    assert doctest.testmod(foreign) == (0, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_images_of_any_number_of_channels(channels, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, channels), dtype=np.uint8)
    figure, axis = plt.subplots()
    foreign.image(axis, picture)
    (drawn,) = axis.images
    np.testing.assert_allclose(drawn.get_array(), picture if channels == 3 else picture.mean(-1))
    command.save(figure, tmp_path, "x")


@pytest.mark.parametrize("name", ["a$b$", "$x_{", "$\\frac{", "<b>&amp;", "100%", "_", "猫", "", "a\nb", "$"])
def test_any_name_can_be_drawn(name, tmp_path):
    """And without a warning: these are errors here."""
    figure, axis = plt.subplots()
    axis.set_title(foreign.literal(name))
    files = command.save(figure, tmp_path, "x")
    assert all(file.stat().st_size for file in files)
