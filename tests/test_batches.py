"""Images in batches of one shape, and what is refused of a network's inputs and outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poison_jax import batches
from poison_jax.errors import UserError
from poison_jax.mesh import make_mesh


@pytest.mark.parametrize("total", [1, 3, 4, 11])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("extra", [0, 2])
def test_split_gives_every_row_once(total, batch_size, extra):
    images, labels = np.arange(2 * total).reshape(total, 2), np.arange(total)
    count = -(-total // batch_size) + extra
    found = list(batches.split(images, labels, batch_size=batch_size, count=count))
    assert len(found) == count
    assert {rows.shape for (rows, _), _ in found} == {(batch_size, 2)}
    np.testing.assert_array_equal(np.concatenate([rows[:size] for (rows, _), size in found]), images)
    np.testing.assert_array_equal(np.concatenate([rows[:size] for (_, rows), size in found]), labels)
    for (rows, _), size in found:
        np.testing.assert_array_equal(rows[size:], np.broadcast_to(images[-1], rows[size:].shape))


@pytest.mark.parametrize("batch_size", [8, 16, 64, None])
@pytest.mark.parametrize("devices", [None, 8])
def test_outputs_are_those_of_all_at_once(batch_size, devices):
    mesh = None if devices is None else make_mesh(jax.devices()[:devices])
    images = np.random.default_rng(0).random((19, 5))
    whole = None if mesh is None else jax.NamedSharding(mesh, jax.P())
    function = jax.jit(lambda x: (x.sum(1), {"double": 2 * x}), out_shardings=whole)
    total, rest = batches.outputs(function, images, batch_size=batch_size, mesh=mesh)
    assert isinstance(total, np.ndarray)
    np.testing.assert_allclose(total, images.sum(1), rtol=1e-5)
    np.testing.assert_allclose(rest["double"], 2 * images, rtol=1e-6)


@pytest.mark.parametrize(
    ("asked", "count", "devices", "expected"),
    [
        (64, 11, 1, 11),
        (4, 11, 1, 4),
        (64, 11, 8, 16),
        (None, 1000, 1, 128),
        (None, 1000, 6, 132),
        (8, 1, 8, 8),
    ],
)
def test_size_of_a_batch(asked, count, devices, expected):
    mesh = None if devices == 1 else make_mesh(jax.devices()[:devices])
    assert batches.size_of(asked, count, mesh) == expected


@pytest.mark.parametrize(
    ("asked", "devices", "says"), [(0, 1, "at least 1"), (-4, 2, "at least 1"), (9, 2, "2 dev")]
)
def test_sizes_that_are_refused(asked, devices, says):
    with pytest.raises(UserError, match=says):
        batches.size_of(asked, 11, make_mesh(jax.devices()[:devices]))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((0, 4, 4)), "at least one"),
        (np.zeros(4), "at least one"),
        (np.zeros((2, 0, 3)), "at least one"),
        (np.zeros((2, 3), np.uint8), "x are uint8: scale"),
        (np.array([[np.inf, 0]]), "x hold values that are not finite"),
    ],
)
def test_images_that_are_refused(images, says):
    with pytest.raises(UserError, match=says):
        batches.checked_images(images, "x")


def test_the_number_of_classes_is_computed_from_shapes_alone():
    ran = []

    def apply_fn(variables, images):
        jax.debug.callback(lambda: ran.append(1))
        return (jnp.zeros((len(images), 7)) + variables["w"], "features")

    for w in (1, 1.0, np.float32(1), np.ones(7), jnp.ones(7, jnp.bfloat16), jax.random.key(0)):
        if not isinstance(w, jax.Array) or w.dtype == jnp.bfloat16:
            assert batches.num_classes(lambda v, x: apply_fn(v, x)[0], {"w": w}, np.zeros((3, 2))) == 7
        batches.check_variables({"w": w, "none": None})
    assert not ran
