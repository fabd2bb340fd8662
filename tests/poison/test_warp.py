"""WaNet's warp against scipy's sampling and a direct evaluation of the bicubic field."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from poison_jax import poison
from poison_jax.errors import UserError


def cubic(t):
    """Keys's kernel with a = -0.75, as in PyTorch."""
    a, t = -0.75, np.abs(t)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def direct_field(noise, height, width, s, grid_rescale):
    """The original's steps, pixel by pixel, in float64."""
    k = len(noise)
    noise = noise / np.abs(noise).mean()
    field = np.empty((height, width, 2))
    for row in range(height):
        for col in range(width):
            y = row * (k - 1) / (height - 1) if height > 1 else 0.0
            x = col * (k - 1) / (width - 1) if width > 1 else 0.0
            total = np.zeros(2)
            for i in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
                for j in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                    value = noise[np.clip(i, 0, k - 1), np.clip(j, 0, k - 1)]
                    total += cubic(y - i) * cubic(x - j) * value
            identity = [
                -1 + 2 * col / (width - 1) if width > 1 else -1,
                -1 + 2 * row / (height - 1) if height > 1 else -1,
            ]
            field[row, col] = (np.array(identity) + s * total / height) * grid_rescale
    return np.clip(field, -1, 1)


@pytest.mark.parametrize(
    ("height", "width", "k", "s", "rescale"),
    [
        (32, 32, 4, 0.5, 1.0),
        (28, 28, 8, 2.0, 0.98),
        (9, 14, 3, 0.64, 1.0),
        (8, 8, 2, 1.0, 1.0),
        (5, 1, 1, 1.0, 1.0),
    ],
)
def test_field_equals_its_definition(height, width, k, s, rescale):
    key = jax.random.key(3)
    noise = np.asarray(jax.random.uniform(key, (k, k, 2), minval=-1, maxval=1), np.float64)
    field = poison.warp_field(key, height, width, k=k, s=s, grid_rescale=rescale)
    assert field.shape == (height, width, 2)
    assert field.dtype == jnp.float32
    np.testing.assert_allclose(field, direct_field(noise, height, width, s, rescale), atol=1e-5)


def test_field_is_not_the_cubic_of_jax_image():
    """Whose kernel has a = -0.5 and half-pixel centres: the trap that conventions name."""
    key = jax.random.key(0)
    noise = jax.random.uniform(key, (4, 4, 2), minval=-1, maxval=1)
    other = jax.image.resize(noise / jnp.abs(noise).mean(), (32, 32, 2), "cubic")
    ours = poison.warp_field(key, 32, 32) - poison.warp_field(key, 32, 32, s=0.0)
    assert np.abs(ours[4:-4, 4:-4] * 64 - other[4:-4, 4:-4]).max() > 0.05


@pytest.mark.parametrize("shape", [(2, 32, 32, 3), (1, 9, 14, 1), (3, 2, 7, 6, 2)])
def test_warp_equals_scipys_sampling(shape):
    images = np.random.default_rng(0).random(shape).astype(np.float32)
    height, width = shape[-3:-1]
    field = poison.warp_field(
        jax.random.key(1), height, width, s=4.0
    )  # strong, so that the border is clipped
    rows = (np.asarray(field[..., 1], np.float64) + 1) / 2 * (height - 1)
    cols = (np.asarray(field[..., 0], np.float64) + 1) / 2 * (width - 1)
    warped = np.asarray(poison.warp(images, field))
    assert warped.shape == images.shape
    flat, expected = images.reshape(-1, *shape[-3:]), np.empty(images.shape).reshape(-1, *shape[-3:])
    for i, image in enumerate(flat):
        for channel in range(shape[-1]):
            expected[i, ..., channel] = map_coordinates(image[..., channel], [rows, cols], order=1)
    np.testing.assert_allclose(warped.reshape(expected.shape), expected, atol=1e-5)


def test_outside_is_zero():
    image = jnp.ones((1, 4, 4, 1))
    field = jnp.broadcast_to(jnp.array([1.7, 0.0]), (4, 4, 2))  # more than a pixel beyond the last column
    assert not poison.warp(image, field).any()
    half = jnp.broadcast_to(jnp.array([1 + 1 / 3, 0.0]), (4, 4, 2))  # half a pixel beyond
    np.testing.assert_allclose(poison.warp(image, half), 0.5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_identity_field_is_the_identity_to_rounding(dtype, x64):
    images = np.random.default_rng(0).random((2, 17, 32, 3)).astype(dtype)
    warped = poison.warp(images, poison.warp_field(jax.random.key(0), 17, 32, s=0.0))
    assert warped.dtype == dtype
    np.testing.assert_allclose(warped, images, atol=1e-5)  # the field is float32


def test_noisy_fields_equal_their_definition_and_differ_by_key():
    field = poison.warp_field(jax.random.key(0), 16, 12)
    keys = jax.random.split(jax.random.key(1), 5)
    fields = jax.vmap(poison.noise_field, (0, None))(keys, field)
    for key, noisy in zip(keys, fields, strict=True):
        noise = np.asarray(jax.random.uniform(key, (16, 12, 2), minval=-1, maxval=1), np.float64)
        np.testing.assert_allclose(noisy, np.clip(field + noise / 16, -1, 1), atol=1e-6)
    assert np.abs(fields[0] - fields[1]).max() > 0.01


def test_what_is_no_field_is_refused():
    for shape in ((8, 8), (8, 8, 1), (2, 8, 8, 2)):
        with pytest.raises(UserError, match=r"give \[height, width, 2\]"):
            poison.warp(np.zeros((2, 8, 8, 1), np.float32), np.zeros(shape, np.float32))
    with pytest.raises(UserError, match="at least 1"):
        poison.warp_field(jax.random.key(0), 8, 8, k=0)


def test_gradient_and_float_precision_of_a_jitted_batch():
    """Under jit and vmap over fields it is the same; the derivative is the transpose of the sampling."""
    images = jnp.asarray(np.random.default_rng(0).random((3, 8, 8, 1)), jnp.float32)
    field = poison.warp_field(jax.random.key(0), 8, 8, s=2.0)
    many = jax.jit(jax.vmap(poison.warp))(images, jnp.broadcast_to(field, (3, *field.shape)))
    np.testing.assert_allclose(many, poison.warp(images, field), atol=1e-6)
    cotangent = jnp.ones_like(images)
    (pulled,) = jax.vjp(lambda x: poison.warp(x, field), images)[1](cotangent)
    np.testing.assert_allclose((pulled * images).sum(), many.sum(), rtol=1e-5)
