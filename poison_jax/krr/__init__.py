"""Kernel ridge regression as a model of poisoning (Section 3; Appendices A, C, D)."""

from poison_jax.krr.kernels import Deep as deep
from poison_jax.krr.kernels import Kernel, gaussian
from poison_jax.krr.kernels import Linear as linear
from poison_jax.krr.laws import (
    NearClone,
    TriggerPoint,
    clone_effect,
    detectable_efficacy,
    efficacy,
    gain,
    near_clone,
    spike,
    trigger,
)
from poison_jax.krr.penalised import (
    HermiteFit,
    PenalisedPath,
    filter_response,
    gradient_gram,
    gram,
    hermite_fit,
    penalised_fit,
)
from poison_jax.krr.regression import KRR, Expansion, fit
from poison_jax.krr.visibility import (
    FarClone,
    PenaltyVisibility,
    far_clone_bounds,
    mean_square_frequency,
    penalty_visibility,
    spike_factor_at_clone,
    visibility_on,
)

__all__ = [
    "KRR",
    "Expansion",
    "FarClone",
    "HermiteFit",
    "Kernel",
    "NearClone",
    "PenalisedPath",
    "PenaltyVisibility",
    "TriggerPoint",
    "clone_effect",
    "deep",
    "detectable_efficacy",
    "efficacy",
    "far_clone_bounds",
    "filter_response",
    "fit",
    "gain",
    "gaussian",
    "gradient_gram",
    "gram",
    "hermite_fit",
    "linear",
    "mean_square_frequency",
    "near_clone",
    "penalised_fit",
    "penalty_visibility",
    "spike",
    "spike_factor_at_clone",
    "trigger",
    "visibility_on",
]
