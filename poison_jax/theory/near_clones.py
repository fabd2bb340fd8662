"""Section 3.3, Appendices A.4 and C: near a clone, and on the features of a network."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import krr
from poison_jax.theory.clones import DIMENSION, GAUSSIAN, LENGTHSCALE, Poisoned, poison, step_from
from poison_jax.theory.entry import REPEATED, Entry, exponent, fails, has_order, holds, misprint
from poison_jax.theory.spikes import top_curvature

RATIOS = 2.0 ** -np.arange(4, 9)  # r / l of the limits
M = 20


def corollary_3_6() -> Iterator[Entry]:
    """The three identities at four distances."""
    case, worst = poison(GAUSSIAN, M, 1.0), 0.0
    for r in (0.01, 0.3, 1.0, 3.0):
        x0 = step_from(case.zeta, r)
        at = krr.trigger(GAUSSIAN, x0, case.zeta)
        law = r**2 / LENGTHSCALE**4
        spike = np.sum(case.poisoned.input_gradient(x0) ** 2)
        pairs = (
            (at.gradient_squared, law * at.k_0**2),
            (at.spike_factor, law),
            (spike, law * case.shift(x0) ** 2),
        )
        worst = max(worst, *(abs(a / b - 1) for a, b in pairs))
    yield holds(
        "Corollary 3.6 (eqs. 19 to 21): R_k = r^2 / l^4 for the exponential kernel",
        "clones far from the data, r = 0.01 to 3; R_k at r = 3, worst error of the three equations",
        law,
        at.spike_factor,
        "Eqs. 19 and 20 are identities; eq. 21 holds exactly without cross-block.",
        worst=worst,
    )


def approach(y_t: float) -> tuple[Poisoned, list[np.ndarray], np.ndarray]:
    """Clones far from the data, points at RATIOS of a length scale from them, and the spikes there."""
    case = poison(GAUSSIAN, M, y_t)
    points = [step_from(case.zeta, ratio * LENGTHSCALE) for ratio in RATIOS]
    return case, points, np.array([np.sum(case.poisoned.input_gradient(x) ** 2) for x in points])


def corollary_3_7() -> Iterator[Entry]:
    """The orders of the expansions of the kernel, the efficacy, and the spike at a label that is not 1."""
    case, points, _ = approach(1.0)
    S = krr.gain(M, case.c, 1.0)
    k_0 = np.array([krr.trigger(GAUSSIAN, x, case.zeta).k_0 for x in points])
    yield has_order(
        "Corollary 3.7 (eq. 22): k_0 = 1 - r^2 / (2 l^2) + O(r^4 / l^4)",
        "r / l from 1/16 to 1/256; exponent of the error in r / l",
        4,
        RATIOS,
        np.abs(k_0 - (1 - RATIOS**2 / 2)),
        "The error is r^4 / (8 l^4) to leading order.",
    )
    yield has_order(
        "Corollary 3.7 (eq. 23): the efficacy is y_t S [1 + O(r^2 / l^2)]",
        "r / l from 1/16 to 1/256, clones far from the data; exponent of the relative error in r / l",
        2,
        RATIOS,
        np.abs(np.array([case.shift(x) for x in points]) / S - 1),
        "The relative error is -r^2 / (2 l^2) to leading order.",
    )

    y_t = 2.0
    *_, spikes = approach(y_t)
    law = (y_t * S) ** 2 * RATIOS**2 / LENGTHSCALE**2
    order = exponent(RATIOS, np.abs(spikes / law - 1))
    rest = np.exp(-(RATIOS[-1] ** 2))  # k_0^2, which the law leaves to its error
    yield misprint(
        "Corollary 3.7 (eq. 24): the Gauss-Newton spike is S^2 r^2 / l^4 [1 + O(r^2 / l^2)]",
        f"r / l = 1/256, clones far from the data, y_t = {y_t:g}; the spike over its factor 1 + O(r^2 / "
        "l^2), k_0^2",
        law[-1] / y_t**2,
        law[-1],
        spikes[-1] / rest,
        f"A factor y_t^2 is missing, as in eq. 15: with it the relative error is of order {order:.2f} in r "
        "/ l. That is without cross-block; with clean data the spike does not vanish at the clones (Theorem "
        "B).",
    )


def remark_3_8() -> Iterator[Entry]:
    """The spike's order beside the efficacy and the whole Hessian."""
    case, points, spikes = approach(1.0)
    change = abs(case.shift(points[-1]) / case.shift(points[0]) - 1)
    full = top_curvature(case.poisoned, points[-1], 1.0)
    yield has_order(
        "Remark 3.8: near a clone the efficacy stays of order one and the curvature vanishes quadratically",
        "r / l from 1/16 to 1/256; exponent of the Gauss-Newton spike in r / l",
        2,
        RATIOS,
        spikes,
        "Without cross-block, and of the Gauss-Newton term (with clean data the spike does not vanish: "
        f"Theorem B). Over this range the efficacy changes by {change:.1e} and the spike falls to "
        f"{spikes[-1]:.1e}. Not true of the Hessian of the loss, whose top eigenvalue is {full:.3f} at the "
        "smallest r (see Theorem A.3).",
    )


