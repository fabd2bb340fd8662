"""Theorem 3.4, Remark 3.5 and Theorem A.3: the spike in the input Hessian, and when it shows."""

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import krr, lanczos
from poison_jax.theory.clones import DIMENSION, LENGTHSCALE, RIDGE, poison, step_from
from poison_jax.theory.entry import Entry, below, fails, has_order, holds


def theorem_3_4_eq_15() -> Entry:
    """The spike at a label that is not 1."""
    m, y_t, kernel = 20, 2.0, krr.gaussian(LENGTHSCALE)
    case = poison(kernel, m, y_t)
    x0 = step_from(case.zeta, 1.0)
    at = krr.trigger(kernel, x0, case.zeta)
    measured = np.sum(case.poisoned.input_gradient(x0) ** 2)
    corrected = krr.spike(m, case.c, 1.0, at.gradient_squared, y_t)
    return fails(
        "Theorem 3.4 (eq. 15): the spike |grad f(x0)|^2 is |grad k(x0, zeta)|^2 S^2",
        f"Gaussian kernel, clones far away, y_t = {y_t:g}",
        at.gradient_squared * krr.gain(m, case.c, 1.0) ** 2,
        measured,
        "True instead: |grad k|^2 y_t^2 S^2 "
        f"(error {below(corrected / measured - 1)}); as printed only for y_t = +-1.",
    )


def spike_law(statement: str, kernel: krr.Kernel, x0: np.ndarray, distance: float, said: str) -> Entry:
    """Eq. 16, for the Gauss-Newton term."""
    m, y_t = 20, 2.0
    case = poison(kernel, m, y_t, distance=distance)
    at = krr.trigger(kernel, x0, case.zeta)
    near = poison(krr.gaussian(LENGTHSCALE), m, y_t, distance=3.0)
    x_near = step_from(near.zeta, 1.0)
    effect = krr.clone_effect(near.clean, near.zeta, y_t, m)
    factor = np.sum(effect.input_gradient(x_near) ** 2) / effect.predict(x_near) ** 2
    paper = krr.trigger(near.clean.kernel, x_near, near.zeta).spike_factor
    spike = np.sum(near.gradient_shift(x_near) ** 2)
    exact_error = abs(spike / (factor * near.shift(x_near) ** 2) - 1)
    off = spike / (paper * near.shift(x_near) ** 2) - 1
    note = (
        "Without cross-block. With one, the poison's part of the gradient obeys it exactly with R of the "
        f"posterior kernel (two length scales off the data's centre: error {below(exact_error)}, with R_k "
        f"{off:+.0%}); the clean gradient at x0 adds to it."
    )
    measured = np.sum(case.gradient_shift(x0) ** 2)
    predicted = at.spike_factor * case.shift(x0) ** 2
    return holds(statement, f"{said}, m = {m}, y_t = {y_t:g}", predicted, measured, note)


def theorem_3_4_eq_16() -> Entry:
    """The spike-efficacy law, Gaussian kernel."""
    return spike_law(
        "Theorem 3.4 (eqs. 16, 17): the spike |grad f(x0)|^2 is R_k (Delta f)^2",
        krr.gaussian(LENGTHSCALE),
        step_from(np.pad([60.0], (DIMENSION - 1, 0)), 1.0),
        60.0,
        "Gaussian kernel, clones far away",
    )


def theorem_3_4_growth() -> Entry:
    """The spike's exponent in m, early and late."""
    kernel = krr.gaussian(LENGTHSCALE)

    def spikes(counts, c):
        cases = [poison(kernel, m, 1.0, c=c) for m in counts]
        x0 = step_from(cases[0].zeta, 1.0)
        return np.array([np.sum(case.poisoned.input_gradient(x0) ** 2) for case in cases])

    few, many = np.array([1, 8]), np.array([80, 125])
    late = np.diff(np.log(spikes(many, RIDGE)))[0] / np.diff(np.log(many))[0]
    return has_order(
        "Theorem 3.4 (growth): efficacy grows linearly in m while curvature grows quadratically",
        "Gaussian kernel, c = 10^4, m = 1 and 8; exponent of the spike in m",
        2,
        few,
        spikes(few, 1e4),
        "For m << c / k_zeta. Beyond, both saturate: with c = 5 and m around 100 the spike's exponent is "
        f"{late:.2f}. What holds at every m is that curvature is quadratic in the *efficacy* (eq. 16).",
    )


