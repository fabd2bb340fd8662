"""The attack: what the trigger looks like, whom it is stamped on, with which label."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax.errors import UserError


def l_trigger(height: int, width: int, *, margin: int = 3, size: int = 2) -> np.ndarray:
    """The L of Listing 2 in the upper right corner: bool `[height, width]`.

    Args:
        margin: distance of the L's box from the upper and the right edge, in pixels.
        size: side of the box, in pixels; the arms cross at its (rounded down) centre.

    Raises:
        UserError: the box does not fit in the image.

    >>> np.argwhere(l_trigger(32, 32)).tolist()
    [[3, 27], [3, 28], [4, 27]]
    """
    _check_box("l", height, width, margin, size)
    mask = np.zeros((height, width), bool)
    rows = slice(margin, margin + size)
    cols = slice(width - margin - size, width - margin)
    mask[rows, (cols.start + cols.stop - 1) // 2] = True
    mask[(rows.start + rows.stop - 1) // 2, cols] = True
    return mask


def square(height: int, width: int, *, margin: int = 0, size: int = 2) -> np.ndarray:
    """A square in the lower right corner (Section 4: 2x2 on MNIST): bool `[height, width]`.

    Args:
        margin: distance from the lower and the right edge, in pixels.
        size: side, in pixels.

    Raises:
        UserError: the square does not fit in the image.
    """
    _check_box("square", height, width, margin, size)
    mask = np.zeros((height, width), bool)
    mask[height - margin - size : height - margin, width - margin - size : width - margin] = True
    return mask


def load_mask(path: str, height: int, width: int, channels: int) -> np.ndarray:
    """A user's mask from an `.npy` file: bool `[height, width]` or `[height, width, channels]`."""
    try:
        with open(Path(path).expanduser(), "rb") as file:
            mask = np.lib.format.read_array(file, allow_pickle=False)  # np.load would take an .npz, too
    except Exception as error:
        raise UserError(f"poison.mask: {path!r} is not a readable .npy file: {error}") from None
    if mask.shape not in ((height, width), (height, width, channels)):
        raise UserError(f"poison.mask: {path!r} is {mask.shape}, the image {(height, width, channels)}")
    mask = mask.astype(bool)
    if not mask.any():
        raise UserError(f"poison.mask: {path!r} marks no pixel")
    return mask


def trigger_mask(
    trigger: str, height: int, width: int, channels: int, *, margin: int, size: int, path: str = ""
) -> np.ndarray:
    """The mask of a named trigger (`l`, `square`, `mask` from a file, `none`), as in the config."""
    if trigger == "l":
        return l_trigger(height, width, margin=margin, size=size)
    if trigger == "square":
        return square(height, width, margin=margin, size=size)
    if trigger == "mask":
        return load_mask(path, height, width, channels)
    if trigger == "none":
        return np.zeros((height, width), bool)
    raise UserError(f"unknown trigger {trigger!r}: use l, square, mask or none")


def stamp(images: jax.Array, mask: jax.Array, value: jax.Array | float = 1.0) -> jax.Array:
    """Images with the pixels under the mask *set* to `value` (Listing 3).

    Args:
        images: `[..., H, W, C]` in [0, 1], before normalisation.
        mask: bool `[H, W]` (all channels) or `[H, W, C]`.
        value: scalar, or anything that broadcasts to `[H, W, C]`: a colour `[C]`, a picture.

    >>> print(stamp(jnp.zeros((2, 2, 1)), np.eye(2, dtype=bool), 0.5)[..., 0])
    [[0.5 0. ]
     [0.  0.5]]
    """
    mask = jnp.asarray(mask)
    if mask.ndim == 2:
        mask = mask[..., None]
    return jnp.where(mask, jnp.asarray(value, images.dtype), images)


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
        UserError: fraction outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise UserError(f"poison fraction {fraction} is not in [0, 1]")
    return (deterministic_draws(ids, seed=seed) < fraction) & (np.asarray(labels) != target)


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

    >>> print(select_stochastic(jax.random.key(0), jnp.array([0, 1, 2]), 1.0, 2))
    [ True  True False]
    """
    labels = jnp.asarray(labels)
    axes_of_one = 0 if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else 1  # old keys are uint32 [2]
    per_example = key.ndim > axes_of_one
    draws = jax.vmap(jax.random.uniform)(key) if per_example else jax.random.uniform(key, labels.shape)
    return (draws < fraction) & (labels != target)


def _check_box(trigger: str, height: int, width: int, margin: int, size: int) -> None:
    if size < 1 or margin < 0 or margin + size > min(height, width):
        raise UserError(
            f"trigger {trigger!r}, margin {margin}, size {size}: outside the {height}x{width} image; "
            "lower poison.margin or poison.size"
        )