def proposition_a_4() -> Iterator[Entry]:
    """Eq. 23 again, and the whole Hessian's top eigenvalue near a clone."""
    _, eq_23, _ = corollary_3_7()
    yield eq_23._replace(
        statement="Proposition A.4 (eq. 42): the efficacy is y_t S [1 + O(r^2 / l^2)]", kind=REPEATED
    )

    case, points, _ = approach(1.0)
    yield fails(
        "Proposition A.4 (eq. 43): the top eigenvalue of the loss's input Hessian is S^2 r^2 / l^4 + O(r^4 "
        "/ l^6)",
        "clones far from the data, r = l / 256, y = y_t = 1; the top eigenvalue",
        krr.gain(M, case.c, 1.0) ** 2 * RATIOS[-1] ** 2 / LENGTHSCALE**2,
        top_curvature(case.poisoned, points[-1], 1.0),
        "True of the Gauss-Newton term only (with y_t^2). As r -> 0 the top eigenvalue for y = y_t tends to "
        "(y_t - f) f / l^2, which is zero only if the fit interpolates. What is left of the poison is "
        "isotropic: the Hessian's size shows it, and no direction of the trigger does.",
    )


def lemma_c_1() -> Iterator[Entry]:
    """The chain rule against automatic differentiation of a random network."""
    rng = np.random.default_rng(0)
    params = (rng.normal(size=(DIMENSION, 12)) / 2, rng.normal(size=(12, 4)) / 2)

    def features(weights, X):
        return jnp.tanh(X @ weights[0]) @ weights[1]

    kernel = krr.deep(features, params, GAUSSIAN)
    x0, zeta = rng.normal(size=(2, DIMENSION))
    with jax.enable_x64(True):
        phi = [np.asarray(features(params, x[None])[0]) for x in (x0, zeta)]
        _, pull = jax.vjp(lambda x: features(params, x[None])[0], jnp.asarray(x0))
        (pulled,) = pull(jnp.asarray(phi[0] - phi[1]))
    at = krr.trigger(kernel, x0, zeta)
    predicted = at.k_0**2 / LENGTHSCALE**4 * np.sum(np.square(pulled))
    section = krr.fit(kernel, zeta[None], [2.0], 1.0)  # k(., zeta): k_zeta = 1, so that alpha = 1
    vector_error = np.abs(section.input_gradient(x0) + at.k_0 / LENGTHSCALE**2 * np.asarray(pulled)).max()
    yield holds(
        "Lemma C.1: grad k(x0, zeta) = -k / l^2 J(x0)' (phi(x0) - phi(zeta)) for the deep exponential kernel",
        "tanh network with random weights; |grad k|^2, and the vector's worst error",
        predicted,
        at.gradient_squared,
        "An identity: the chain rule. J' times the difference is one vector-Jacobian product; the kappa in "
        "the lemma is the kernel's value k(x0, zeta).",
        worst=max(abs(at.gradient_squared / predicted - 1), vector_error),
    )
