"""Logits without and with the trigger."""

import jax
import numpy as np
from toys import training

from poison_jax import evaluate, poison


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
