"""Logits without and with the trigger."""

import jax
import numpy as np
import pytest
from toys import training

from poison_jax import evaluate, poison
from poison_jax.errors import UserError


@pytest.mark.parametrize(
    ("devices", "batch_size", "at_once", "passes"),
    [(1, 64, 2**30, 1), (8, 8, 2**30, 1), (8, 8, 1100, 2), (1, 4, 1, 6)],
)
def test_predictions_in_whatever_batches(devices, batch_size, at_once, passes, monkeypatch):
    """One that is not full; three of which the last is ragged, in one pass and in two; six passes of one."""
    state, train_data, knobs, program = training(devices=devices)
    images = np.asarray(train_data.images)[:21]
    calls, compiled = [], evaluate._logits
    monkeypatch.setattr(evaluate, "_logits", lambda *given: calls.append(given) or compiled(*given))
    monkeypatch.setattr(evaluate, "AT_ONCE", at_once)
    found = evaluate.predict(state.variables, images, knobs, program, batch_size=batch_size)
    assert len(calls) == passes
    pixels = images / np.float32(255)
    stamped = np.asarray(poison.stamp(pixels, np.asarray(knobs.trigger.opacity)))
    variables, apply = jax.device_get(state.variables), jax.jit(program.model.apply)
    for logits, view in zip(found, (pixels, stamped), strict=True):
        expected, _ = apply(variables, (view - np.float32(0.5)) / np.float32(0.25))
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


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
