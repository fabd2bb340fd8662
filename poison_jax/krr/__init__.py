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
    hermite_fit,
    penalised_fit,
)
from poison_jax.krr.regression import KRR, Expansion, fit

__all__ = [
    "KRR",
    "Expansion",
    "HermiteFit",
    "Kernel",
    "NearClone",
    "PenalisedPath",
    "TriggerPoint",
    "clone_effect",
    "deep",
    "detectable_efficacy",
    "efficacy",
    "filter_response",
    "fit",
    "gain",
    "gaussian",
    "gradient_gram",
    "hermite_fit",
    "linear",
    "near_clone",
    "penalised_fit",
    "spike",
    "trigger",
]
