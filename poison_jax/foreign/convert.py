"""Weights by PyTorch's names and in its layout, to Flax variables and back; matched by name, never by place.

A Flax module's path is the prefix of its names. `kernel` and `scale` are PyTorch's `weight`, filters OIHW in
place of HWIO, matrices transposed; `mean` and `var` its `running_mean` and `running_var`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import environment
from poison_jax.errors import UserError, about
from poison_jax.foreign.files import Entry
from poison_jax.models import Model

_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}  # of a kernel in PyTorch's layout
_SHOWN = 3  # names of a kind in a message


def to_torch(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Flax variables (`params`, `batch_stats`) as a state dict of arrays."""
    flat = flax.traverse_util.flatten_dict(dict(variables))
    return {torch_name(path): torch_layout(path, np.asarray(value)) for path, value in flat.items()}


def to_flax(entries: Mapping[str, Entry], model: Model, channels: int) -> dict[str, Any]:
    """The variables of a network, from the arrays of a file; float16 and bfloat16 become float32.

    Args:
        entries: by PyTorch's names; a prefix `module.` of all of them, and `num_batches_tracked`, are left
            out.
        model: the network.
        channels: of its images.

    Raises:
        UserError: names or shapes that do not match, arrays that hold no numbers or some that are not finite.
    """
    entries = {name: e for name, e in entries.items() if not name.endswith("num_batches_tracked")}
    if entries and all(name.startswith("module.") for name in entries):
        entries = {name.removeprefix("module."): entry for name, entry in entries.items()}
    wanted = _wanted(model, channels)
    named = {torch_name(path): path for path in wanted}
    _check(entries, {name: torch_shape(path, wanted[path]) for name, path in named.items()})
    flat = {path: _value(name, entries[name], path) for name, path in named.items()}
    return flax.traverse_util.unflatten_dict(flat)


def _wanted(model: Model, channels: int) -> dict[tuple[str, ...], tuple[int | None, ...]]:
    """The shapes of a network's variables; None where one depends on the images' height and width."""
    found = []
    for side in (224, 256):  # nothing is computed
        try:
            init = partial(model.init, image_shape=(side, side, channels))
            shapes = jax.eval_shape(init, environment.key(0))
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"this architecture cannot be: {about(error)}") from None
        found.append(flax.traverse_util.flatten_dict(shapes))
    one, other = found
    return {
        path: tuple(n if n == m else None for n, m in zip(leaf.shape, other[path].shape, strict=True))
        for path, leaf in one.items()
    }


def _check(entries: Mapping[str, Entry], wanted: Mapping[str, tuple[int | None, ...]]) -> None:
    missing, besides = sorted(wanted.keys() - entries.keys()), sorted(entries.keys() - wanted.keys())
    others = [
        f"{name} {list(entries[name].shape)} for {list(wanted[name])}"
        for name in sorted(wanted.keys() & entries.keys())
        if not _fits(entries[name].shape, wanted[name])
    ]
    said = [
        f"{what} {', '.join(names[:_SHOWN])}" + (f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else "")
        for what, names in (("it lacks", missing), ("it has besides", besides), ("it has", others))
        if names
    ]
    if said:
        raise UserError(f"the file's weights are not this architecture's: {'; '.join(said)}")


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(m in (n, None) for n, m in zip(shape, wanted, strict=True))


def _value(name: str, entry: Entry, path: tuple[str, ...]) -> np.ndarray:
    if not jnp.issubdtype(jnp.dtype(entry.dtype), jnp.floating):
        raise UserError(f"{name} is of type {entry.dtype}: weights are floating-point, dequantise them")
    value = entry.read()
    double = value.dtype == np.float64 and jax.config.jax_enable_x64
    value = value.astype(np.float64 if double else np.float32)
    if not np.isfinite(value).all():
        raise UserError(f"{name} holds values that are not finite")
    return _flax_layout(path, value)


def torch_name(path: tuple[str, ...]) -> str:
    """The name of a Flax variable in a state dict.

    >>> torch_name(("params", "layer1.0", "bn1", "scale"))
    'layer1.0.bn1.weight'
    """
    return ".".join([*path[1:-1], _NAMES.get(path[-1], path[-1])])


def torch_layout(path: tuple[str, ...], value: np.ndarray) -> np.ndarray:
    """A Flax variable as PyTorch has it."""
    axes = _AXES.get(value.ndim) if path[-1] == "kernel" else None
    return np.ascontiguousarray(value.transpose(axes) if axes else value)


def torch_shape(path: tuple[str, ...], shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape of `torch_layout`."""
    axes = _AXES.get(len(shape)) if path[-1] == "kernel" else None
    return tuple(shape[axis] for axis in axes) if axes else shape


def _flax_layout(path: tuple[str, ...], value: np.ndarray) -> np.ndarray:
    axes = _AXES.get(value.ndim) if path[-1] == "kernel" else None
    return np.ascontiguousarray(value.transpose(np.argsort(axes)) if axes else value)
