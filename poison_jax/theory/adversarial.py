"""Remark 3.14: L2 adversarial training and the input-gradient norm, to first order."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from poison_jax import data, environment, krr
from poison_jax.theory.entry import Entry, has_order, misprint

EPSILONS = 2.0 ** -np.arange(5, 11)


class WorstCase(NamedTuple):
    """Eq. 33 at one point, for each epsilon."""

    largest: np.ndarray  # max of L over the ball
    first_order: np.ndarray  # L + epsilon |grad L|
    stationarity: float  # largest distance of the maximiser from being one


def worst_case(
    loss: Callable[[jax.Array], jax.Array], x: np.ndarray, epsilons: np.ndarray, *, iterations: int = 40
) -> WorstCase:
    """max over `|delta| <= epsilon` of L(x + delta), beside its first order.

    For small epsilon the maximum lies on the sphere, where delta is parallel to the gradient at x + delta:
    a fixed point of `delta -> epsilon grad / |grad|`, which contracts while epsilon |Hess L| < |grad L|.
    In float64. `loss` is traced once and has no kinks.
    """
    with jax.enable_x64(True):
        gradient = jax.grad(loss)

        @jax.jit
        def largest(x, epsilon):
            def step(_, delta):
                g = gradient(x + delta)
                return epsilon * g / jnp.linalg.norm(g)

            delta = jax.lax.fori_loop(0, iterations, step, jnp.zeros_like(x))
            return loss(x + delta), jnp.linalg.norm(step(0, delta) - delta) / epsilon

        x = jnp.asarray(x, jnp.float64)
        value, norm = float(loss(x)), float(jnp.linalg.norm(gradient(x)))
        values, off = map(np.asarray, jax.vmap(largest, (None, 0))(x, jnp.asarray(epsilons)))
    return WorstCase(values, value + norm * np.asarray(epsilons), float(off.max()))


def _cross_entropy(params, X, labels):
    logits = jnp.tanh(X @ params[0]) @ params[1]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def trained_network() -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """Cross-entropy of a small tanh network, trained on 300 digits, and the first of them."""
    digits = data.take(data.load("digits", "train"), 300)
    optimiser = optax.adam(0.02)

    @jax.jit
    def train(params, X, labels):
        def step(carry, _):
            params, state = carry
            gradient = jax.grad(lambda p: _cross_entropy(p, X, labels).mean())(params)
            updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimiser.init(params)), length=60)[0][0]

    with jax.enable_x64(True):
        X, labels = jnp.asarray(digits.images.reshape(300, -1) / 255.0), jnp.asarray(digits.labels)
        keys = jax.random.split(environment.key(0))
        params = [
            jax.random.normal(keys[0], (X.shape[1], 32)) / 8,
            jax.random.normal(keys[1], (32, 10)) / 6,
        ]
        params = train(params, X, labels)
    return lambda z: _cross_entropy(params, z[None], labels[:1])[0], X[0]


def remark_3_14() -> Iterator[Entry]:
    """The order of the first-order identity, on three models; both sides of eq. 34, and in the mean."""
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(2, 20))
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 8)), rng.choice([-1.0, 1.0], 60)
    f = krr.fit(krr.gaussian(2.0), X, y, 0.1)
    models = {
        "linear model": (lambda z: 0.5 * (w @ z - 1.0) ** 2, x),
        "KRR": (lambda z: 0.5 * (f.score(z) + y[0]) ** 2, X[0]),
        "tanh network on digits": trained_network(),
    }
    orders = {}
    for name, (loss, point) in models.items():
        found = worst_case(loss, point, EPSILONS)
        orders[name] = has_order("", "", 2, EPSILONS, np.abs(found.largest - found.first_order), "")
    worst = max(orders.values(), key=lambda entry: entry.error)
    slopes = ", ".join(f"{name} {entry.measured:.3f}" for name, entry in orders.items())
    yield worst._replace(
        statement="Remark 3.14 (eq. 33): max over |delta| <= epsilon of L(x + delta) = L + epsilon |grad L| "
        "+ O(epsilon^2)",
        setup="the inner maximum solved to stationarity, epsilon from 1/32 to 1/1024; exponent of the error "
        "in epsilon, worst of three models",
        note=f"Exponents: {slopes}. For the linear model the error is epsilon^2 |w|^2 / 2 exactly. For a "
        "twice differentiable L: in a ReLU network only while no unit switches within epsilon.",
    )

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 5)), rng.normal(size=40)
    f = krr.fit(krr.gaussian(2.0), X, y, 0.5)
    gradient = (f.predict(X) - y)[:, None] * f.input_gradient(X)
    trace = np.trace(gradient.T @ gradient / len(y))
    yield misprint(
        "Remark 3.14 (eq. 34): |grad L(x)|^2 = tr E[grad L grad L']",
        "a KRR on 40 random points; |grad L|^2 at the first point, and tr F",
        float(gradient[0] @ gradient[0]),
        float(np.mean(np.sum(gradient**2, 1))),
        trace,
        "An expectation is missing on the left: E|grad L|^2 = tr F is exact. Adversarial training penalises "
        "E|grad L|, to first order; the square weighs steep points more.",
    )
