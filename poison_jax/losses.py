"""Training objectives: cross-entropy, with the squared-input-gradient penalty, adversarial, hiding.

A loss is `(params, inputs [B, ...], labels [B]) -> losses [B]`: any such function, or a `Loss`. The builders
make an `Objective` of it, `(params, inputs, labels) -> scalar`, for `jax.grad`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from poison_jax.autodiff import value_and_input_gradient
from poison_jax.errors import UserError

LossPerExample = Callable[..., jax.Array]  # (params, inputs [B, ...], labels [B]) -> [B]

REDUCTIONS = ("listing", "per_example", "eq25")


class Terms(NamedTuple):
    """The parts of an objective."""

    loss: jax.Array  # mean loss of the batch
    penalty: jax.Array  # what is added to it, kappa included
    aux: Any  # what the loss gives beside the losses; None for a plain function


@dataclass(frozen=True)
class Loss:
    """A loss per example that can give more than the losses: a network's output, new batch-norm statistics.

    Attributes:
        with_aux: `(params, inputs, *args) -> (losses [B], aux)`. The `Loss` itself gives the losses alone.
    """

    with_aux: Callable[..., tuple[jax.Array, Any]]

    def __call__(self, *args: Any) -> jax.Array:
        return self.with_aux(*args)[0]


@dataclass(frozen=True)
class Objective:
    """A scalar function of `(params, inputs, *args)`, to be minimised in `params`.

    Attributes:
        with_terms: `(params, inputs, *args) -> (scalar, Terms)`, for `jax.grad(..., has_aux=True)`. The
            `Objective` itself gives the scalar alone.
    """

    with_terms: Callable[..., tuple[jax.Array, Terms]]

    def __call__(self, *args: Any) -> jax.Array:
        return self.with_terms(*args)[0]


def cross_entropy(apply_fn: Callable[..., Any]) -> Loss:
    """`(params, inputs, labels) -> losses [B]`: softmax cross-entropy with integer labels.

    `with_aux` of the result gives the whole output of `apply_fn` beside the losses.

    | labels                      | given as they are | traced (in `jax.jit`, `jax.vmap`)       |
    | --------------------------- | ----------------- | --------------------------------------- |
    | no integers, another shape  | UserError         | UserError                               |
    | outside 0, ..., K - 1       | UserError         | the example's loss and gradient are NaN |

    **Sure images in float32.** Where the label's log-odds exceed about 16 its softmax rounds to 1, and the
    input gradient loses its main term, softmax - 1 at the label: the gradient has about the right size and
    another direction. Use float64, or train with weight decay, which keeps the log-odds lower.

    Args:
        apply_fn: `(params, inputs) -> logits [B, K]`, or a tuple that begins with them, as
            `Model.apply` returns.
    """

    def loss_per_example(params, inputs, labels):
        out = apply_fn(params, inputs)
        logits = logits_of(out)
        valid = _are_classes(labels, logits)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        # Times NaN, not replaced by it: the gradient of what is replaced would be a finite zero.
        return losses * jnp.where(valid, 1, jnp.nan).astype(losses.dtype), out

    return Loss(loss_per_example)


def _are_classes(labels, logits) -> jax.Array:
    """Which labels `[B]` are one of the logits' classes; refuses what is known not to be."""
    traced = isinstance(labels, jax.core.Tracer)
    labels = labels if traced else np.asarray(labels)
    if labels.shape != logits.shape[:-1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserError(
            f"labels {labels.dtype} {labels.shape} for logits {logits.shape}: give one integer for each image"
        )
    last = min(logits.shape[-1] - 1, jnp.iinfo(labels.dtype).max)
    valid = (labels >= 0) & (labels <= last)
    if not traced and not valid.all():
        raise UserError(f"labels from {labels.min()} to {labels.max()} are not of the classes 0 to {last}")
    return valid


def logits_of(out: Any) -> jax.Array:
    """The logits of a network's output: the output itself, or the (nested) tuple's first entry."""
    while isinstance(out, tuple):
        out = out[0]
    return out


def mean(loss_per_example: LossPerExample) -> Objective:
    """The unpenalised objective `mean_i L_i`."""
    loss_with_aux = _with_aux(loss_per_example)

    def objective(params, inputs, *args):
        losses, aux = loss_with_aux(params, inputs, *args)
        loss = losses.mean()
        return loss, Terms(loss, jnp.zeros_like(loss), aux)

    return Objective(objective)


def _with_aux(loss_per_example):
    if isinstance(loss_per_example, Loss):
        return loss_per_example.with_aux
    return lambda *args: (loss_per_example(*args), None)


def gradient_penalised(
    loss_per_example: LossPerExample,
    kappa: jax.Array | float,
    *,
    reduction: str = "per_example",
    batch_size: int | None = None,
    penalised_loss: LossPerExample | None = None,
    reverse_over_forward: bool = False,
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

    **A batch in pieces.** Gradient accumulation over n pieces of b = B / n examples, and `jax.shard_map` over
    n devices, average n objectives that each see b examples. Of a batch of B that makes, where examples do
    not see each other:

    | reduction                 | weight on a piece | mean of the n penalties, against the whole batch's |
    | ------------------------- | ----------------- | -------------------------------------------------- |
    | `eq25`                    | kappa / (2 b)     | the same                                           |
    | `per_example`             | kappa / b         | the same                                           |
    | `listing`                 | kappa / b^2       | n times as strong                                  |
    | `listing`, `batch_size=B` | kappa / (b B)     | the same                                           |

    Under `jax.jit` over a mesh the objective sees the whole batch: there is nothing to be said.

    One forward pass serves loss and penalty (Listing 1 runs two). Differentiating the objective with
    respect to `params` is double backprop; a zero gradient is harmless, since nothing takes a root.

    **In less memory.** Double backprop keeps what a first backward pass keeps, `jax.checkpoint` or not. The
    same gradient is that of a directional derivative, with G held fixed (`reverse_over_forward`):

        grad_params sum_i |G_i|^2 = 2 grad_params (d/dt) sum_j L_j(x + t G) at t = 0

    There a loss whose layers are checkpointed (`jax.checkpoint`, `flax.linen.remat`) keeps their inputs and
    these inputs' tangents alone.

    Args:
        loss_per_example: `(params, inputs [B, ...], *args) -> losses [B]`, a function or a `Loss`.
        kappa: strength, >= 0; may be traced, so that one compilation serves every kappa.
        reduction: a row of the table.
        batch_size: for `listing`, examples in the whole batch (over all pieces and devices); None: those that
            the objective sees. No other reduction depends on it.
        penalised_loss: the loss whose input gradient is penalised, where it is another one (frozen
            batch-norm statistics); same signature, costs a second forward pass.
        reverse_over_forward: differentiate a directional derivative, once: right to the first order alone,
            more computation, and less memory where the loss is checkpointed.

    Returns:
        `Objective`: `(params, inputs, *args) -> scalar`.

    Raises:
        UserError: unknown reduction; kappa negative, infinite or NaN (where it is a Python number); a
            `batch_size` that is less than the examples that the objective sees.
    """
    if reduction not in REDUCTIONS:
        raise UserError(f"penalty reduction {reduction!r}: use one of {', '.join(REDUCTIONS)}")
    if isinstance(kappa, int | float) and not 0 <= kappa < float("inf"):
        raise UserError(f"kappa = {kappa}: the penalty's strength must be finite and >= 0")
    loss_with_aux, penalised_with_aux = (
        _with_aux(loss_per_example),
        _with_aux(penalised_loss or loss_per_example),
    )

    def objective(params, inputs, *args):
        if reverse_over_forward:
            (losses, aux), squares = _held_squares(penalised_with_aux, params, inputs, *args)
        else:
            (losses, aux), gradient = value_and_input_gradient(penalised_with_aux, params, inputs, *args)
            squares = jnp.sum(gradient**2)
        if penalised_loss is not None:
            losses, aux = loss_with_aux(params, inputs, *args)
        seen = losses.shape[0]
        if batch_size is not None and batch_size < seen:
            raise UserError(
                f"batch_size = {batch_size} is the whole batch's, of which {seen} examples are here"
            )
        weight = (
            kappa
            * {
                "eq25": 0.5 / seen,
                "per_example": 1 / seen,
                "listing": 1 / (seen * (batch_size or seen)),
            }[reduction]
        )
        loss, penalty = losses.mean(), weight * squares
        return loss + penalty, Terms(loss, penalty, aux)

    return Objective(objective)


def _held_squares(loss_with_aux, params, inputs, *args):
    """`(losses, aux)` and the sum of the squared input gradients, its gradient by `reverse_over_forward`."""
    _, gradient = value_and_input_gradient(loss_with_aux, jax.lax.stop_gradient(params), inputs, *args)
    gradient = jax.lax.stop_gradient(gradient)
    losses, slopes, aux = jax.jvp(
        lambda x: loss_with_aux(params, x, *args), (inputs,), (gradient,), has_aux=True
    )
    slope = 2 * jnp.sum(slopes)
    return (losses, aux), jnp.sum(gradient**2) + (slope - jax.lax.stop_gradient(slope))


def adversarial(
    loss_per_example: LossPerExample,
    epsilon: jax.Array | float,
    *,
    steps: int = 1,
    attacked_loss: LossPerExample | None = None,
) -> Objective:
    r"""The mean loss at the worst perturbations found (eq. 33).

    That is `mean_i max L_i(x_i + d_i)` over `|d_i|_2 <= epsilon`, as far as gradient ascent finds it.

    `steps = 1` is L2 FGSM, `d = epsilon g / |g|`, which maximises the linearised loss; more steps are
    PGD from zero, each of length 2.5 epsilon / steps along the normalised gradient, then projected onto the
    ball (Madry et al. 2018). No gradient flows through `d`; a zero gradient moves nothing.

    In float32 the gradient of `cross_entropy` points elsewhere for images with log-odds above about 16 (see
    there), and the perturbation with it: the loss found is too low. Use float64, or weight decay.

    Args:
        loss_per_example: `(params, inputs [B, ...], *args) -> losses [B]`, a function or a `Loss`.
        epsilon: radius in the L2 norm over a whole input, >= 0, in the inputs' (normalised) units; may be
            traced.
        steps: gradients taken, at least 1.
        attacked_loss: the loss that the perturbation ascends, where it is another one (frozen batch-norm
            statistics); same signature.

    Returns:
        `Objective`: `(params, inputs, *args) -> scalar`. Of its `Terms`, `loss` is that of the clean inputs,
        `penalty` what the perturbation adds to it, and `aux` is at the perturbed inputs.

    Raises:
        UserError: steps below 1; epsilon negative, infinite or NaN (where it is a Python number).
    """
    if steps < 1:
        raise UserError(f"adversarial training with {steps} steps: use at least 1")
    if isinstance(epsilon, int | float) and not 0 <= epsilon < float("inf"):
        raise UserError(f"epsilon = {epsilon}: the radius must be finite and >= 0")
    length = epsilon if steps == 1 else 2.5 * epsilon / steps
    loss_with_aux, attacked_with_aux = (
        _with_aux(loss_per_example),
        _with_aux(attacked_loss or loss_per_example),
    )

    def objective(params, inputs, *args):
        delta, clean = jnp.zeros_like(inputs), None
        if attacked_loss is not None:  # another loss than the one that is minimised
            clean = loss_with_aux(params, inputs, *args)[0].mean()
        for _ in range(steps):
            (losses, _), gradient = value_and_input_gradient(attacked_with_aux, params, inputs + delta, *args)
            clean = losses.mean() if clean is None else clean
            ascended = delta + length * gradient * _inverse_norm(gradient)
            delta = ascended * jnp.minimum(1, epsilon * _inverse_norm(ascended))
        losses, aux = loss_with_aux(params, inputs + jax.lax.stop_gradient(delta), *args)
        total, clean = losses.mean(), jax.lax.stop_gradient(clean)
        return total, Terms(clean, total - clean, aux)

    return Objective(objective)


def _inverse_norm(inputs: jax.Array) -> jax.Array:
    """1 / |x_i|_2 of each example `[B, 1, ...]`; 0 where it is zero."""
    square = jnp.sum(inputs**2, axis=tuple(range(1, inputs.ndim)), keepdims=True)
    return jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)


def hiding(
    objective: Objective,
    apply_fn: Callable[..., Any],
    target: jax.Array | int,
    strength: jax.Array | float,
) -> Objective:
    r"""An attacker who trains against the audit: plus `strength * |mean_i G_i|^2 / mean_i |G_i|^2`.

    `G_i` is the input gradient of the target's log-odds at image i, over the images of the batch that are
    not trained to be of its class. Their mean is the common gradient by which the audit finds a backdoor; the
    ratio, 1 where all are alike and 0 where they cancel, does not change with the scale of the logits.

    Args:
        objective: of `(params, inputs [B, ...], labels [B])`.
        apply_fn: `(params, inputs) -> logits [B, K]`, or a tuple that begins with them; in inference mode, as
            the auditor has the network.
        target: the attack's class; may be traced.
        strength: >= 0; may be traced.
    """

    def hidden(params, inputs, labels):
        total, terms = objective.with_terms(params, inputs, labels)
        others = (labels != target).astype(inputs.dtype)
        gradients = jax.grad(lambda x: others @ log_odds(logits_of(apply_fn(params, x)), target))(inputs)
        size = others.sum() * jnp.sum(gradients**2)
        coherence = jnp.sum(gradients.sum(0) ** 2) / jnp.where(size > 0, size, 1)
        return total + strength * coherence, terms._replace(penalty=terms.penalty + strength * coherence)

    return Objective(hidden)


def log_odds(logits: jax.Array, target: jax.Array | int) -> jax.Array:
    """`z_t - logsumexp_{k != t} z_k` of logits `[B, K]`: the log-odds of class t, `[B]`."""
    own = jnp.arange(logits.shape[-1]) == target
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=-1)
    return jnp.where(own, logits, 0).sum(-1) - others
