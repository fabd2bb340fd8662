"""The training step: gather, augment, poison, normalise, penalised loss, update.

A pure function, compiled once for a whole sweep: what a sweep turns is traced (`Knobs`), what changes the
compiled program is static (`Program`).
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from poison_jax import augment, losses, poison
from poison_jax.mesh import replicate
from poison_jax.models import Model


class Program(NamedTuple):
    """Whatever changes the compiled program: the static argument of every jitted function here."""

    model: Model
    mesh: Mesh
    augment: str = "none"
    crop: str = "pad4"
    when: str = "after_augment"
    mode: str = "stochastic"
    penalised: bool = False  # kappa = 0 must not pay for double backprop
    adversarial_steps: int = 0  # gradients of an adversarial perturbation; 0: none
    hiding: bool = False  # whether the attacker trains against the audit
    noise: bool = False  # whether some images are warped by a noise field, with their true labels
    reduction: str = "per_example"
    batch_norm: str = "train"
    deterministic: bool = False  # on GPUs: the same bits each time; see `step_of`
    remat: bool = False  # the penalty's gradient in a form that a checkpointed network makes small
    precision: str = "default"  # of matrix products and convolutions; see `at_precision`
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_factor: float = 0.1
    decay_steps: tuple[int, ...] = ()


class Knobs(NamedTuple):
    """What a sweep turns: traced, so that one compilation serves every value."""

    key: jax.Array  # of the run's stream of steps
    kappa: jax.Array
    epsilon: jax.Array  # radius of adversarial perturbations
    fraction: jax.Array  # theta
    hide: jax.Array  # strength of the attacker's own term
    target: jax.Array  # the class that it is about
    cross_ratio: jax.Array  # images warped by a noise field, over poisoned ones
    labels: poison.LabelMap
    trigger: poison.Trigger  # for images of the size that is attacked
    mean: jax.Array  # [C]; its dtype is the dtype of the images
    std: jax.Array  # [C]


class TrainData(NamedTuple):
    """The training set, on the device once."""

    images: jax.Array  # uint8 [N, H, W, C]
    labels: jax.Array  # int32 [N]
    ids: jax.Array  # int32 [N]
    poisoned: jax.Array  # bool [N]: who is, in deterministic mode
    noised: jax.Array  # bool [N]: who is warped by a noise field, in deterministic mode


class Metrics(NamedTuple):
    """What a step measured, of its batch."""

    objective: jax.Array  # what was minimised: the mean loss and the penalty
    loss: jax.Array  # mean cross-entropy; of the clean images, where training is adversarial
    penalty: jax.Array
    # On the labels trained on, poisoned ones included; of the perturbed images, where training is adversarial
    train_accuracy: jax.Array
    gradient_norm: jax.Array
    poisoned: jax.Array  # images, a count


class TrainState(NamedTuple):
    """All that training carries from step to step; what a checkpoint holds."""

    params: Any
    batch_stats: Any
    opt_state: Any
    step: jax.Array  # int32, steps done

    @property
    def variables(self) -> dict[str, Any]:
        """As `Model.apply` takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def learning_rate(program: Program) -> optax.Schedule:
    """Step -> learning rate: constant but for the decays."""
    return optax.piecewise_constant_schedule(
        program.learning_rate, dict.fromkeys(program.decay_steps, program.decay_factor)
    )


def optimiser(program: Program) -> optax.GradientTransformation:
    """SGD with momentum, weight decay added to the gradient, step decay of the learning rate."""
    return optax.chain(
        optax.add_decayed_weights(program.weight_decay),
        optax.sgd(learning_rate(program), momentum=program.momentum),
    )


def decay_time(program: Program, steps: int) -> float:
    """`T = sum_t lr_t * weight_decay` over so many steps: how far decay alone has shrunk the weights.

    >>> from poison_jax.models import preresnet
    >>> program = Program(preresnet(8, 10, block="basic"), mesh=None, decay_steps=(100, 200))
    >>> round(decay_time(program, 300), 6)  # 5e-4 * (0.1 + 0.01 + 0.001) * 100
    0.00555
    """
    edges = [0, *(min(step, steps) for step in program.decay_steps), steps]
    spans = np.diff(edges)
    rates = program.learning_rate * program.decay_factor ** np.arange(len(spans))
    return float(program.weight_decay * np.sum(rates * spans))


