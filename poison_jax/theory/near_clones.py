"""Section 3.3, Appendices A.4 and C: near a clone, and on the features of a network."""

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import krr
from poison_jax.theory.clones import DIMENSION, LENGTHSCALE, poison, step_from
from poison_jax.theory.entry import Entry, fails, has_order, holds
from poison_jax.theory.spikes import top_curvature

RATIOS = 2.0 ** -np.arange(4, 9)  # r / l of the limits


def corollary_3_6() -> Entry:
    """The three identities at four distances."""
    kernel, m, y_t = krr.gaussian(LENGTHSCALE), 20, 1.0
    case = poison(kernel, m, y_t)
    worst = 0.0
    for r in (0.01, 0.3, 1.0, 3.0):
        x0 = step_from(case.zeta, r)
        at = krr.trigger(kernel, x0, case.zeta)
        law = r**2 / LENGTHSCALE**4
        spike = np.sum(case.poisoned.input_gradient(x0) ** 2)
        pairs = (
            (at.gradient_squared, law * at.k_0**2),
            (at.spike_factor, law),
            (spike, law * case.shift(x0) ** 2),
        )
        worst = max(worst, *(abs(a / b - 1) for a, b in pairs))
    return holds(
        "Corollary 3.6 (eqs. 19 to 21): R_k = r^2 / l^4 for the exponential kernel",
        "clones far from the data, r = 0.01 to 3; R_k at r = 3, worst error of the three equations",
        law,
        at.spike_factor,
        "Eqs. 19 and 20 are identities; eq. 21 holds exactly without cross-block.",
        worst=worst,
    )


def _near_clone(y_t: float):
    """Measured and predicted k_0, efficacy and spike over RATIOS, clones far from the data."""
    kernel, m = krr.gaussian(LENGTHSCALE), 20
    case = poison(kernel, m, y_t)
    points = [step_from(case.zeta, ratio * LENGTHSCALE) for ratio in RATIOS]
    measured = krr.NearClone(
        np.array([krr.trigger(kernel, x, case.zeta).k_0 for x in points]),
        np.array([case.shift(x) for x in points]),
        np.array([np.sum(case.poisoned.input_gradient(x) ** 2) for x in points]),
    )
    return measured, krr.near_clone(RATIOS * LENGTHSCALE, LENGTHSCALE, m, case.c, y_t), case, points


def corollary_3_7_eq_22() -> Entry:
    """The order of the kernel's expansion."""
    measured, law, *_ = _near_clone(1.0)
    return has_order(
        "Corollary 3.7 (eq. 22): k_0 = 1 - r^2 / (2 l^2) + O(r^4 / l^4)",
        "r / l from 1/16 to 1/256; exponent of the error in r / l",
        4,
        RATIOS,
        np.abs(measured.k_0 - law.k_0),
        "The error is r^4 / (8 l^4) to leading order.",
    )


def corollary_3_7_eq_23(label: str = "Corollary 3.7 (eq. 23)") -> Entry:
    """The order of the efficacy's expansion."""
    measured, law, *_ = _near_clone(1.0)
    return has_order(
        f"{label}: the efficacy is y_t S [1 + O(r^2 / l^2)]",
        "r / l from 1/16 to 1/256, clones far from the data; exponent of the relative error in r / l",
        2,
        RATIOS,
        np.abs(measured.efficacy / law.efficacy - 1),
        "The relative error is -r^2 / (2 l^2) to leading order.",
    )


def corollary_3_7_eq_24(label: str = "Corollary 3.7 (eq. 24)", y_t: float = 2.0) -> Entry:
    """The spike's expansion at a label that is not 1."""
    measured, law, *_ = _near_clone(y_t)
    order = np.polyfit(np.log(RATIOS), np.log(np.abs(measured.spike / law.spike - 1)), 1)[0]
    return fails(
        f"{label}: the Gauss-Newton spike is S^2 r^2 / l^4 [1 + O(r^2 / l^2)]",
        f"r / l = 1/256, clones far from the data, y_t = {y_t:g}; the spike",
        law.spike[-1] / y_t**2,
        measured.spike[-1],
        f"True instead: y_t^2 S^2 r^2 / l^4 with a relative error of order {order:.2f} in r / l; as printed "
        "only for y_t = +-1.",
    )


