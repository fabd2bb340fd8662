"""The PyTorch side: the same network, the paper's listings, and the best that PyTorch does without them.

`listing` is what the paper prints (Listings 1, 5 and 6, Algorithm 1). `best` computes the same numbers with
one forward pass, unchanging weights kept out of the Hessian's graph, and that graph built once a batch.
Images are `[B, C, H, W]` here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from poison_jax.foreign import convert
from poison_jax.foreign.preresnet_torch import PreResNet

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def from_flax(variables: Mapping[str, Any], depth: int, *, channels_last: bool = False) -> PreResNet:
    """The PyTorch network with the weights and running statistics of ours, in training mode."""
    channels, width = variables["params"]["conv_in"]["kernel"].shape[2:]
    num_classes = variables["params"]["fc"]["bias"].size
    state = torch_layout(variables["params"]) | torch_layout(variables["batch_stats"])
    model = PreResNet(depth, num_classes, width=width, channels=channels)
    model = model.to(next(iter(state.values())).dtype)
    counters = {name: value for name, value in model.state_dict().items() if name not in state}
    if missing := [name for name in counters if not name.endswith("num_batches_tracked")]:
        raise ValueError(f"our network lacks {sorted(missing)}")
    model.load_state_dict(state | counters)
    return model.to(memory_format=memory_format(channels_last))


def torch_layout(tree: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """A Flax tree of parameters, gradients or statistics by PyTorch's names, in PyTorch's layout."""
    return {name: torch.tensor(array) for name, array in convert.to_torch({"params": tree}).items()}


def memory_format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def to_torch(images: np.ndarray, *, channels_last: bool = False) -> torch.Tensor:
    """`[B, H, W, C]` -> a tensor `[B, C, H, W]` in the layout asked for."""
    images = torch.tensor(np.ascontiguousarray(np.asarray(images).transpose(0, 3, 1, 2)))
    return images.contiguous(memory_format=memory_format(channels_last))


def sgd(model: nn.Module, learning_rate: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay)


def plain_loss(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy."""
    return F.cross_entropy(model(inputs), targets)


def listing_loss(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, kappa: float) -> torch.Tensor:
    """Cross-entropy, and Listing 1's penalty beside it, which runs the network a second time."""
    inputs = inputs.detach()  # as fresh from a loader: Listing 1 marks it
    return plain_loss(model, inputs, targets) + compute_grad_reg_loss(model, inputs, targets, kappa)


def compute_grad_reg_loss(
    model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, kappa: float
) -> torch.Tensor:
    """Listing 1, as printed."""
    inputs.requires_grad_(True)
    outputs = model(inputs)
    loss = F.cross_entropy(outputs, targets)
    grad_inputs = torch.autograd.grad(outputs=loss, inputs=inputs, create_graph=True, retain_graph=True)[0]
    grad_norm = torch.sum(grad_inputs**2)
    return kappa * grad_norm


def best_loss(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, kappa: float) -> torch.Tensor:
    """The same sum from one forward pass."""
    inputs = inputs.detach().requires_grad_(True)
    loss = F.cross_entropy(model(inputs), targets)
    (gradient,) = torch.autograd.grad(loss, inputs, create_graph=True)
    return loss + kappa * gradient.square().sum()


def step(optimiser: torch.optim.Optimizer, loss: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
    """One optimiser step as everybody writes it; returns the loss, the gradients stay in the parameters."""
    optimiser.zero_grad(set_to_none=True)
    value = loss(*args)
    value.backward()
    optimiser.step()
    return value


def best_step(
    optimiser: torch.optim.Optimizer, loss: Callable[..., torch.Tensor], *args: Any
) -> torch.Tensor:
    """The same without the objective's gradient with respect to the images, which nobody asked for."""
    optimiser.zero_grad(set_to_none=True)
    value = loss(*args)
    value.backward(inputs=[p for group in optimiser.param_groups for p in group["params"]])
    optimiser.step()
    return value


class ListingHVP:
    """Listing 5's operator, as printed but for the moves to a device, of which there is one here."""

    def __init__(self, model: nn.Module, batches: Batches):
        self.model = model
        self.criterion = nn.CrossEntropyLoss()
        self.data_loader = batches

    def __call__(self, vec: torch.Tensor) -> torch.Tensor:
        vec = vec.view(self.data_loader[0][0].shape[1:])
        hvp_acc = torch.zeros_like(vec)
        total_samples = 0
        self.model.eval()
        for imgs, labels in self.data_loader:
            batch_size = imgs.size(0)
            imgs.requires_grad_(True)
            self.model.zero_grad()
            loss = self.criterion(self.model(imgs), labels)
            grad_1 = torch.autograd.grad(outputs=loss, inputs=imgs, create_graph=True)[0]
            dot_prod = torch.sum(grad_1 * vec.unsqueeze(0))
            grad_2 = torch.autograd.grad(outputs=dot_prod, inputs=imgs, retain_graph=False)[0]
            hvp_acc += grad_2.sum(dim=0) * batch_size
            total_samples += batch_size
            del grad_1, grad_2, dot_prod
        return (hvp_acc / total_samples).view(-1)


class BestHVP:
    """The same operator: weights out of the graph, and the gradient's graph built once a batch and kept.

    Graphs beyond the first `kept` batches do not fit in memory and are built again for every vector.
    """

    def __init__(self, model: nn.Module, batches: Batches, *, kept: int):
        self.model = model.eval().requires_grad_(False)
        self.total = sum(len(labels) for _, labels in batches)
        self.shape = batches[0][0].shape[1:]
        self.graphs = [self._graph(*batch) for batch in batches[:kept]]
        self.rest = batches[kept:]

    def _graph(self, imgs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        imgs = imgs.detach().requires_grad_(True)
        loss = F.cross_entropy(self.model(imgs), labels, reduction="sum") / self.total
        return imgs, torch.autograd.grad(loss, imgs, create_graph=True)[0]

    def __call__(self, vec: torch.Tensor) -> torch.Tensor:
        vec = vec.view(1, *self.shape)
        product = torch.zeros(self.shape, dtype=vec.dtype)
        for imgs, gradient in self.graphs:
            product += self._apply(imgs, gradient, vec, retain_graph=True)
        for batch in self.rest:
            product += self._apply(*self._graph(*batch), vec, retain_graph=False)
        return product.view(-1)

    @staticmethod
    def _apply(imgs, gradient, vec, *, retain_graph):
        (rows,) = torch.autograd.grad(gradient, imgs, vec.expand_as(gradient), retain_graph=retain_graph)
        return rows.sum(dim=0)


def lanczos(operator: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, max_iter: int):
    """Algorithm 1's loop and Listing 6's eigenvalues, descending.

    With the full reorthogonalisation of the library that Listing 6 calls; Algorithm 1 itself has none, and
    without it converged eigenvalues come back as copies of themselves. It costs nothing beside a product.
    """
    q, alphas, betas = [start / start.norm()], [], []
    for k in range(max_iter):
        r = operator(q[k])
        alphas.append(torch.dot(q[k], r))
        r = r - alphas[k] * q[k]
        if k > 0:
            r = r - betas[k - 1] * q[k - 1]
        basis = torch.stack(q)
        r = r - basis.T @ (basis @ r)
        betas.append(r.norm())
        if betas[k] < 1e-8:
            break
        q.append(r / betas[k])
    off_diagonal = torch.stack(betas[: len(alphas) - 1])
    T = torch.diag(torch.stack(alphas)) + torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1)
    return torch.linalg.eigvalsh(T).flip(0)