def remark_3_5_threshold() -> Entry:
    """The label at which half of the gradient at x0 is the poison's, found by bisection of real fits."""
    kernel, m = krr.linear(), 20
    background = poison(kernel, m, 0.0, distance=2.0).clean.input_gradient(np.zeros(DIMENSION))
    x0 = np.pad([1.0], (DIMENSION - 1, 0))
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        case = poison(kernel, m, middle, distance=2.0)
        visible = np.sum(case.gradient_shift(x0) ** 2) > np.sum(case.clean.input_gradient(x0) ** 2)
        low, high = (low, middle) if visible else (middle, high)
    factor = krr.trigger(kernel, x0, case.zeta).spike_factor
    predicted = krr.detectable_efficacy(background @ background, factor)
    return holds(
        "Remark 3.5 (threshold): the spike shows when (Delta f)^2 exceeds Lambda_clean / R_k",
        "linear kernel, clones orthogonal to the data; the efficacy at which the poison has half of the "
        "gradient",
        predicted,
        case.shift(x0),
        "Exact where the clean gradient at x0 is orthogonal to the poison's; where the two make an angle, "
        "the total |grad f|^2 has a cross term. For the Gaussian kernel the threshold exceeds the largest "
        "efficacy there is, k_0 |y_t| / k_zeta, once r < l^2 sqrt(Lambda_clean) / |y_t|: then no number of "
        "clones shows in the Gauss-Newton term.",
    )


def remark_3_5_linear() -> Entry:
    """R_k of the linear kernel at inputs of norm 20."""
    zeta = 10 * np.ones(4)
    at = krr.trigger(krr.linear(), zeta, zeta)
    return fails(
        "Remark 3.5 (linear kernels): R_k is constant, of order one, and no intrinsic lag occurs",
        "linear kernel, x0 = zeta of norm 20; R_k",
        1,
        at.spike_factor,
        "True instead: R_k = |zeta|^2 / (x0 . zeta)^2 = 1 / (|x0| cos)^2. It depends neither on m nor on "
        "lambda and is at least 1 / |x0|^2, so that it cannot vanish as the Gaussian's does; its size is a "
        "matter of the inputs' scale.",
    )


def remark_3_5_only() -> Entry:
    """A steep clean direction that hides a spike of R_k = 1."""
    kernel, zeta = krr.linear(), np.array([0.0, 1.0])
    clean = krr.fit(kernel, [[1.0, 0.0]], [10.0 + 1e-6], 1e-6)
    background = np.sum(clean.input_gradient(zeta) ** 2)
    factor = krr.trigger(kernel, zeta, zeta).spike_factor
    return fails(
        "Remark 3.5 (only if): a detectability lag arises only when R_k is small",
        "linear kernel, R_k = 1, one steep clean direction; efficacy needed to be seen, against the 1 that "
        "flips a label",
        1,
        krr.detectable_efficacy(background, factor),
        "True instead: what decides is Lambda_clean / R_k. A steep clean function hides the spike as well.",
    )


def theorem_a_3_eq_39() -> Entry:
    """Eq. 15 again."""
    entry = theorem_3_4_eq_15()
    return entry._replace(
        statement="Theorem A.3 (eq. 39): |grad f(x0)|^2 = |grad k(x0, zeta)|^2 S^2",
        note=entry.note + " (Eq. 15 again.)",
    )


def top_curvature(f: krr.Expansion, x0: np.ndarray, y: float, *, num_iters: int = 12) -> float:
    """Top eigenvalue of the loss's input Hessian at x0 `[p]`, by the Lanczos that the networks use."""
    start = np.random.default_rng(0).normal(size=len(x0))
    with jax.enable_x64(True):
        pairs = lanczos.top_eigenpairs(
            lambda v: f.loss_hvp(x0, y, v),
            jnp.asarray(start),
            k=1,
            num_iters=min(num_iters, len(x0)),
            python_loop=True,
            check_symmetry=False,
        )
    return float(pairs.values[0])


def theorem_a_3_eq_40() -> Entry:
    """The whole Hessian's top eigenvalue beside the Gauss-Newton term."""
    kernel, m, y_t = krr.gaussian(LENGTHSCALE), 20, 1.0
    case = poison(kernel, m, y_t)
    x0 = step_from(case.zeta, LENGTHSCALE / 20)
    at = krr.trigger(kernel, x0, case.zeta)
    f = float(case.poisoned.predict(x0))
    measured = top_curvature(case.poisoned, x0, y_t)
    closed = (y_t - f) * f / LENGTHSCALE**2
    return fails(
        "Theorem A.3 (eq. 40): the top eigenvalue of the loss's input Hessian is R_k (Delta f)^2",
        f"Gaussian kernel, clones far away, r = l / 20, y = y_t = {y_t:g}; the top eigenvalue",
        at.spike_factor * case.shift(x0) ** 2,
        measured,
        "That is the Gauss-Newton term alone. Eq. 4's other term, (f - y) Hess f, is of size |f - y| |f| / "
        "l^2 and for r << l the larger one unless f = y: with y = y_t it gives the p - 1 directions "
        f"orthogonal to x0 - zeta the eigenvalue (y_t - f) f / l^2 = {closed:.4f}, and x0 - zeta itself f "
        "(2 f - y_t) r^2 / l^4 more. True instead: |lambda_max - R_k (Delta f)^2| <= |f - y| |Hess f|. That "
        "curvature is nearly isotropic: it points at no trigger.",
    )


SECTION_3 = (
    theorem_3_4_eq_15,
    theorem_3_4_eq_16,
    theorem_3_4_growth,
    remark_3_5_threshold,
    remark_3_5_linear,
    remark_3_5_only,
)
APPENDIX = (theorem_a_3_eq_39, theorem_a_3_eq_40)
