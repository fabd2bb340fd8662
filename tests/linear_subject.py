"""Linear networks, of which the tests of the detectors know the answers."""

import numpy as np

from poison_jax.models import Features
from poison_jax.subject import Subject


def linear(variables, images):
    return images.reshape(len(images), -1) @ variables["w"] + variables["b"]


def with_features(variables, images):
    """Features are the pixels; logits are linear in them."""
    features = images.reshape(len(images), -1)
    return features @ variables["w"] + variables["b"], Features(features, images)


def subject(w, b=None, *, apply_fn=linear, normalisation=None):
    w = np.asarray(w, np.float32)
    b = np.zeros(w.shape[1], np.float32) if b is None else np.asarray(b, np.float32)
    return Subject(apply_fn, {"w": w, "b": b}, normalisation=normalisation)
