"""Training: the pure step, jitted once for a whole sweep, and the loop that calls it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from poison_jax import augment, distributed, losses, poison
from poison_jax.errors import UserError
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
    noise: bool = False  # whether some images are warped by a noisy field, with their true labels
    reduction: str = "listing"
    batch_norm: str = "train"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_factor: float = 0.1
    decay_steps: tuple[int, ...] = ()


class Knobs(NamedTuple):
    """What a sweep turns: traced, so that one compilation serves every value."""

    key: jax.Array  # of the run
    kappa: jax.Array
    epsilon: jax.Array  # radius of adversarial perturbations
    fraction: jax.Array  # theta
    cross_ratio: jax.Array  # images warped by a noisy field, over poisoned ones
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
    crossed: jax.Array  # bool [N]: who is warped by a noisy field, in deterministic mode


class Totals(NamedTuple):
    """Sums over the steps of an epoch so far, of means over a batch (`poisoned`: of counts)."""

    objective: jax.Array
    loss: jax.Array
    penalty: jax.Array
    train_accuracy: jax.Array  # on the labels trained on, poisoned ones included
    gradient_norm: jax.Array
    poisoned: jax.Array


class TrainState(NamedTuple):
    """All that training carries from step to step; what a checkpoint holds."""

    params: Any
    batch_stats: Any
    opt_state: Any
    step: jax.Array  # int32, steps done
    totals: Totals

    @property
    def variables(self) -> dict[str, Any]:
        """As `Model.apply` takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def make_mesh(devices: list | None = None) -> Mesh:
    """A mesh with one axis, `data`, over all devices (of all processes)."""
    return Mesh(np.array(devices or jax.devices()), ("data",))


def optimiser(program: Program) -> optax.GradientTransformation:
    """SGD with momentum, weight decay added to the gradient, step decay of the learning rate."""
    schedule = optax.piecewise_constant_schedule(
        program.learning_rate, dict.fromkeys(program.decay_steps, program.decay_factor)
    )
    return optax.chain(
        optax.add_decayed_weights(program.weight_decay), optax.sgd(schedule, momentum=program.momentum)
    )


def decay_steps(epochs: int, steps_per_epoch: int, times: int) -> tuple[int, ...]:
    """Steps at which the learning rate decays: `times` of them, evenly spaced over the run.

    >>> decay_steps(90, 390, 2)
    (11700, 23400)
    """
    epochs_of_decay = (round(epochs * i / (times + 1)) for i in range(1, times + 1))
    return tuple(sorted({epoch * steps_per_epoch for epoch in epochs_of_decay} - {0}))