def decay_steps(epochs: int, steps_per_epoch: int, times: int) -> tuple[int, ...]:
    """Steps at which the learning rate decays: `times` of them, evenly spaced over the run's epochs.

    Each falls on the nearest epoch; those that fall on the same one are one decay, and none is at step 0.

    >>> decay_steps(90, 390, 2)
    (11700, 23400)
    >>> decay_steps(2, 390, 2)  # of 2/3 and 4/3 epochs, both rounded to 1
    (390,)
    """
    epochs_of_decay = (round(epochs * i / (times + 1)) for i in range(1, times + 1))
    return tuple(sorted({epoch * steps_per_epoch for epoch in epochs_of_decay} - {0}))


def init_state(key: jax.Array, image_shape: tuple[int, int, int], program: Program) -> TrainState:
    """A fresh state for network inputs `[H, W, C]`, replicated over the mesh."""
    variables = program.model.init(key, image_shape)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    opt_state = optimiser(program).init(params)
    return replicate(TrainState(params, batch_stats, opt_state, jnp.zeros((), jnp.int32)), program.mesh)


def at_precision(program: Program) -> contextlib.AbstractContextManager:
    """Within it matrix products and convolutions are traced at the program's precision.

    `default` is that of the process (`jax_default_matmul_precision`): by itself what the device does fastest,
    on recent NVIDIA GPUs TF32, which keeps 10 of float32's 23 bits, on TPUs bfloat16, which keeps 7.
    """
    if program.precision == "default":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(program.precision)


