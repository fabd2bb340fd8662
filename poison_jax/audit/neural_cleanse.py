"""Neural Cleanse: the smallest pattern that sends every image to a class (Wang et al., S&P 2019)."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from poison_jax import batches
from poison_jax.audit.checks import as_key, checked, generator
from poison_jax.audit.detector import Detector, NetworkScore
from poison_jax.audit.robust import anomaly_index
from poison_jax.errors import UserError
from poison_jax.subject import Subject

OPTIMIZER = optax.adam(0.1, b1=0.5, b2=0.9)
FASTER, SLOWER = 2.0, 2.0**1.5  # the weight of the norm is multiplied by the one, divided by the other


class Patterns(NamedTuple):
    """The smallest universal pattern of each class."""

    masks: np.ndarray  # [K, H, W] in [0, 1]; ones for a class that was not reached
    patterns: np.ndarray  # [K, H, W, C] in [0, 1]
    norms: np.ndarray  # [K], |mask|_1
    reached: np.ndarray  # bool [K]: some mask sent the images there


def score(
    subject: Subject,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    key: jax.Array | int,
    batch_size: int | None = None,
    **options: Any,
) -> NetworkScore:
    """How far the smallest of the classes' mask norms lies below the others.

    With n_t = |m_t|_1, the statistic is (median_t n_t - min_t n_t) / (1.4826 median_t |n_t - median n|).
    The authors call a network poisoned where it is above 2. A clean network of 10 classes is above it by
    chance about one time in three.

    Args:
        subject: the network.
        images: float `[N, H, W, C]` in [0, 1].
        labels: not used; refused where they are no classes of the network.
        key: of the initial masks and of the order of the images.
        batch_size: images at once, see `smallest_patterns`.
        **options: the others of `smallest_patterns`.

    Returns:
        `NetworkScore`: the target is the class of the smallest norm, the picture its mask times its pattern.

    Raises:
        UserError: as `smallest_patterns`; labels that are no classes.
    """
    checked(subject, images, labels)
    found = smallest_patterns(subject, images, key=key, batch_size=batch_size, **options)
    target = int(found.norms.argmin())
    index = -float(anomaly_index(found.norms)[target])
    picture = found.masks[target][..., None] * found.patterns[target]
    others = {"norm of its mask": float(found.norms[target])}
    return NetworkScore(index, target, picture, "poisoned" if index > 2 else "clean", others)


def smallest_patterns(
    subject: Subject,
    images: np.ndarray,
    *,
    key: jax.Array | int,
    steps: int = 200,
    batch: int = 64,
    patience: int = 5,
    success: float = 0.99,
    weight: float = 1e-3,
    batch_size: int | None = None,
) -> Patterns:
    """For each class t the mask m and pattern p of minimal |m|_1 that send images to t.

    Minimises mean_i loss((1 - m) x_i + m p, t) + w |m|_1 over m `[H, W]` and p `[H, W, C]`, each
    (1 + tanh) / 2 of free parameters, by Adam (rate .1, betas .5 and .9) from random ones. After `patience`
    batches in succession with at least the share `success` sent to t, w is multiplied by 2; after as many
    without, divided by 2^1.5. The result is the smallest mask met at the end of such a run of successes.

    Args:
        subject: the network.
        images: float `[N, H, W, C]` in [0, 1].
        key: a key, or the integer seed of one.
        steps: of Adam; the same number for every class.
        batch: images of a step, drawn anew each time; all of them where there are no more.
        patience: batches before w changes.
        success: the share of a batch that has to be sent to the class.
        weight: w at the beginning.
        batch_size: copies of images at once, over all classes that are worked on together (one class at
            least); changes memory, not the result. None: 128.

    Raises:
        UserError: fewer than two classes, images that are not in [0, 1], a number of steps below 1.
    """
    images, _, num_classes = checked(subject, images)
    if min(steps, batch, patience) < 1 or not 0 < success <= 1 or not weight > 0:
        raise UserError(
            f"steps {steps}, batch {batch}, patience {patience}, weight {weight}: use positive numbers, for "
            f"success = {success} a share in (0, 1]"
        )
    batch = min(batch, len(images))
    together = max(batches.size_of(batch_size, batch * num_classes) // batch, 1)
    random = generator(jax.random.fold_in(as_key(key), num_classes))
    rows = [random.permutation(len(images))[:batch] for _ in range(steps)]
    images, parts = jnp.asarray(images), []
    step = partial(_step, subject.of_pixels, subject.variables)
    for (targets,), size in batches.split(np.arange(num_classes), batch_size=together):
        state = _start(as_key(key), targets, weight, images[0])
        # On the host: within a compiled loop the gradients of convolutions are slow on CPUs.
        for row in rows:
            state = step(state, images, row, targets, patience, success)
        parts.append(jax.tree.map(lambda leaf, size=size: np.asarray(leaf)[:size], state.best))
    norms, (masks, patterns) = jax.tree.map(lambda *part: np.concatenate(part), *parts)
    reached = np.isfinite(norms)
    masks = np.where(reached[:, None, None], masks[..., 0], 1)
    return Patterns(masks, patterns, masks.sum((1, 2)), reached)


class _State(NamedTuple):
    """Of one class; of several, with a leading axis."""

    params: tuple[jax.Array, jax.Array]  # of mask [H, W, 1] and pattern [H, W, C]: any real numbers
    moments: Any
    weight: jax.Array
    streak: jax.Array  # batches in succession that succeeded; negative: that failed
    best: tuple[jax.Array, tuple[jax.Array, jax.Array]]  # norm, (mask, pattern)


def _bounded(params):
    return jax.tree.map(lambda part: (1 + jnp.tanh(part)) / 2, params)


@jax.jit
def _start(key, targets, weight, image):
    def one(target):
        keys = jax.random.split(jax.random.fold_in(key, target))
        shapes = (*image.shape[:2], 1), image.shape
        params = tuple(
            jnp.arctanh(jax.random.uniform(key, shape, image.dtype, -0.99, 0.99))
            for key, shape in zip(keys, shapes, strict=True)
        )
        best = jnp.asarray(jnp.inf, image.dtype), _bounded(params)
        return _State(params, OPTIMIZER.init(params), jnp.asarray(weight, image.dtype), jnp.int32(0), best)

    return jax.vmap(one)(targets)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _step(of_pixels, variables, state, images, rows, targets, patience, success):
    """One step of Adam for several classes on the same batch."""
    images = images[rows]

    def objective(params, weight, target):
        mask, pattern = _bounded(params)
        logits = of_pixels(variables, (1 - mask) * images + mask * pattern)
        losses = -jax.nn.log_softmax(logits)[:, target]
        share = jnp.mean(logits.argmax(-1) == target)
        return losses.mean() + weight * mask.sum(), share

    def one(state, target):
        gradient, share = jax.grad(objective, has_aux=True)(state.params, state.weight, target)
        updates, moments = OPTIMIZER.update(gradient, state.moments)
        good, streak = share >= success, state.streak
        streak = jnp.where(good, jnp.maximum(streak, 0) + 1, jnp.minimum(streak, 0) - 1)
        factor = jnp.where(good, FASTER, 1 / SLOWER)
        weight = state.weight * jnp.where(streak % patience == 0, factor, 1).astype(state.weight.dtype)
        current = _bounded(state.params)
        current = current[0].sum(), current
        smaller = (streak >= patience) & (current[0] < state.best[0])
        best = jax.tree.map(lambda new, old: jnp.where(smaller, new, old), current, state.best)
        return _State(optax.apply_updates(state.params, updates), moments, weight, streak, best)

    return jax.vmap(one)(state, targets)


DETECTOR = Detector("Neural Cleanse", "anomaly index of the smallest mask's norm", "images", score)
