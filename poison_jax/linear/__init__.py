"""Linear regression with a poisoned block of features (Section 4, Lemma F.1): exact fits, SGD, visibility."""

from poison_jax.linear.least_squares import (
    Factorisation,
    Update,
    add_feature,
    factorise,
    leading,
    least_squares,
)
from poison_jax.linear.visibility import (
    Threshold,
    dead_trigger_overlap,
    flipping_margin,
    spike_overlap,
    visible_coefficient,
)

__all__ = [
    "Factorisation",
    "Threshold",
    "Update",
    "add_feature",
    "dead_trigger_overlap",
    "factorise",
    "flipping_margin",
    "leading",
    "least_squares",
    "spike_overlap",
    "visible_coefficient",
]
