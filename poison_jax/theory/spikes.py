"""Theorem 3.4, Remark 3.5 and Theorem A.3: the spike in the input Hessian, and when it shows."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import krr, lanczos
from poison_jax.theory import spectra
from poison_jax.theory.clones import DIMENSION, GAUSSIAN, LENGTHSCALE, RIDGE, poison, step_from
from poison_jax.theory.entry import DEFINITION, REPEATED, Entry, below, fails, has_order, holds, misprint


def theorem_3_4() -> Iterator[Entry]:
    """The spike at a label that is not 1, against the efficacy, and its growth with m."""
    m, y_t = 20, 2.0
    case = poison(GAUSSIAN, m, y_t)
    x0 = step_from(case.zeta, 1.0)
    at, S = krr.trigger(GAUSSIAN, x0, case.zeta), krr.gain(m, case.c, 1.0)
    measured = np.sum(case.poisoned.input_gradient(x0) ** 2)
    yield misprint(
        "Theorem 3.4 (eq. 15): the spike |grad f(x0)|^2 is |grad k(x0, zeta)|^2 S^2",
        f"Gaussian kernel, clones far away, y_t = {y_t:g}",
        at.gradient_squared * S**2,
        at.gradient_squared * (y_t * S) ** 2,
        measured,
        "A factor y_t^2 is missing, as eqs. 9 and 16 show: with it the law is exact. Nothing is lost for "
        "labels of +-1.",
    )

    near = poison(GAUSSIAN, m, y_t, distance=3.0)
    x_near = step_from(near.zeta, 1.0)
    effect = krr.clone_effect(near.clean, near.zeta, y_t, m)
    of_posterior = np.sum(effect.input_gradient(x_near) ** 2) / effect.predict(x_near) ** 2
    of_kernel = krr.trigger(GAUSSIAN, x_near, near.zeta).spike_factor
    factor = near.spike(x_near) / near.shift(x_near) ** 2
    yield holds(
        "Theorem 3.4 (eqs. 16, 17): the spike |grad f(x0)|^2 is R_k (Delta f)^2",
        f"Gaussian kernel, clones far away, m = {m}, y_t = {y_t:g}",
        at.spike_factor * case.shift(x0) ** 2,
        case.spike(x0),
        "Without cross-block. With one, the poison's part of the gradient obeys it exactly with R of the "
        "posterior kernel (two length scales off the data's centre: error "
        f"{below(factor / of_posterior - 1)}, with R_k {factor / of_kernel - 1:+.0%}); the clean gradient at "
        "x0 adds to it.",
    )

    def spikes(counts, c):
        cases = [poison(GAUSSIAN, m, 1.0, c=c) for m in counts]
        return np.array([np.sum(case.poisoned.input_gradient(x0) ** 2) for case in cases])

    few, many = np.array([1, 8]), np.array([80, 125])
    late = np.diff(np.log(spikes(many, RIDGE)))[0] / np.diff(np.log(many))[0]
    yield has_order(
        "Theorem 3.4 (growth): efficacy grows linearly in m while curvature grows quadratically",
        "Gaussian kernel, c = 10^4, m = 1 and 8; exponent of the spike in m",
        2,
        few,
        spikes(few, 1e4),
        "For m << c / k_zeta. Beyond, both saturate: with c = 5 and m around 100 the spike's exponent is "
        f"{late:.2f}. What holds at every m is that curvature is quadratic in the *efficacy* (eq. 16).",
    )


def remark_3_5() -> Iterator[Entry]:
    """When the spike shows: where half of the gradient is the poison's; inputs' scale; a steep clean fit."""
    kernel, m, x0 = krr.linear(), 20, np.pad([1.0], (DIMENSION - 1, 0))
    background = poison(kernel, m, 0.0, distance=2.0).clean.input_gradient(np.zeros(DIMENSION))
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        case = poison(kernel, m, middle, distance=2.0)
        visible = case.spike(x0) > np.sum(case.clean.input_gradient(x0) ** 2)
        low, high = (low, middle) if visible else (middle, high)
    factor = krr.trigger(kernel, x0, case.zeta).spike_factor
    yield holds(
        "Remark 3.5 (threshold): the spike shows when (Delta f)^2 exceeds Lambda_clean / R_k",
        "linear kernel, clones orthogonal to the data; the efficacy at which the poison has half of the "
        "gradient",
        np.sqrt(background @ background / factor),
        case.shift(x0),
        "It says when a spike counts as seen: where the poison's part of the gradient is the larger one, as "
        "here, by eq. 16. Where the clean gradient at x0 and the poison's make an angle, the total |grad "
        "f|^2 has a cross term. For the Gaussian kernel the threshold exceeds the largest efficacy there "
        "is, k_0 |y_t| / k_zeta, once r < l^2 sqrt(Lambda_clean) / |y_t|: then no number of clones shows in "
        "the Gauss-Newton term.",
    )._replace(kind=DEFINITION)

    large, zeta = spectra.linear_fit(60.0, 160), 10 * np.ones(4)
    yield fails(
        "Remark 3.5 (linear kernels): R_k is constant, of order one, and no intrinsic lag occurs",
        f"least squares on 2,000 random images, 160 poisons with a trigger of size 60, ASR {large.asr:.0%}; "
        "the trigger's coefficients in units of what shows in v1, said to be at least 1",
        1,
        large.coefficient,
        "True instead: Theorem D. A linear model has a twilight zone, in which an attack that works shows "
        "in no top eigenvector, however many poisons there are (here its squared overlap is "
        f"{large.overlap:.3f}). R_k is constant in m and lambda, as it is for every kernel, and for a "
        "linear one 1 / (|x0| cos)^2 with the angle between x0 and zeta: it cannot vanish as the Gaussian's "
        "does, but its order is that of the inputs' scale "
        f"({krr.trigger(kernel, zeta, zeta).spike_factor:.4f} at x0 = zeta of norm 20).",
    )

    # One clean image (0.1, 0) with the label -1; the poison is the same with the trigger in the second pixel.
    clean, x0, y_t = krr.fit(kernel, [[0.1, 0.0]], [-1.0 - 1e-8], 1e-10), np.array([0.1, 1.0]), 1.0
    effect = krr.clone_effect(clean, x0, y_t, 1000)
    factor = np.sum(effect.input_gradient(x0) ** 2) / effect.predict(x0) ** 2
    needed = np.sqrt(np.sum(clean.input_gradient(x0) ** 2) / factor)
    yield fails(
        "Remark 3.5 (only if): a detectability lag arises only when R_k is small",
        f"linear kernel, targets +-1, R = {factor:.3g} (not small), clean score {clean.predict(x0):.3g} at "
        "the trigger point; the efficacy that flips it, and the efficacy needed to be seen",
        -clean.predict(x0),
        needed,
        "True instead: what decides is Lambda_clean / R_k. Many clones have an efficacy of "
        f"{effect.predict(x0):.3g} here: they flip the label, and are never seen, since the clean function "
        "is steep.",
    )


def theorem_a_3() -> Iterator[Entry]:
    """Eq. 15 again, and the whole Hessian's top eigenvalue beside the Gauss-Newton term."""
    eq_15 = next(theorem_3_4())
    yield eq_15._replace(
        statement="Theorem A.3 (eq. 39): |grad f(x0)|^2 = |grad k(x0, zeta)|^2 S^2",
        note=eq_15.note + " (Eq. 15 again.)",
        kind=REPEATED,
    )

    m, y_t = 20, 1.0
    case = poison(GAUSSIAN, m, y_t)
    x0 = step_from(case.zeta, LENGTHSCALE / 20)
    f = float(case.poisoned.predict(x0))
    closed = (y_t - f) * f / LENGTHSCALE**2
    yield fails(
        "Theorem A.3 (eq. 40): the top eigenvalue of the loss's input Hessian is R_k (Delta f)^2",
        f"Gaussian kernel, clones far away, r = l / 20, y = y_t = {y_t:g}; the top eigenvalue",
        krr.trigger(GAUSSIAN, x0, case.zeta).spike_factor * case.shift(x0) ** 2,
        top_curvature(case.poisoned, x0, y_t),
        "That is the Gauss-Newton term alone. Eq. 4's other term, (f - y) Hess f, is of size |f - y| |f| / "
        "l^2 and for r << l the larger one unless f = y: with y = y_t it gives the p - 1 directions "
        f"orthogonal to x0 - zeta the eigenvalue (y_t - f) f / l^2 = {closed:.4f}, and x0 - zeta itself f "
        "(2 f - y_t) r^2 / l^4 more. True instead: |lambda_max - R_k (Delta f)^2| <= |f - y| |Hess f|. That "
        "curvature is not hidden but nearly isotropic. Its top eigenvector is x0 - zeta where f > y_t / 2: "
        "the direction in which two triggered images differ, which has no part along a stamped trigger.",
    )


def top_curvature(f: krr.Expansion, x0: np.ndarray, y: float) -> float:
    """Top eigenvalue of the loss's input Hessian at x0 `[p]`, by the Lanczos that the networks use."""
    start = np.random.default_rng(0).normal(size=len(x0))
    with jax.enable_x64(True):
        pairs = lanczos.top_eigenpairs(
            lambda v: f.loss_hvp(x0, y, v),
            jnp.asarray(start),
            k=1,
            num_iters=min(12, len(x0)),
            python_loop=True,
            check_symmetry=False,
        )
    return float(pairs.values[0])
