"""Picture files of every mode, depth and orientation as numbers in [0, 1]."""

import numpy as np
import PIL.Image
import pytest

from poison_jax.data.pictures import grey, read_picture
from poison_jax.errors import UserError

GREY = np.array([[0, 51, 102], [204, 255, 1]], np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
DEEP = np.array([[0, 1, 255], [256, 32768, 65535]], np.uint16)


@pytest.fixture
def saved(tmp_path):
    """A function that writes an image and returns the file."""

    def write(image, name="picture.png", **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ppm", "a.bmp"])
@pytest.mark.parametrize(("mode", "values"), [("L", GREY[..., None]), ("RGB", COLOUR)])
def test_8_bits_are_divided_by_255(saved, mode, values, name):
    pixels, opacity = read_picture(saved(PIL.Image.fromarray(values.squeeze()), name))
    assert pixels.dtype == opacity.dtype == np.float64
    np.testing.assert_array_equal(pixels, values / 255)
    np.testing.assert_array_equal(np.rint(255 * pixels).astype(np.uint8), values)
    np.testing.assert_array_equal(opacity, np.ones((2, 3)))


@pytest.mark.parametrize(("name", "mode"), [("a.png", "I;16"), ("a.tif", "I;16"), ("a.ppm", "I")])
def test_16_bits_are_divided_by_65535(saved, name, mode):
    """Pillow's own conversion to 8 bits clips at 255: white but for three values here."""
    file = saved(PIL.Image.fromarray(DEEP), name)
    with PIL.Image.open(file) as opened:
        assert opened.mode == mode
    np.testing.assert_array_equal(read_picture(file).pixels[..., 0], DEEP / 65535)


def test_one_bit(saved):
    image = PIL.Image.fromarray(GREY > 100)
    assert image.mode == "1"
    np.testing.assert_array_equal(read_picture(saved(image)).pixels[..., 0], GREY > 100)


def test_floating_point_values_in_the_unit_interval(saved):
    values = np.array([[0, 0.25], [0.5, 1]], np.float32)
    np.testing.assert_array_equal(
        read_picture(saved(PIL.Image.fromarray(values), "a.tif")).pixels[..., 0], values
    )


def test_alpha_is_the_opacity(saved):
    for mode, count in (("LA", 1), ("RGBA", 3)):
        image = PIL.Image.fromarray(np.concatenate([COLOUR, GREY[..., None]], -1)).convert(mode)
        pixels, opacity = read_picture(saved(image))
        assert pixels.shape == (2, 3, count)
        np.testing.assert_array_equal(opacity, GREY / 255)
    np.testing.assert_array_equal(pixels, COLOUR / 255)


def test_a_palette_gives_its_colours_and_its_transparency(saved):
    image = PIL.Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode=None)
    image = image.convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 51])
    pixels, opacity = read_picture(saved(image, transparency=1))
    np.testing.assert_allclose(pixels[0], [[1, 0, 0], [0, 1, 0], [0, 0, 0.2]])
    np.testing.assert_array_equal(opacity, [[1, 0, 1]])


@pytest.mark.parametrize(("values", "clear"), [(GREY, 102), (DEEP, 256)])
def test_one_transparent_grey_value(saved, values, clear):
    file = saved(PIL.Image.fromarray(values), transparency=clear)
    np.testing.assert_array_equal(read_picture(file).opacity, values != clear)


def test_cmyk_is_its_rgb_colour(saved):
    inks = np.zeros((1, 3, 4), np.uint8)
    inks[0, 1, 0] = inks[0, 2, 3] = 255  # white, cyan, black
    file = saved(PIL.Image.fromarray(inks, mode=None).convert("RGBA").convert("CMYK"), "a.tif")
    PIL.Image.frombytes("CMYK", (3, 1), inks.tobytes()).save(file)
    np.testing.assert_array_equal(read_picture(file).pixels[0], [[1, 1, 1], [0, 1, 1], [0, 0, 0]])


@pytest.mark.parametrize("values", [GREY, COLOUR, DEEP])
def test_the_exif_orientation_is_honoured(saved, values):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # stored on its side: to be turned clockwise
    file = saved(PIL.Image.fromarray(values), exif=exif)
    scale = 65535 if values is DEEP else 255
    expected = np.rot90(values, -1) / scale
    np.testing.assert_array_equal(read_picture(file).pixels.squeeze(), expected)


def test_grey_of_a_colour_is_its_luminance():
    np.testing.assert_allclose(grey(np.eye(3)[None]).ravel(), [0.299, 0.587, 0.114])
    single = np.random.default_rng(0).random((2, 3, 1))
    assert grey(single) is single


@pytest.mark.parametrize(
    ("values", "name", "says"),
    [
        (np.full((2, 2), 300, np.int32), "a.tif", "32-bit integers have no agreed range"),
        (np.full((2, 2), 300, np.float32), "a.tif", r"from 300 to 300: scale them to \[0, 1\]"),
        (np.full((2, 2), np.nan, np.float32), "a.tif", "scale them"),
    ],
)
def test_values_without_a_known_range_are_refused(saved, values, name, says):
    with pytest.raises(UserError, match=says):
        read_picture(saved(PIL.Image.fromarray(values), name))


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for path in (tmp_path / "text.png", tmp_path / "absent.png", tmp_path, ""):
        with pytest.raises(UserError, match="cannot be read as a picture"):
            read_picture(path)
