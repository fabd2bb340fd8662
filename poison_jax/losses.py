"""Training objectives: cross-entropy, with the squared-input-gradient penalty, and adversarial.

All builders take a `loss_per_example` and return an objective of the same signature, so that one
stands in for the other.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from poison_jax.autodiff import value_and_input_gradient
from poison_jax.errors import UserError

LossPerExample = Callable[..., Any]  # (params, inputs [B, ...], labels [B]) -> [B], or ([B], aux)
Objective = Callable[..., Any]  # (params, inputs, labels) -> scalar, or (scalar, Terms)

REDUCTIONS = ("listing", "per_example", "eq25")


class Terms(NamedTuple):
    """The parts of an objective."""

    loss: jax.Array  # mean loss of the batch
    penalty: jax.Array  # what is added to it, kappa included
    aux: Any  # of `loss_per_example`


def cross_entropy(apply_fn: Callable[..., Any], *, has_aux: bool = False) -> LossPerExample:
    """`(params, inputs, labels) -> losses [B]`: softmax cross-entropy with integer labels.

    Args:
        apply_fn: `(params, inputs) -> logits [B, K]`, or a tuple that begins with them, as
            `Model.apply` returns.
        has_aux: return `(losses, whole output of apply_fn)`.
    """

    def loss_per_example(params, inputs, labels):
        out = apply_fn(params, inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits_of(out), labels)
        return (losses, out) if has_aux else losses

    return loss_per_example


def logits_of(out: Any) -> jax.Array:
    """The logits of a network's output: the output itself, or the (nested) tuple's first entry."""
    while isinstance(out, tuple):
        out = out[0]
    return out


def mean(loss_per_example: LossPerExample, *, has_aux: bool = False) -> Objective:
    """The unpenalised objective `mean_i L_i`, of the signature of `gradient_penalised`."""

    def objective(params, inputs, *args):
        out = loss_per_example(params, inputs, *args)
        losses, aux = out if has_aux else (out, None)
        loss = losses.mean()
        return (loss, Terms(loss, jnp.zeros_like(loss), aux)) if has_aux else loss

    return objective


def gradient_penalised(
    loss_per_example: LossPerExample,
    kappa: jax.Array | float,
    *,
    reduction: str = "listing",
    has_aux: bool = False,
    penalised_loss: LossPerExample | None = None,
) -> Objective:
    r"""The mean loss plus a penalty on the squared input gradient (eq. 25, App. E, Listing 1).

    With `G_i = grad_{x_i} sum_j L_j` for a batch of B examples the penalty is `weight * sum_i |G_i|^2`:

    | reduction     | weight        | coefficient of mean_i |grad_x L_i|^2 | source        |
    | ------------- | ------------- | ------------------------------------ | ------------- |
    | `eq25`        | kappa / (2 B) | kappa / 2                            | eq. 25        |
    | `per_example` | kappa / B     | kappa                                | App. E formula|
    | `listing`     | kappa / B^2   | kappa / B                            | Listing 1     |

    The last squares the gradient of the batch *mean* and sums over the batch, as the experiments do.
    `G_i` is example i's own gradient where examples do not see each other. In train-mode batch norm
    they do: then `listing` is still Listing 1 exactly, and the other two hold with the coupled `G_i`.

    One forward pass serves loss and penalty (Listing 1 runs two). Differentiating the objective with
    respect to `params` is double backprop; a zero gradient is harmless, since nothing takes a root.

    Args:
        loss_per_example: `(params, inputs [B, ...], *args) -> losses [B]`, or `(losses, aux)`.
        kappa: strength, >= 0; may be traced, so that one compilation serves every kappa.
        reduction: a row of the table.
        has_aux: `loss_per_example` returns `(losses, aux)`, the objective `(scalar, Terms)`.
        penalised_loss: the loss whose input gradient is penalised, where it is another one (frozen
            batch-norm statistics); same signature, costs a second forward pass.

    Returns:
        `(params, inputs, *args) -> scalar`, or `(scalar, Terms)`.

    Raises:
        UserError: unknown reduction; kappa negative, infinite or NaN (where it is a Python number).
    """
    if reduction not in REDUCTIONS:
        raise UserError(f"penalty reduction {reduction!r}: use one of {', '.join(REDUCTIONS)}")
    if isinstance(kappa, int | float) and not 0 <= kappa < float("inf"):
        raise UserError(f"kappa = {kappa}: the penalty's strength must be finite and >= 0")

    def with_aux(loss):
        return loss if has_aux else lambda *args: (loss(*args), None)

    def objective(params, inputs, *args):
        (losses, aux), gradient = value_and_input_gradient(
            with_aux(penalised_loss or loss_per_example), params, inputs, *args
        )
        if penalised_loss is not None:
            losses, aux = with_aux(loss_per_example)(params, inputs, *args)
        batch = losses.shape[0]
        weight = kappa * {"eq25": 0.5 / batch, "per_example": 1 / batch, "listing": 1 / batch**2}[reduction]
        loss, penalty = losses.mean(), weight * jnp.sum(gradient**2)
        total = loss + penalty
        return (total, Terms(loss, penalty, aux)) if has_aux else total

    return objective


def adversarial(
    loss_per_example: LossPerExample,
    epsilon: jax.Array | float,
    *,
    steps: int = 1,
    has_aux: bool = False,
    attacked_loss: LossPerExample | None = None,
) -> Objective:
    r"""The mean loss at the worst perturbations found (eq. 33).

    That is `mean_i max L_i(x_i + d_i)` over `|d_i|_2 <= epsilon`, as far as gradient ascent finds it.

    `steps = 1` is L2 FGSM, `d = epsilon g / |g|`, which maximises the linearised loss; more steps are
    PGD from zero, each of length 2.5 epsilon / steps along the normalised gradient, then projected onto the
    ball (Madry et al. 2018). No gradient flows through `d`; a zero gradient moves nothing.

    Args:
        loss_per_example: `(params, inputs [B, ...], *args) -> losses [B]`, or `(losses, aux)`.
        epsilon: radius in the L2 norm over a whole input, >= 0, in the inputs' (normalised) units; may be
            traced.
        steps: gradients taken, at least 1.
        has_aux: `loss_per_example` returns `(losses, aux)`, the objective `(scalar, Terms)`: the loss
            of the clean inputs, and what the perturbation adds to it; `aux` at the perturbed inputs.
        attacked_loss: the loss that the perturbation ascends, where it is another one (frozen batch-norm
            statistics); same signature.

    Returns:
        `(params, inputs, *args) -> scalar`, or `(scalar, Terms)`.

    Raises:
        UserError: steps below 1; epsilon negative, infinite or NaN (where it is a Python number).
    """
    if steps < 1:
        raise UserError(f"adversarial training with {steps} steps: use at least 1")
    if isinstance(epsilon, int | float) and not 0 <= epsilon < float("inf"):
        raise UserError(f"epsilon = {epsilon}: the radius must be finite and >= 0")
    length = epsilon if steps == 1 else 2.5 * epsilon / steps

    def with_aux(loss):
        return loss if has_aux else lambda *args: (loss(*args), None)

    def objective(params, inputs, *args):
        delta, clean = jnp.zeros_like(inputs), None
        for _ in range(steps):
            (losses, _), gradient = value_and_input_gradient(
                with_aux(attacked_loss or loss_per_example), params, inputs + delta, *args
            )
            clean = losses.mean() if clean is None else clean
            ascended = delta + length * gradient * _inverse_norm(gradient)
            delta = ascended * jnp.minimum(1, epsilon * _inverse_norm(ascended))
        losses, aux = with_aux(loss_per_example)(params, inputs + jax.lax.stop_gradient(delta), *args)
        total, clean = losses.mean(), jax.lax.stop_gradient(clean)
        return (total, Terms(clean, total - clean, aux)) if has_aux else total

    return objective


def _inverse_norm(inputs: jax.Array) -> jax.Array:
    """1 / |x_i|_2 of each example `[B, 1, ...]`; 0 where it is zero."""
    square = jnp.sum(inputs**2, axis=tuple(range(1, inputs.ndim)), keepdims=True)
    return jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)
