"""Linear regression with a poisoned block of features (Section 4, Lemma F.1): exact fits and SGD."""

from poison_jax.linear.least_squares import (
    Factorisation,
    Update,
    add_feature,
    factorise,
    leading,
    least_squares,
)

__all__ = ["Factorisation", "Update", "add_feature", "factorise", "leading", "least_squares"]
