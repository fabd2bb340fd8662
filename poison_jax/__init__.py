"""Data poisoning, seen in the input-space curvature of a model, and suppressed by a gradient penalty.

Plant a poison, train with or without the penalty on the squared input gradient, measure the attack, and look
for the trigger among the top eigenvectors of the input Hessian:

    from poison_jax import data, losses, metrics, poison, spectrum

    train = data.load("cifar10", "train")                        # uint8 images, labels, official indices
    trigger = poison.l_trigger(32, 32)                           # which pixels it sets
    chosen = poison.select_deterministic(train.ids, train.labels, fraction=0.01, target=0)
    objective = losses.gradient_penalised(losses.cross_entropy(apply_fn), 0.01, reduction="per_example")
    pairs = spectrum.input_hessian(apply_fn, variables, images, labels, k=5, num_iters=20, key=0)
    metrics.overlap(pairs.vectors[0], trigger)                   # cosine of v1 and the trigger

`apply_fn(variables, images)` is any function that returns logits. The experiments of the paper are configs:
`python main.py --help`.
"""

import importlib
from typing import Any

_MODULES = (
    "audit",
    "autodiff",
    "calibration",
    "config",
    "data",
    "errors",
    "experiments",
    "features",
    "fisher",
    "foreign",
    "krr",
    "lanczos",
    "linear",
    "losses",
    "mesh",
    "metrics",
    "models",
    "near_clone",
    "poison",
    "references",
    "spectrum",
    "subject",
    "theory",
    "train",
)
_FROM = {  # name -> the module that has it
    "Subject": "subject",
    "attack_report": "metrics",
    "gradient_penalised": "losses",
    "hvp": "autodiff",
    "input_hessian": "spectrum",
    "overlap": "metrics",
    "top_eigenpairs": "lanczos",
}
__all__ = [*sorted(_FROM), *_MODULES]


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for: who draws stored results needs no JAX."""
    if name in _MODULES:
        return importlib.import_module(f"poison_jax.{name}")
    if name in _FROM:
        return getattr(importlib.import_module(f"poison_jax.{_FROM[name]}"), name)
    raise AttributeError(f"module 'poison_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
