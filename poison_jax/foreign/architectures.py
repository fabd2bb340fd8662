"""Architectures of others as Flax modules whose parts are called as PyTorch calls them.

A module's name is the prefix of its weights in a state dict ("layer1.0.bn1"), so that `convert` matches them
by name. Images are `[B, H, W, C]`; where PyTorch flattens, channels come first, as there.
"""

import difflib
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import kernels
from poison_jax.errors import UserError, one_line_of
from poison_jax.models import BatchNorm, Features

# A line a layer; `classes` is the number of classes.
LENET5 = """
conv conv1 32 3 pad=1
relu
maxpool 2
conv conv2 64 3 pad=1
relu
maxpool 2
flatten
linear linear1 200
relu
linear linear2 classes
"""
_VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


def _vgg16(*, norm: bool) -> str:
    """torchvision's, without its dropout; layers are numbered together with those that have no weights."""
    lines: list[str] = []
    for width in _VGG16:
        number = len(lines)
        if width == "M":
            lines += ["maxpool 2"]
        else:
            lines += [f"conv features.{number} {width} 3 pad=1 init=he"]
            lines += [f"norm features.{number + 1}"] * norm + ["relu"]
    lines += ["adaptive 7", "flatten", "linear classifier.0 4096", "relu", "linear classifier.3 4096", "relu"]
    return "\n".join([*lines, "linear classifier.6 classes"])


DESCRIPTIONS = {"lenet5": LENET5, "vgg16": _vgg16(norm=False), "vgg16_bn": _vgg16(norm=True)}
RESNETS = {"preactresnet18": "preact", "resnet18_cifar": "cifar", "resnet18": "torchvision"}
NAMES = (*RESNETS, *DESCRIPTIONS)


def architecture(name: str) -> Callable[[int], nn.Module]:
    """The architecture of a name, or of a description: `num_classes -> module`.

    | name             | whose                                                                  |
    | ---------------- | ---------------------------------------------------------------------- |
    | `preactresnet18` | BackdoorBench's: no batch norm before the classifier                   |
    | `resnet18_cifar` | the usual one for 32x32 images: 3x3 stem, `shortcut`, `linear`         |
    | `resnet18`       | torchvision's: 7x7 stem, max pooling, `downsample`, `fc`               |
    | `vgg16(_bn)`     | torchvision's, without or with batch norm                              |
    | `lenet5`         | two 3x3 convolutions, two linear layers, for 28x28 images (AdverTorch) |

    A description has a line, or what stands before a `;`, for each layer. With the names of the state dict:
    `conv NAME FILTERS SIZE [stride=1] [pad=0] [bias=yes]`, `norm NAME`, `linear NAME UNITS [bias=yes]`;
    without: `maxpool SIZE [stride=SIZE] [pad=0]`, `avgpool SIZE`, `adaptive SIZE` (average pooling to so many
    pixels a side), `flatten`, `relu`, `tanh`, `sigmoid`. The last layer's UNITS may be `classes`.

    Args:
        name: one of `NAMES`, or a description.

    Raises:
        UserError: unknown, or no description.

    >>> architecture("flatten; linear fc classes")(10).layers[1].units
    10
    """
    if name in RESNETS:
        return partial(ResNet18, RESNETS[name])
    if name in DESCRIPTIONS:
        return partial(_sequential, DESCRIPTIONS[name])
    if "\n" in name or ";" in name:
        _sequential(name, 2)
        return partial(_sequential, name)
    near = difflib.get_close_matches(name, NAMES, n=1)
    raise UserError(
        f"no architecture {name!r}: "
        + (f"did you mean {near[0]}?" if near else f"use {', '.join(NAMES)}, or describe it a line a layer")
    )


def read_description(file: str | os.PathLike) -> str:
    """The description in a file.

    Raises:
        UserError: it cannot be read, or holds none.
    """
    try:
        text = Path(file).read_text()[:_LONGEST]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"architecture {file} cannot be read: {one_line_of(error)}") from None
    architecture(f"{text}\n")
    return f"{text}\n"