def init_state(key: jax.Array, image_shape: tuple[int, int, int], program: Program) -> TrainState:
    """A fresh state for network inputs `[H, W, C]`, replicated over the mesh."""
    variables = program.model.init(key, image_shape)
    params = variables["params"]
    zeros = Totals(*np.zeros(len(Totals._fields), jax.tree.leaves(params)[0].dtype))
    state = TrainState(
        params,
        variables.get("batch_stats", {}),
        optimiser(program).init(params),
        jnp.zeros((), jnp.int32),
        zeros,
    )
    return replicate(state, program.mesh)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The arrays on every device of the mesh."""
    return distributed.put(tree, NamedSharding(mesh, PartitionSpec()))


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
        poisoned, crossed = train_data.poisoned[rows], train_data.crossed[rows]
    else:
        poisoned, crossed = poison.select_crossed(
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
            fields = jax.vmap(poison.noisy, (0, None))(keys, knobs.trigger.field)
            images = put(crossed, jax.vmap(poison.warp)(images, fields))
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
            loss, knobs.kappa, reduction=program.reduction, penalised_loss=other
        )
    else:
        objective = losses.mean(loss)
    return objective.with_terms(params, images, labels)


def _step(
    state: TrainState, train_data: TrainData, order: jax.Array, knobs: Knobs, program: Program
) -> TrainState:
    batch_sharding = NamedSharding(program.mesh, PartitionSpec("data"))
    rows = jax.lax.with_sharding_constraint(order[state.step % len(order)], batch_sharding)
    key = jax.random.fold_in(knobs.key, state.step)
    images, labels, poisoned = make_batch(train_data, rows, key, knobs, program)

    grad = jax.value_and_grad(_objective, has_aux=True)
    (objective, terms), gradient = grad(state.params, state.batch_stats, images, labels, knobs, program)
    (logits, _), batch_stats = terms.aux
    updates, opt_state = optimiser(program).update(gradient, state.opt_state, state.params)
    measured = Totals(
        objective,
        terms.loss,
        terms.penalty,
        jnp.mean(logits.argmax(-1) == labels, dtype=objective.dtype),
        jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))),
        poisoned.sum(dtype=objective.dtype),
    )
    new = TrainState(
        optax.apply_updates(state.params, updates),
        batch_stats,
        opt_state,
        state.step + 1,
        jax.tree.map(jnp.add, state.totals, measured),
    )
    return jax.lax.with_sharding_constraint(new, NamedSharding(program.mesh, PartitionSpec()))


@partial(jax.jit, static_argnames="program", donate_argnames="state")
def train_step(
    state: TrainState, train_data: TrainData, order: jax.Array, knobs: Knobs, *, program: Program
) -> TrainState:
    """One optimiser step on row `step % len(order)` of `order`.

    Args:
        state: donated.
        train_data: the whole training set.
        order: int32 `[steps, B]`, the epoch's batches as rows of the training set.
        knobs: traced settings.
        program: static settings.

    Returns:
        The state after the step.
    """
    return _step(state, train_data, order, knobs, program)


@partial(jax.jit, static_argnames="program", donate_argnames="states")
def train_steps(
    states: TrainState, train_data: TrainData, orders: jax.Array, knobs: Knobs, *, program: Program
) -> TrainState:
    """`train_step` of n runs at once, one program: every array has a first axis of n, but what they share.

    Args:
        states: stacked, donated.
        train_data: one set of images, labels and ids; `poisoned` and `crossed` are bool `[n, N]`.
        orders: int32 `[n, steps, B]`.
        knobs: stacked.
        program: of all of them.

    Returns:
        The states after the step, stacked. What is not finite in one of them stays there.
    """
    step = jax.vmap(partial(_step, program=program), (0, TrainData(None, None, None, 0, 0), 0, 0))
    new = step(states, train_data, orders, knobs)
    return jax.lax.with_sharding_constraint(new, NamedSharding(program.mesh, PartitionSpec()))


def step_memory(
    state: TrainState, train_data: TrainData, knobs: Knobs, program: Program, *, batch_size: int
) -> int | None:
    """Compiles the step (`fit` then finds it done): bytes on each device while it runs, data included.

    None where the backend does not say.
    """
    shape = (*state.step.shape, len(train_data.labels) // batch_size, batch_size)
    order = replicate(np.zeros(shape, np.int32), program.mesh)
    compiled = _step_of(state).lower(state, train_data, order, knobs, program=program).compile()
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    given, made = sizes.argument_size_in_bytes, sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return given + made + sizes.temp_size_in_bytes


@partial(jax.jit, static_argnames=("count", "batch_size"))
def epoch_order(key: jax.Array, epoch: int, *, count: int, batch_size: int) -> jax.Array:
    """A permutation of `count` examples as full batches, int32 `[count // batch_size, batch_size]`.

    The few that do not fill a batch are left out of this epoch; the next one shuffles anew.
    """
    steps = count // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, epoch), jnp.arange(count, dtype=jnp.int32))
    return order[: steps * batch_size].reshape(steps, batch_size)


def _step_of(state: TrainState) -> Callable[..., TrainState]:
    return train_steps if state.step.ndim else train_step


class Diverged(UserError):
    """Training cannot go on: something is not finite."""


class Stopped(Exception):
    """Training was asked to stop in the middle of an epoch; `state` is where it stands."""

    def __init__(self, state: TrainState):
        super().__init__("stopped")
        self.state = state


def fit(
    state: TrainState,
    train_data: TrainData,
    knobs: Knobs,
    program: Program,
    *,
    epochs: int,
    batch_size: int,
    on_epoch: Callable[[int, TrainState, Any], None],
    on_step: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Trains from wherever `state` stands to the end of the last epoch.

    Args:
        state: fresh or restored; its step says where to go on. Donated. Or several that stand at the same
            step, stacked, with `train_data` and `knobs` as `train_steps` takes them.
        epochs: in all, those already done included.
        batch_size: over all devices.
        on_epoch: called after every epoch with its number (from 1), the state and the epoch's means by name
            (of stacked states a list of them; what is not finite in some of them is in theirs).
        on_step: called after every step.
        should_stop: asked after every step; where there are several processes after every tenth, and has
            the same answer on all of them.

    Raises:
        Diverged: a loss or gradient is not finite (of stacked states: in every one of them); what `on_epoch`
            has saved is untouched.
        Stopped: `should_stop` said so.
    """
    count = len(train_data.labels)
    steps = count // batch_size

    def order_of(key: jax.Array, epoch: int) -> jax.Array:
        order_key = jax.random.fold_in(key, np.uint32(2**32 - 1))  # no step number
        return epoch_order(order_key, epoch, count=count, batch_size=batch_size)

    step, stacked = _step_of(state), state.step.ndim > 0
    if stacked:
        order_of = jax.vmap(order_of, (0, None))
    first_epoch, done = divmod(int(np.max(state.step)), steps)
    for epoch in range(first_epoch, epochs):
        order = replicate(order_of(knobs.key, epoch), program.mesh)
        for i in range(done, steps):
            state = step(state, train_data, order, knobs, program=program)
            on_step()
            waits = i % 10 == 9  # for the device (and the other processes): rarely, but soon enough
            stop = i + 1 < steps and (waits or not distributed.several()) and should_stop()
            if stop or waits:
                _check_finite(state, epoch, i)
            if stop:
                raise Stopped(state)
        _check_finite(state, epoch, steps - 1)
        done = 0
        means = [_means(totals, steps) for totals in totals_of(state)]
        zeros = Totals(*np.zeros_like(jax.device_get(state.totals)))
        state = state._replace(totals=replicate(zeros, program.mesh))
        on_epoch(epoch + 1, state, means if stacked else means[0])
        if should_stop():
            raise Stopped(state)
    return state