def remark_3_8() -> Entry:
    """The spike's order beside the efficacy and the whole Hessian."""
    measured, _, case, points = _near_clone(1.0)
    full = top_curvature(case.poisoned, points[-1], 1.0)
    efficacy = measured.efficacy[-1] / measured.efficacy[0]
    return has_order(
        "Remark 3.8: near a clone the efficacy stays of order one and the curvature vanishes quadratically",
        "r / l from 1/16 to 1/256; exponent of the Gauss-Newton spike in r / l",
        2,
        RATIOS,
        measured.spike,
        f"True of the Gauss-Newton term: over this range the efficacy changes by {abs(efficacy - 1):.1e} "
        f"and the spike falls to {measured.spike[-1]:.1e}. Not true of the Hessian of the loss, whose top "
        f"eigenvalue is {full:.3f} at the smallest r (see Theorem A.3).",
    )


def proposition_a_4_eq_42() -> Entry:
    """Eq. 23 again."""
    return corollary_3_7_eq_23("Proposition A.4 (eq. 42)")


def proposition_a_4_eq_43() -> Entry:
    """The whole Hessian's top eigenvalue near a clone."""
    _, law, case, points = _near_clone(1.0)
    measured = top_curvature(case.poisoned, points[-1], 1.0)
    return fails(
        "Proposition A.4 (eq. 43): the top eigenvalue of the loss's input Hessian is S^2 r^2 / l^4 + O(r^4 "
        "/ l^6)",
        "clones far from the data, r = l / 256, y = y_t = 1; the top eigenvalue",
        law.spike[-1],
        measured,
        "True of the Gauss-Newton term only (with y_t^2). As r -> 0 the top eigenvalue for y = y_t tends to "
        "(y_t - f) f / l^2, which is zero only if the fit interpolates: the poison is hidden from the "
        "Gauss-Newton matrix, not from the Hessian.",
    )


def lemma_c_1() -> Entry:
    """The chain rule against automatic differentiation of a random network."""
    rng = np.random.default_rng(0)
    params = (rng.normal(size=(DIMENSION, 12)) / 2, rng.normal(size=(12, 4)) / 2)

    def features(weights, X):
        return jnp.tanh(X @ weights[0]) @ weights[1]

    kernel = krr.deep(features, params, krr.gaussian(LENGTHSCALE))
    x0, zeta = rng.normal(size=(2, DIMENSION))
    with jax.enable_x64(True):
        phi = [np.asarray(features(params, x[None])[0]) for x in (x0, zeta)]
        _, pull = jax.vjp(lambda x: features(params, x[None])[0], jnp.asarray(x0))
        (pulled,) = pull(jnp.asarray(phi[0] - phi[1]))
    at = krr.trigger(kernel, x0, zeta)
    predicted = at.k_0**2 / LENGTHSCALE**4 * np.sum(np.square(pulled))
    gradient = _section_gradient(kernel, x0, zeta)
    vector_error = np.abs(gradient + at.k_0 / LENGTHSCALE**2 * np.asarray(pulled)).max()
    return holds(
        "Lemma C.1: grad k(x0, zeta) = -k / l^2 J(x0)' (phi(x0) - phi(zeta)) for the deep exponential kernel",
        "tanh network with random weights; |grad k|^2, and the vector's worst error",
        predicted,
        at.gradient_squared,
        "An identity: the chain rule. J' times the difference is one vector-Jacobian product; the kappa in "
        "the lemma is the kernel's value k(x0, zeta).",
        worst=max(abs(at.gradient_squared / predicted - 1), vector_error),
    )


def _section_gradient(kernel, x0, zeta):
    """grad_x k(x0, zeta) through the fit to one point of label 2 with ridge k_zeta (= 1): alpha = 1."""
    return krr.fit(kernel, zeta[None], [2.0], 1.0).input_gradient(x0)


SECTION_3 = (corollary_3_6, corollary_3_7_eq_22, corollary_3_7_eq_23, corollary_3_7_eq_24, remark_3_8)
APPENDIX_A = (proposition_a_4_eq_42, proposition_a_4_eq_43)
APPENDIX_C = (lemma_c_1,)
