"""Networks of strangers: their files of weights, opened without running anything in them.

    foreign.inspect("w.pt")                   # name -> shape, dtype; no number is read
    foreign.load("w.pt", "preactresnet18")    # a Subject, for the audit and all that looks at networks

torch is not needed for that, and not used where it is there.
"""

import contextlib
import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

from flax import linen

from poison_jax.console import printable
from poison_jax.errors import UserError
from poison_jax.foreign import convert, files, orbax_folders
from poison_jax.foreign.architectures import NAMES, architecture, read_description
from poison_jax.foreign.torch_modules import torch_common_gradients, torch_hessian
from poison_jax.models import Model
from poison_jax.subject import Subject

__all__ = [
    "BACKDOORBENCH",
    "NAMES",
    "Array",
    "architecture",
    "inspect",
    "load",
    "normalisation_of",
    "read_description",
    "torch_common_gradients",
    "torch_hessian",
]

Normalisation = tuple[Any, Any] | None
BACKDOORBENCH: dict[str, Normalisation] = {  # data set -> mean and standard deviation of its channels
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "mnist": (0.5, 0.5),
    "gtsrb": None,
}


class Array(NamedTuple):
    """What `inspect` says of an array."""

    shape: tuple[int, ...]
    dtype: str


def inspect(path: str | os.PathLike) -> dict[str, Array]:
    """The arrays in a file of weights, by name; no number is read.

    Args:
        path: as of `load`.

    Raises:
        UserError: as `load`.
    """
    with _opened(path) as found:
        return {name: Array(entry.shape, entry.dtype) for name, entry in found.entries.items()}


def load(
    path: str | os.PathLike,
    architecture: str | linen.Module,
    *,
    normalisation: Normalisation = None,
) -> Subject:
    """A stranger's network; nothing in its file is run, imported or believed unchecked.

    Args:
        path: a state dict by `torch.save` (either format), BackdoorBench's `attack_result.pt`, safetensors or
            `np.savez(path, **state_dict)`, all by PyTorch's names and in its layout; or the folder of an
            orbax checkpoint of the architecture's Flax variables.
        architecture: a name or a description, see `architecture`; or a Linen module.
        normalisation: `(mean, std)` of its training images, numbers or `[C]` each; None: BackdoorBench's own
            where it is BackdoorBench's file, else images in [0, 1] as they are.

    Raises:
        UserError: no file of weights, damaged, more than plain tensors in the state dict, or weights that are
            not the architecture's: names and shapes are compared, nothing is matched by its place.
    """
    with _opened(path) as found:
        try:
            model, channels = _network(architecture, found.entries)
            variables = convert.to_flax(found.entries, model, channels)
        except UserError as error:
            about = printable(str(error).removeprefix(f"{path}: "))
            raise UserError(f"{path}: {about}") from None
    if normalisation is None and found.dataset:
        normalisation = normalisation_of(found.dataset)
    return Subject(model.apply, variables, normalisation=normalisation)


def _opened(path: str | os.PathLike) -> contextlib.AbstractContextManager[files.Contents]:
    return orbax_folders.opened(Path(path)) if Path(path).is_dir() else files.opened(path)


def normalisation_of(dataset: str) -> Normalisation:
    """BackdoorBench's normalisation of a data set.

    Raises:
        UserError: it is not known.
    """
    if dataset not in BACKDOORBENCH:
        raise UserError(
            f"BackdoorBench's normalisation of {dataset} is not known here, only that of "
            f"{', '.join(BACKDOORBENCH)}: give mean and standard deviation"
        )
    return BACKDOORBENCH[dataset]


def _network(wanted: str | linen.Module, entries: dict[str, files.Entry]) -> tuple[Model, int]:
    """The network, with as many classes as the file's last layer has, and the channels of its images."""
    shapes = {name.removeprefix("module."): entry.shape for name, entry in entries.items()}
    if isinstance(wanted, linen.Module):
        channels = next((shape[1] for shape in shapes.values() if len(shape) == 4), 1)
        return _model(wanted), channels
    make = architecture(wanted)
    first, last = make(2).ends
    stem, head = shapes.get(f"{first}.weight", ()), shapes.get(f"{last}.weight", ())
    channels = stem[1] if len(stem) == 4 else 1
    return _model(make(head[0] if len(head) == 2 else 2)), channels


@functools.cache  # equal architectures are one object, whose compiled functions are reused
def _model(module: linen.Module) -> Model:
    return Model(module)
