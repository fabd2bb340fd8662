"""The two PyTorch sides as functions without arguments, ready to be timed, on our weights and inputs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import ours
from benchmarks import torch_reference as reference

Batch = tuple[np.ndarray, np.ndarray]  # images [B, H, W, C], labels
MIB_PER_IMAGE = 5  # of a kept Hessian graph, PreResNet-20 on 32 x 32, measured


class Side:
    """A network with our weights, an optimiser and a batch, in one memory layout."""

    def __init__(self, variables: Mapping[str, Any], batch: Batch, channels_last: bool, dtype=torch.float32):
        self.model = reference.from_flax(variables, ours.DEPTH, channels_last=channels_last).to(dtype)
        self.optimiser = reference.sgd(self.model, ours.LEARNING_RATE, ours.MOMENTUM, ours.WEIGHT_DECAY)
        self.images = reference.to_torch(batch[0], channels_last=channels_last).to(dtype)
        self.labels = torch.tensor(batch[1]).long()

    def gradient(self) -> dict[str, torch.Tensor]:
        return {name: p.grad for name, p in self.model.named_parameters()}


class Step(Side):
    """`plain`, `listing` or `best` training step; called, it takes one and returns the objective."""

    def __init__(self, kind: str, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.kind = kind

    def __call__(self) -> float:
        arguments = (self.model, self.images, self.labels)
        if self.kind == "plain":
            value = reference.step(self.optimiser, reference.plain_loss, *arguments)
        elif self.kind == "listing":
            value = reference.step(self.optimiser, reference.listing_loss, *arguments, ours.KAPPA)
        else:
            value = reference.best_step(self.optimiser, reference.best_loss, *arguments, ours.KAPPA)
        return value.item()


class Logits(Side):
    """Inference without a graph."""

    def __call__(self) -> np.ndarray:
        with torch.inference_mode():
            return self.model.eval()(self.images).numpy()


class Eigenvalues:
    """Top eigenvalues by Lanczos around Listing 5's operator (`listing`) or the quicker one (`best`)."""

    def __init__(self, kind: str, problem: ours.Hessian, channels_last: bool):
        self.kind = kind
        self.model = reference.from_flax(problem.variables, ours.DEPTH, channels_last=channels_last)
        self.start = reference.to_torch(problem.start()[None]).ravel()
        self.batches = [
            (
                reference.to_torch(problem.images[i : i + ours.BATCH], channels_last=channels_last),
                torch.tensor(problem.labels[i : i + ours.BATCH]).long(),
            )
            for i in range(0, len(problem.images), ours.BATCH)
        ]

    def operator(self) -> Callable[[torch.Tensor], torch.Tensor]:
        if self.kind == "listing":
            return reference.ListingHVP(self.model, self.batches)
        return reference.BestHVP(self.model, self.batches, kept=graphs_that_fit())

    def __call__(self) -> np.ndarray:
        values = reference.lanczos(self.operator(), self.start, ours.LANCZOS_STEPS)
        return values[: ours.EIGENPAIRS].numpy()


def graphs_that_fit() -> int:
    """How many batches' graphs may be kept: in half of the memory that is free."""
    fields = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    available = next(int(field[1]) / 1024 for field in fields if field[0] == "MemAvailable:")
    return int(available / 2 / (MIB_PER_IMAGE * ours.BATCH))