def totals_of(state: TrainState) -> list[Totals]:
    """The totals of every run that a state holds, on the host: one, or those of stacked states."""
    totals = jax.device_get(state.totals)
    return [Totals(*values) for values in zip(*map(np.atleast_1d, totals), strict=True)]


def _means(totals: Totals, steps: int) -> dict[str, float]:
    means = {name: float(value) / steps for name, value in totals._asdict().items()}
    return means | {"poisoned": round(float(totals.poisoned))}


def why_not_finite(totals: Mapping[str, float], epoch: int, step: int) -> str | None:
    """What to tell of totals or means, by name, that are not all finite; None where they are.

    Args:
        epoch, step: by which they were found so, from 1.
    """
    broken = [name for name, value in totals.items() if not np.isfinite(value)]
    if not broken:
        return None
    return (
        f"{' and '.join(broken[:2])} not finite in epoch {epoch}, by step {step}: training "
        "stopped, the last good checkpoint is kept; lower train.learning_rate or penalty.kappa"
    )


def _check_finite(state: TrainState, epoch: int, step: int) -> None:
    # A sum that was not finite stays so: no step is missed.
    reasons = [why_not_finite(totals._asdict(), epoch + 1, step + 1) for totals in totals_of(state)]
    if all(reasons):
        raise Diverged(reasons[0])
