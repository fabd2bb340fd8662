"""Networks of one layer after the other, described in a line a layer."""

import re
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import kernels
from poison_jax.errors import UserError
from poison_jax.models import BatchNorm

torch_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
he_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(
    convolutions: str, filters: int, size: int, *, stride: int = 1, pad: int = 0, **options: Any
) -> nn.Conv:
    """A convolution by the project's kernels where they apply."""
    return nn.Conv(
        filters,
        (size, size),
        stride,
        padding=pad,
        conv_general_dilated=partial(kernels.conv_general_dilated, convolutions=convolutions),
        **options,
    )


def norm(x: jax.Array, train: bool, name: str) -> jax.Array:
    """Batch norm with torch's momentum (0.1 there is 0.9 here) and epsilon."""
    return BatchNorm(use_running_average=not train, dtype=x.dtype, param_dtype=x.dtype, name=name)(x)


class Layer(NamedTuple):
    """A line of a description."""

    kind: str
    name: str = ""
    units: int = 0  # filters of a convolution
    size: int = 0  # pixels a side
    stride: int = 0
    pad: int = 0
    bias: bool = True
    he: bool = False  # weights drawn as deep networks without shortcuts need them


_ACTIVATIONS = {"relu": nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}
_WORDS = {  # kind -> what stands behind it
    "conv": ("name", "units", "size"),
    "norm": ("name",),
    "linear": ("name", "units"),
    "maxpool": ("size",),
    "avgpool": ("size",),
    "adaptive": ("size",),
    "flatten": (),
    **dict.fromkeys(_ACTIVATIONS, ()),
}
_OPTIONS = {"conv": {"stride", "pad", "bias", "init"}, "linear": {"bias"}, "maxpool": {"stride", "pad"}}
_CHOICES = {"bias": ("yes", "no"), "init": ("he",)}


def sequential(description: str, num_classes: int, *, convolutions: str = "auto") -> nn.Module:
    """The network of a description.

    Raises:
        UserError: it names the line that is wrong.
    """
    lines = (line.partition("#")[0].strip() for line in description.replace(";", "\n").splitlines())
    layers = tuple(_layer(line, num_classes) for line in lines if line)
    names = [layer.name for layer in layers if layer.name]
    if not names or len(set(names)) < len(names):
        raise UserError("an architecture needs layers with weights, and no two of one name")
    return Sequential(layers, convolutions)


def _layer(line: str, num_classes: int) -> Layer:
    kind, *words = line.split()
    given = [word for word in words if "=" not in word]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    usage = f"{kind} {' '.join(_WORDS.get(kind, ())).upper()}".strip()
    known = options.keys() <= _OPTIONS.get(kind, set())
    if kind not in _WORDS or len(given) != len(_WORDS[kind]) or not known:
        what = f"write {usage}" if kind in _WORDS else f"use {', '.join(_WORDS)}"
        raise UserError(f"architecture, line {line!r}: {what}")
    values: dict[str, Any] = dict(zip(_WORDS[kind], given, strict=True)) | options
    for key, choices in _CHOICES.items():
        if options.get(key, choices[0]) not in choices:
            raise UserError(f"architecture, line {line!r}: {key} is {' or '.join(choices)}")
    values["he"] = values.pop("init", "") == "he"
    values["bias"] = values.get("bias", "yes") == "yes"
    if not re.fullmatch(r"[\w.]*", values.get("name", "")):
        raise UserError(f"architecture, line {line!r}: a name has letters, digits, dots and _")
    if values.get("units") == "classes":
        values["units"] = num_classes
    for key in ("units", "size", "stride", "pad"):
        if key in values:
            least = 0 if key == "pad" else 1
            if not (str(values[key]).isdecimal() and least <= int(values[key]) <= 100_000):
                raise UserError(f"architecture, line {line!r}: {key} must be a whole number from {least} on")
            values[key] = int(values[key])
    return Layer(kind, **values)


class Sequential(nn.Module):
    """The layers of a description, one after the other."""

    layers: tuple[Layer, ...]
    convolutions: str = "auto"

    @property
    def ends(self) -> tuple[str, str]:
        """Names of the first and the last layer with weights."""
        named = [layer.name for layer in self.layers if layer.name]
        return named[0], named[-1]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for layer in self.layers:
            window, stride = (layer.size, layer.size), layer.stride or layer.size
            if layer.kind == "conv":
                place = {"stride": layer.stride or 1, "pad": layer.pad, "name": layer.name}
                init = he_init if layer.he else torch_init
                options = {"use_bias": layer.bias, "kernel_init": init} | place
                x = conv(self.convolutions, layer.units, layer.size, **options)(x)
            elif layer.kind == "norm":
                x = norm(x, train, layer.name)
            elif layer.kind == "linear":
                if x.ndim != 2:
                    raise UserError(f"linear {layer.name} comes before flatten")
                options = {"use_bias": layer.bias, "kernel_init": torch_init, "name": layer.name}
                x = nn.Dense(layer.units, **options)(x)
            elif layer.kind == "maxpool":
                x = nn.max_pool(x, window, (stride, stride), ((layer.pad, layer.pad),) * 2)
            elif layer.kind == "avgpool":
                x = nn.avg_pool(x, window, window)
            elif layer.kind == "adaptive":
                x = _adaptive(x, layer.size)
            elif layer.kind == "flatten":
                x = x.transpose(0, 3, 1, 2).reshape(len(x), -1) if x.ndim == 4 else x
            else:
                x = _ACTIVATIONS[layer.kind](x)
        return x


def _adaptive(x: jax.Array, size: int) -> jax.Array:
    """Means of `size` x `size` regions, from `floor(i n / size)` to `ceil((i + 1) n / size)` of n pixels."""
    for axis in (1, 2):
        n, begin = x.shape[axis], np.arange(size) * x.shape[axis] // size
        end, pixels = -(-(np.arange(size) + 1) * n // size), np.arange(n)
        inside = (pixels >= begin[:, None]) & (pixels < end[:, None])
        weights = jnp.asarray(inside / inside.sum(1, keepdims=True), x.dtype)
        x = jnp.moveaxis(jnp.tensordot(weights, x, (1, axis)), 0, axis)
    return x