def make_batch(
    train_data: TrainData, rows: jax.Array, key: jax.Array, knobs: Knobs, program: Program
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gather, augment, poison, normalise: images `[B, h, w, C]`, labels trained on `[B]`, poisoned `[B]`.

    Randomness is per example, `fold_in(key, id)`: independent of batch composition and of sharding.
    """
    images = train_data.images[rows].astype(knobs.mean.dtype) / 255
    labels = train_data.labels[rows]
    keys = jax.vmap(partial(jax.random.fold_in, key))(train_data.ids[rows])
    augment_keys, poison_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    if program.mode == "deterministic":
        poisoned, noised = train_data.poisoned[rows], train_data.noised[rows]
    else:
        poisoned, noised = poison.select_with_noise(
            poison.uniform_draws(poison_keys, len(rows)),
            labels,
            knobs.fraction,
            knobs.cross_ratio,
            knobs.labels,
        )

    def attack(images):
        def put(where, attacked):
            return jnp.where(where[:, None, None, None], attacked, images)

        if program.noise:
            keys = jax.vmap(partial(jax.random.fold_in, data=1))(poison_keys)
            fields = jax.vmap(poison.noise_field, (0, None))(keys, knobs.trigger.field)
            images = put(noised, jax.vmap(poison.warp)(images, fields))
        return put(poisoned, poison.apply(images, knobs.trigger))

    if program.when == "before_augment":
        images = attack(images)
    if program.augment == "crop_flip":
        images = jax.vmap(partial(augment.crop_and_flip, crop=program.crop))(augment_keys, images)
    if program.when == "after_augment":
        images = attack(images)
    labels = jnp.where(poisoned, knobs.labels.aim[labels], labels)
    return augment.normalise(images, knobs.mean, knobs.std), labels, poisoned


def _objective(params, batch_stats, images, labels, knobs, program):
    """The program's objective on a batch, and `Terms` with the network's output as `aux`."""
    model = program.model

    def train_mode(params, images):
        return model.apply_train({"params": params, "batch_stats": batch_stats}, images)

    def frozen(params, images):
        return model.apply({"params": params, "batch_stats": batch_stats}, images)

    loss = losses.cross_entropy(train_mode)
    other = losses.cross_entropy(frozen) if program.batch_norm == "frozen" else None
    if program.adversarial_steps:
        objective = losses.adversarial(
            loss, knobs.epsilon, steps=program.adversarial_steps, attacked_loss=other
        )
    elif program.penalised:
        objective = losses.gradient_penalised(
            loss,
            knobs.kappa,
            reduction=program.reduction,
            penalised_loss=other,
            reverse_over_forward=program.remat,
        )
    else:
        objective = losses.mean(loss)
    if program.hiding:
        objective = losses.hiding(objective, frozen, knobs.target, knobs.hide)
    return objective.with_terms(params, images, labels)


@partial(jax.jit, static_argnames="program", donate_argnames="state")
def train_step(
    state: TrainState, train_data: TrainData, order: jax.Array, knobs: Knobs, *, program: Program
) -> tuple[TrainState, Metrics]:
    """One optimiser step on row `step % len(order)` of `order`.

    Args:
        state: donated.
        train_data: the whole training set.
        order: int32 `[steps, B]`, the epoch's batches as rows of the training set.
        knobs: traced settings.
        program: static settings.

    Returns:
        The state after the step, and what was measured on the batch before it.
    """
    everywhere, spread = (NamedSharding(program.mesh, PartitionSpec(*axis)) for axis in ((), ("data",)))
    rows = jax.lax.with_sharding_constraint(order[state.step % len(order)], spread)
    key = jax.random.fold_in(knobs.key, state.step)
    images, labels, poisoned = make_batch(train_data, rows, key, knobs, program)

    gradient_of = jax.value_and_grad(_objective, has_aux=True)
    with at_precision(program):
        (objective, terms), gradient = gradient_of(
            state.params, state.batch_stats, images, labels, knobs, program
        )
    (logits, _), batch_stats = terms.aux
    updates, opt_state = optimiser(program).update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = Metrics(
        objective,
        terms.loss,
        terms.penalty,
        train_accuracy=jnp.mean(logits.argmax(-1) == labels, dtype=objective.dtype),
        gradient_norm=jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))),
        poisoned=poisoned.sum(dtype=jnp.int32),
    )
    new = TrainState(params, batch_stats, opt_state, state.step + 1)
    return jax.lax.with_sharding_constraint((new, metrics), everywhere)


# XLA's own, of NVIDIA GPUs: nothing is added in an order that changes. Elsewhere it changes nothing.
deterministic_step = jax.jit(
    train_step.__wrapped__,
    static_argnames="program",
    donate_argnames="state",
    compiler_options={"xla_gpu_deterministic_ops": True},
)


def step_of(program: Program) -> Callable[..., tuple[TrainState, Metrics]]:
    """The compiled step of a program: `train_step`, or the same under deterministic operations."""
    return deterministic_step if program.deterministic else train_step


def step_memory(
    state: TrainState, train_data: TrainData, knobs: Knobs, program: Program, *, batch_size: int
) -> int | None:
    """Bytes on each device while a step runs, data included; None where the backend does not say.

    Compiles the step, so that its first call finds it compiled.
    """
    order = replicate(np.zeros((len(train_data.labels) // batch_size, batch_size), np.int32), program.mesh)
    compiled = step_of(program).lower(state, train_data, order, knobs, program=program).compile()
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    given, made = sizes.argument_size_in_bytes, sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return given + made + sizes.temp_size_in_bytes


@partial(jax.jit, static_argnames=("count", "batch_size"))
def epoch_order(key: jax.Array, epoch: int, *, count: int, batch_size: int) -> jax.Array:
    """A permutation of `count` examples as full batches, int32 `[count // batch_size, batch_size]`.

    The few that do not fill a batch are left out of this epoch; the next one shuffles anew.

    Args:
        key: of the run's stream of steps; no step folds in the number that is folded in here.
        epoch: from 0.
    """
    steps = count // batch_size
    key = jax.random.fold_in(jax.random.fold_in(key, np.uint32(2**32 - 1)), epoch)
    order = jax.random.permutation(key, jnp.arange(count, dtype=jnp.int32))
    return order[: steps * batch_size].reshape(steps, batch_size)
