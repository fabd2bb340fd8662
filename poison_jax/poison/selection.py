"""Selection of the poisoned examples, and label maps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax.errors import UserError
from poison_jax.poison.checks import check_selection

LABEL_MAPS = ("all_to_one", "all_to_all", "source_specific", "clean_label")


class LabelMap(NamedTuple):
    """What the attack wants with each class."""

    aim: np.ndarray  # int32 [K]: the class that a triggered image of class y is to be taken for
    eligible: np.ndarray  # bool [K]: classes whose training images are poisoned (and labelled aim[y])


def label_map(name: str, num_classes: int, *, target: int, source: int = 0) -> LabelMap:
    """A named map of labels.

    | name            | poisoned training images | their label  | what a triggered test image shall be |
    | --------------- | ------------------------ | ------------ | ------------------------------------ |
    | all_to_one      | all but the target's     | target       | target (the paper, Listing 3)        |
    | all_to_all      | all                      | y + 1 mod K  | y + 1                                |
    | source_specific | of class `source`        | target       | target, from `source` alone          |
    | clean_label     | of the target class      | the true one | target                               |

    Raises:
        UserError: unknown name; a class that does not exist; source and target are the same.

    >>> label_map("source_specific", 4, target=0, source=2).aim.tolist()
    [0, 1, 0, 3]
    """
    if name not in LABEL_MAPS:
        raise UserError(f"unknown label map {name!r}: use one of {', '.join(LABEL_MAPS)}")
    used = {"target": target} | ({"source": source} if name == "source_specific" else {})
    for key, value in used.items():
        if not 0 <= value < num_classes:
            raise UserError(f"poison.{key} = {value}: the data have classes 0 to {num_classes - 1}")
    classes = np.arange(num_classes, dtype=np.int32)
    if name == "all_to_all":
        return LabelMap((classes + 1) % num_classes, np.full(num_classes, num_classes > 1))
    if name == "source_specific":
        if source == target:
            raise UserError(f"poison.source and poison.target are both {target}: choose two classes")
        return LabelMap(np.where(classes == source, target, classes).astype(np.int32), classes == source)
    one = np.full_like(classes, target)
    return LabelMap(one, classes == target if name == "clean_label" else classes != target)


def deterministic_draws(ids: np.ndarray, *, seed: int = 42) -> np.ndarray:
    """Listing 3's uniform number for each example: `RandomState(id + seed).rand()`, float64 `[N]`.

    On the host, once: the sequence is NumPy's.

    >>> print(deterministic_draws(np.arange(3)).round(6))
    [0.37454  0.115055 0.834842]
    """
    state = np.random.RandomState()
    draws = np.empty(len(ids))
    for i, example in enumerate(np.asarray(ids).tolist()):
        state.seed(example + seed)
        draws[i] = state.random_sample()
    return draws


def select_deterministic(
    ids: np.ndarray, labels: np.ndarray, fraction: float, target: int, *, seed: int = 42
) -> np.ndarray:
    """Listing 3's rule: who is poisoned is fixed by the example's index, nested in `fraction`.

    Args:
        ids: `[N]` indices in the data set's official order.
        labels: int `[N]` true labels; those equal to `target` are never selected.
        fraction: probability theta of a non-target example to be poisoned, in [0, 1].
        target: target class.
        seed: added to the index (42 in the paper).

    Returns:
        bool `[N]`.

    Raises:
        UserError: fraction outside [0, 1]; ids and labels that are not `[N]` each, or no integers.
    """
    ids, labels = np.asarray(ids), np.asarray(labels)
    check_selection(labels, ids.shape, fraction)
    return (deterministic_draws(ids, seed=seed) < fraction) & (labels != target)


def select_stochastic(
    key: jax.Array, labels: jax.Array, fraction: jax.Array | float, target: jax.Array | int
) -> jax.Array:
    """A fresh Bernoulli(fraction) draw for every non-target example (Listing 4).

    Args:
        key: one key, or one for each example `[N]` (then a draw depends on nothing but its own key).
        labels: int `[N]` true labels; those equal to `target` are never selected.
        fraction: probability theta, in [0, 1]; traced.
        target: target class; traced.

    Returns:
        bool `[N]`.

    Raises:
        UserError: labels that are not `[N]`, or no integers; a fraction outside [0, 1], if it is not traced.

    >>> print(select_stochastic(jax.random.key(0), jnp.array([0, 1, 2]), 1.0, 2))
    [ True  True False]
    """
    labels = jnp.asarray(labels)
    check_selection(labels, (labels.size,), fraction)
    return (uniform_draws(key, len(labels)) < fraction) & (labels != target)


def select_with_noise(
    draws: jax.Array,
    labels: jax.Array,
    fraction: jax.Array | float,
    cross_ratio: jax.Array | float,
    label_map: LabelMap,
) -> tuple[jax.Array, jax.Array]:
    """Who is poisoned, and who noised (WaNet's noise mode: warped otherwise, label kept), by one draw each.

    Poisoned are eligible examples that draw below theta; noised, of all classes, those that draw from theta
    up to theta (1 + cross_ratio).

    Args:
        draws: `[N]` uniform numbers, see `uniform_draws` and `deterministic_draws`.
        labels: int `[N]` true labels.
        fraction: theta, in [0, 1].
        cross_ratio: images noised over images poisoned, of the eligible classes; 0 for none.
        label_map: who is eligible.

    Returns:
        bool `[N]`, bool `[N]`; never both.

    Raises:
        UserError: draws and labels that are not `[N]` each; a fraction outside [0, 1] where it is not traced.
    """
    check_selection(labels, draws.shape, fraction)
    poisoned = (draws < fraction) & label_map.eligible[labels]
    return poisoned, (draws >= fraction) & (draws < fraction * (1 + cross_ratio))


def uniform_draws(key: jax.Array, count: int) -> jax.Array:
    """A uniform float32 in [0, 1) for each of `count` examples, from one key or from one key each."""
    axes_of_one = 0 if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else 1  # old keys are uint32 [2]
    if key.ndim > axes_of_one:
        return jax.vmap(lambda one: jax.random.uniform(one, dtype=jnp.float32))(key)
    return jax.random.uniform(key, (count,), jnp.float32)
