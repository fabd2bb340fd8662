"""The input Hessian and the common gradients of a PyTorch module as it is: torch differentiates it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import batches, lanczos
from poison_jax.arrays import class_labels
from poison_jax.errors import UserError, about


def torch_hessian(
    module: Any,
    images: Any,
    labels: Any,
    k: int = 5,
    num_iters: int = 20,
    *,
    batch_size: int = 128,
    key: int = 0,
) -> lanczos.Eigenpairs:
    """Top eigenpairs of the mean input Hessian of a `torch.nn.Module`, as `spectrum.input_hessian` has them.

        H = mean_i Hess_x cross-entropy(module(x_i), y_i), in eval mode

    Args:
        module: logits `[B, K]` of images `[B, C, H, W]`, of which each second derivative exists in torch.
        images: float `[N, C, H, W]`, normalised as the module takes them; an array or a tensor.
        labels: int `[N]`.
        k: eigenpairs.
        num_iters: Lanczos steps.
        batch_size: images at once; changes memory, not the result.
        key: seed of the start vector.

    Returns:
        Eigenpairs in float32; a vector is a picture `[H, W, C]`, flattened, as everywhere here.

    Raises:
        UserError: bad input; a module that cannot be differentiated twice.
    """
    import torch

    images, labels = _checked(module, images, labels)
    _, channels, height, width = images.shape

    def matvec(vector):
        direction = np.array(vector, np.float32).reshape(height, width, channels).transpose(2, 0, 1)
        total = np.zeros((channels, height, width))
        with _still(module) as device:
            direction = torch.from_numpy(direction.copy()).to(device)
            for (x, y), size in batches.split(images, labels, batch_size=min(batch_size, len(images))):
                x, y = torch.from_numpy(x[:size]).to(device), torch.from_numpy(y[:size]).to(device)
                delta = torch.zeros_like(direction, requires_grad=True)
                loss = torch.nn.functional.cross_entropy(module(x + delta), y, reduction="sum")
                gradient = _gradient(loss, delta, create_graph=True)
                product = _gradient(gradient, delta, grad_outputs=direction)
                total += product.cpu().numpy()
        return jnp.asarray((total / len(images)).transpose(1, 2, 0).reshape(-1), jnp.float32)

    start = jax.random.normal(jax.random.key(key), (channels * height * width,))
    options = {"k": k, "num_iters": num_iters, "python_loop": True, "check_symmetry": False}
    return lanczos.top_eigenpairs(matvec, start, **options)


def torch_common_gradients(module: Any, images: Any, labels: Any, *, batch_size: int = 128) -> np.ndarray:
    """The common gradients of a `torch.nn.Module`, as `audit.common_gradient.common_gradients` has them.

    Args:
        module, images, labels, batch_size: as of `torch_hessian`.

    Returns:
        float32 `[K, H, W, C]`, NaN where every image is of the class.

    Raises:
        UserError: bad input; a module that cannot be differentiated.
    """
    import torch

    images, labels = _checked(module, images, labels)
    totals = 0.0
    with _still(module) as device:
        for (x, y), size in batches.split(images, labels, batch_size=min(batch_size, len(images))):
            x, y = torch.from_numpy(x[:size]).to(device), torch.from_numpy(y[:size]).to(device)
            delta = torch.zeros_like(x[0], requires_grad=True)
            logits = module(x + delta)
            own = torch.eye(logits.shape[1], dtype=torch.bool, device=device)
            others = torch.where(own, -torch.inf, logits[:, None]).logsumexp(-1)  # [B, K]
            odds = ((logits - others) * (y[:, None] != torch.arange(len(own), device=device))).sum(0)
            rows = [_gradient(odd, delta, retain_graph=True).cpu().numpy() for odd in odds]
            totals += np.stack(rows).astype(float)
    others = len(labels) - np.bincount(labels, minlength=len(totals))
    with np.errstate(invalid="ignore"):
        means = totals / others[:, None, None, None].astype(float)
    return means.transpose(0, 2, 3, 1).astype(np.float32)


def _checked(module: Any, images: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 `[N, C, H, W]`, labels int64 `[N]`."""
    import torch

    images, labels = (np.asarray(torch.as_tensor(part).detach().cpu()) for part in (images, labels))
    images = batches.checked_images(images).astype(np.float32)
    if images.ndim != 4:
        raise UserError(f"images {images.shape} are not [N, C, H, W]")
    try:
        with _still(module) as device, torch.no_grad():
            logits = module(torch.from_numpy(images[:1].copy()).to(device))
    except Exception as error:  # anybody's module may raise anything
        raise UserError(f"the module does not take images {images.shape[1:]}: {about(error)}") from None
    if logits.ndim != 2 or len(logits) != 1:
        raise UserError(f"the module makes {list(logits.shape)} of one image, not logits [1, classes]")
    return images, class_labels(labels, len(images), logits.shape[1]).astype(np.int64)


def _gradient(output: Any, delta: Any, **options: Any) -> Any:
    """torch's gradient of an output with respect to delta, or what it says, in one line."""
    import torch

    try:
        return torch.autograd.grad(output, delta, **options)[0]
    except RuntimeError as error:
        raise UserError(f"torch cannot differentiate the module: {about(error)}") from None


@contextlib.contextmanager
def _still(module: Any) -> Iterator[Any]:
    """The module in eval mode, its parameters without gradients; yields the device that it is on."""
    training = {part: part.training for part in module.modules()}
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        module.eval()
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield next(iter([*module.parameters(), *module.buffers()])).device
    finally:
        for part, mode in training.items():
            part.training = mode
        for parameter in wanted:
            parameter.requires_grad_(True)
