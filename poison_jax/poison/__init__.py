"""The attack: what the trigger looks like, whom it is stamped on, with which label."""

from poison_jax.poison.selection import (
    LABEL_MAPS,
    LabelMap,
    deterministic_draws,
    label_map,
    select_deterministic,
    select_stochastic,
    select_with_noise,
    uniform_draws,
)
from poison_jax.poison.triggers import (
    Trigger,
    apply,
    blend,
    l_trigger,
    load_mask,
    load_picture,
    own_trigger,
    square,
    stamp,
    trigger_mask,
)
from poison_jax.poison.warp import noise_field, warp, warp_field

__all__ = [
    "LABEL_MAPS",
    "LabelMap",
    "Trigger",
    "apply",
    "blend",
    "deterministic_draws",
    "l_trigger",
    "label_map",
    "load_mask",
    "load_picture",
    "noise_field",
    "own_trigger",
    "select_deterministic",
    "select_stochastic",
    "select_with_noise",
    "square",
    "stamp",
    "trigger_mask",
    "uniform_draws",
    "warp",
    "warp_field",
]
