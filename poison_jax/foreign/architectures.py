"""Architectures of others, by name or by description, as Flax modules.

A module's name is the prefix of its weights in a state dict ("layer1.0.bn1"), so that `convert` matches them
by name. Images are `[B, H, W, C]`; where PyTorch flattens, channels come first, as there.
"""

import difflib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import flax.linen as nn

from poison_jax.errors import UserError, one_line_of
from poison_jax.foreign.resnets import ResNet18
from poison_jax.foreign.sequential import sequential

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
        return partial(sequential, DESCRIPTIONS[name])
    if "\n" in name or ";" in name:
        sequential(name, 2)
        return partial(sequential, name)
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
