"""MM-BD: the largest margin that any input gives a class (Wang et al., S&P 2024)."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from poison_jax import batches
from poison_jax.audit.checks import as_key, checked
from poison_jax.audit.detector import Detector, NetworkScore
from poison_jax.errors import UserError
from poison_jax.subject import Subject

OPTIMIZER = optax.scale_by_adam()
EQUAL = 1e-4  # margins that differ by a smaller share leave the gamma distribution's shape undetermined


class Margins(NamedTuple):
    """The largest margin of each class, and where it is."""

    margins: np.ndarray  # [K], in logits
    images: np.ndarray  # [K, H, W, C] in [0, 1]


def score(
    subject: Subject,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    key: jax.Array | int,
    batch_size: int | None = None,
    **options: Any,
) -> NetworkScore:
    """How improbable the largest of the classes' maximum margins is beside the others.

    With r_t = max over x in [0, 1] of z_t(x) - max_{k != t} z_k(x), and G the gamma distribution fitted to
    all of them but the largest, the statistic is -log p of p = 1 - G(max_t r_t)^K, the probability that the
    largest of K draws from G is as large. The authors call a network poisoned where p < .05; clean ones of
    10 classes are in 15 to 30 cases of 100. Their program fits G's location, too, which is 0 here, and keeps
    margins that are not positive: what `authors` says is their threshold on this p, and can differ from
    theirs.

    Args:
        subject: the network, of three classes at least.
        images: float `[N, H, W, C]` in [0, 1]; only their size is used.
        labels: not used; refused where they are no classes of the network.
        key: of the random starts.
        batch_size: images at once; changes memory, not the result.
        **options: the others of `maximum_margins`.

    Returns:
        `NetworkScore`: the target is the class of the largest margin, the picture the input that has it.

    Raises:
        UserError: fewer than three classes, as `maximum_margins`, labels that are no classes.
    """
    checked(subject, images, labels, least=3)
    found = maximum_margins(subject, images, key=key, batch_size=batch_size, **options)
    target, log_p = int(found.margins.argmax()), order_statistic(found.margins)
    verdict = "poisoned" if log_p < np.log(0.05) else "clean"
    others = {"its margin": float(found.margins[target])}
    return NetworkScore(-log_p, target, found.images[target], verdict, others)


def order_statistic(margins: np.ndarray) -> float:
    """log(1 - G(r_max)^K), G the gamma distribution (from 0) of most likelihood for the other margins.

    Here K counts the positive margins alone: one that is not positive belongs to a class that no input met is
    assigned to, and says nothing about the others. Never below the logarithm of the smallest normal number.

    | margins | log p |
    | --- | --- |
    | fewer than three that are positive | 0 |
    | all but the largest equal | 0 where it is equal to them too, else the smallest value |

    Args:
        margins: `[K]`.
    """
    margins = np.sort(np.asarray(margins, float))
    margins = margins[margins > 0]
    if len(margins) < 3:
        return 0.0
    *others, largest = margins
    if np.ptp(others) <= EQUAL * others[-1]:
        return 0.0 if largest <= others[-1] * (1 + EQUAL) else float(np.log(np.finfo(float).tiny))
    shape, loc, scale = stats.gamma.fit(others, floc=0)
    # p = 1 - (1 - s)^K with s = 1 - G, without cancellation where s is small.
    survival = stats.gamma.sf(largest, shape, loc, scale)
    p = -np.expm1(len(margins) * np.log1p(-survival))
    return float(np.log(max(p, np.finfo(float).tiny)))


def maximum_margins(
    subject: Subject,
    images: np.ndarray,
    *,
    key: jax.Array | int,
    starts: int = 20,
    steps: int = 100,
    learning_rate: float = 0.1,
    batch_size: int | None = None,
) -> Margins:
    """For each class t the largest z_t(x) - max_{k != t} z_k(x) over x in [0, 1]^(H W C).

    Gradient ascent from uniformly random images, clipped to [0, 1] after every step, by Adam with a rate that
    falls to zero as a half cosine (the authors' plain ascent wants a rate that fits the size of the logits).
    The result is the largest margin that was met.

    Args:
        subject: the network.
        images: float `[N, H, W, C]` in [0, 1]; only their size is used.
        key: a key, or the integer seed of one.
        starts: random images of each class.
        steps: of the ascent.
        learning_rate: of the first step, in pixels.
        batch_size: images at once; changes memory, not the result. None: 128.

    Raises:
        UserError: fewer than two classes, images that are not in [0, 1], numbers below 1.
    """
    images, _, num_classes = checked(subject, images)
    if min(starts, steps) < 1 or not learning_rate > 0:
        raise UserError(f"starts {starts}, steps {steps}, rate {learning_rate}: use positive numbers")
    rates = learning_rate * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    first = jax.random.uniform(as_key(key), (num_classes * starts, *images.shape[1:]), jnp.float32)
    targets = np.repeat(np.arange(num_classes), starts)
    ascend = partial(_ascend, subject.of_pixels, subject.variables, rates.astype(np.float32))
    margins, found = batches.outputs(ascend, np.asarray(first), targets, batch_size=batch_size)
    margins = margins.reshape(num_classes, starts)
    found = found.reshape(num_classes, starts, *images.shape[1:])
    best = margins.argmax(1)
    return Margins(margins.max(1), found[np.arange(num_classes), best])


class _State(NamedTuple):
    images: jax.Array
    moments: Any
    margins: jax.Array  # the largest met
    found: jax.Array  # where


def _ascend(of_pixels, variables, rates, images, targets):
    images = jnp.asarray(images)
    state = _State(images, OPTIMIZER.init(images), jnp.full(len(images), -jnp.inf), images)
    # On the host: within a compiled loop the gradients of convolutions are slow on CPUs.
    for rate in (*rates, np.float32(0)):
        state = _step(of_pixels, variables, state, targets, rate)
    return state.margins, state.found


@partial(jax.jit, static_argnums=0)
def _step(of_pixels, variables, state, targets, rate):
    def total(images):
        logits = of_pixels(variables, images)
        own = jnp.arange(logits.shape[-1]) == targets[:, None]
        margins = jnp.where(own, logits, 0).sum(-1) - jnp.where(own, -jnp.inf, logits).max(-1)
        return margins.sum(), margins

    gradient, margins = jax.grad(total, has_aux=True)(state.images)
    better = margins > state.margins
    found = jnp.where(better[:, None, None, None], state.images, state.found)
    updates, moments = OPTIMIZER.update(gradient, state.moments)
    images = jnp.clip(state.images + rate * updates, 0, 1)
    return _State(images, moments, jnp.where(better, margins, state.margins), found)


DETECTOR = Detector("MM-BD", "-log p of the classes' largest maximum margin", "nothing", score)
