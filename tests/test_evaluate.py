"""Logits without and with the trigger."""

import jax
import numpy as np
import pytest
from toys import training

from poison_jax import evaluate, poison
from poison_jax.errors import UserError


def test_predict_pads_the_last_batch():
    state, train_data, knobs, program = training(devices=8)
    images = np.asarray(train_data.images)[:21]
    clean, triggered = evaluate.predict(state.variables, images, knobs, program, batch_size=8)
    view = (images / 255 - 0.5) / 0.25
    expected, _ = program.model.apply(jax.device_get(state.variables), view.astype(np.float32))
    np.testing.assert_allclose(clean, expected, rtol=1e-4, atol=1e-4)
    stamped = (
        np.asarray(poison.stamp(images / np.float32(255), np.asarray(knobs.trigger.opacity))) - 0.5
    ) / 0.25
    expected, _ = program.model.apply(jax.device_get(state.variables), stamped)
    np.testing.assert_allclose(triggered, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("devices", [1, 8])
def test_how_images_are_put_in_batches_changes_nothing(devices):
    state, train_data, knobs, program = training(devices=devices)
    images = np.asarray(train_data.images)[:11]
    expected = evaluate.predict(state.variables, images, knobs, program, batch_size=64)
    actual = evaluate.predict(state.variables, images, knobs, program, batch_size=8)
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == (11, 4)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("images", "batch_size", "says"),
    [
        (np.zeros((0, 8, 8, 1), np.uint8), 8, "at least one"),
        (np.zeros((4, 8, 8), np.uint8), 8, "uint8 .N, H, W, C."),
        (np.zeros((4, 8, 8, 1), np.float32), 8, "float32 .* give uint8"),
        (np.zeros((4, 8, 8, 1), np.uint8), 12, "multiple of the mesh"),
    ],
)
def test_images_that_are_refused(images, batch_size, says):
    state, _, knobs, program = training(devices=8)
    with pytest.raises(UserError, match=says):
        evaluate.predict(state.variables, images, knobs, program, batch_size=batch_size)