_LONGEST = 100_000  # characters of a description
_torch_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_he_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(
    convolutions: str, filters: int, size: int, *, stride: int = 1, pad: int = 0, **options: Any
) -> nn.Conv:
    return nn.Conv(
        filters,
        (size, size),
        stride,
        padding=pad,
        conv_general_dilated=partial(kernels.conv_general_dilated, convolutions=convolutions),
        **options,
    )


def _norm(x: jax.Array, train: bool, name: str) -> jax.Array:
    return BatchNorm(use_running_average=not train, dtype=x.dtype, param_dtype=x.dtype, name=name)(x)


# --- residual networks ------------------------------------------------------------------------------


class ResNet18(nn.Module):
    """Four stages of two basic blocks, 64 to 512 channels."""

    form: str  # preact, cifar, torchvision
    num_classes: int
    convolutions: str = "auto"  # as of `models.preresnet`

    @property
    def ends(self) -> tuple[str, str]:
        """Names of the first and the last layer with weights."""
        return "conv1", "fc" if self.form == "torchvision" else "linear"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Features]:
        conv = partial(_conv, self.convolutions, use_bias=False, kernel_init=_he_init)
        large = self.form == "torchvision"
        x = conv(64, 7, stride=2, pad=3, name="conv1")(x) if large else conv(64, 3, pad=1, name="conv1")(x)
        if self.form != "preact":
            x = nn.relu(_norm(x, train, "bn1"))
        if large:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        block = PreActBlock if self.form == "preact" else BasicBlock
        shortcut = "downsample" if large else "shortcut"
        for stage in range(4):
            for index in range(2):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"layer{stage + 1}.{index}"
                x = block(64 * 2**stage, stride, shortcut, conv, name=name)(x, train)
        pooled = x.mean((1, 2))
        head = nn.Dense(self.num_classes, kernel_init=_torch_init, name=self.ends[1])
        return head(pooled), Features(pooled, x)


class BasicBlock(nn.Module):
    """conv-norm-relu, conv-norm, added to the input, relu."""

    width: int
    stride: int
    shortcut: str
    conv: Callable

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.conv(self.width, 3, stride=self.stride, pad=1, name="conv1")(x)
        y = self.conv(self.width, 3, pad=1, name="conv2")(nn.relu(_norm(y, train, "bn1")))
        y = _norm(y, train, "bn2")
        if self.stride != 1 or x.shape[-1] != self.width:
            x = self.conv(self.width, 1, stride=self.stride, name=f"{self.shortcut}.0")(x)
            x = _norm(x, train, f"{self.shortcut}.1")
        return nn.relu(y + x)


class PreActBlock(nn.Module):
    """norm-relu-conv twice, added to the input, or to a 1x1 convolution of the first norm-relu."""

    width: int
    stride: int
    shortcut: str
    conv: Callable

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = nn.relu(_norm(x, train, "bn1"))
        if self.stride != 1 or x.shape[-1] != self.width:
            x = self.conv(self.width, 1, stride=self.stride, name=f"{self.shortcut}.0")(y)
        y = self.conv(self.width, 3, stride=self.stride, pad=1, name="conv1")(y)
        y = self.conv(self.width, 3, pad=1, name="conv2")(nn.relu(_norm(y, train, "bn2")))
        return y + x


# --- one layer after the other ----------------------------------------------------------------------


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


def _sequential(description: str, num_classes: int, *, convolutions: str = "auto") -> nn.Module:
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
                init = _he_init if layer.he else _torch_init
                options = {"use_bias": layer.bias, "kernel_init": init} | place
                x = _conv(self.convolutions, layer.units, layer.size, **options)(x)
            elif layer.kind == "norm":
                x = _norm(x, train, layer.name)
            elif layer.kind == "linear":
                if x.ndim != 2:
                    raise UserError(f"linear {layer.name} comes before flatten")
                options = {"use_bias": layer.bias, "kernel_init": _torch_init, "name": layer.name}
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
