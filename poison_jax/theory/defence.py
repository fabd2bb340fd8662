"""On real images: from a clone to a natural trigger point, and the penalty against the poison."""

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import krr
from poison_jax.theory.images import Y_T, Arrays, Problem
from poison_jax.theory.spikes import top_curvature

STEPS = np.array([0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0])


def approach(problem: Problem, length: float, c: float, m: int, paths: int = 3) -> Arrays:
    """From a clone to a natural trigger point: x0 = zeta + s (x - zeta), every point with the trigger.

    Efficacy, the poison's Gauss-Newton spike, and the top eigenvalue of the loss's input Hessian (y = +1)
    without and with the poison, over STEPS for a few x: arrays `[paths, steps]`.
    """
    kernel = krr.gaussian(length * problem.median_distance)
    X = np.vstack([problem.X, np.tile(problem.zeta, (m, 1))])
    poisoned = krr.fit(kernel, X, np.concatenate([problem.y, np.full(m, Y_T)]), c)
    clean = poisoned.leading(len(problem.y))
    ends = problem.triggered[:paths]
    points = problem.zeta + STEPS[None, :, None] * (ends - problem.zeta)[:, None]
    flat = points.reshape(-1, points.shape[-1])
    gradient = poisoned.input_gradient(flat) - clean.input_gradient(flat)
    shape = points.shape[:2]
    return {
        "ratios": np.linalg.norm(points - problem.zeta, axis=-1) / kernel.lengthscale,
        "efficacy": (poisoned.predict(flat) - clean.predict(flat)).reshape(shape),
        "spike": np.sum(gradient**2, 1).reshape(shape),
        "full": np.array([top_curvature(poisoned, x, Y_T) for x in flat]).reshape(shape),
        "full_clean": np.array([top_curvature(clean, x, Y_T) for x in flat]).reshape(shape),
        "label": np.array([length, c, m]),
    }


KAPPAS = np.concatenate([[0.0], np.geomspace(1e-2, 1e4, 13)])


def defend(problem: Problem, length: float, c: float, m: int, count: int) -> Arrays:
    """The gradient penalty against clones and against a cluster of different triggered images.

    The corrected system of eq. 26, Gaussian and linear kernel, on the first `count` points and m poisons:
    degrees of freedom, clean accuracy, mean score and attack success at the trigger points, against kappa.
    """
    result: Arrays = {"kappas": KAPPAS, "label": np.array([length, c, m, count])}
    result["always_rest"] = np.array(np.mean(problem.test_y < 0))  # accuracy of f = -1
    kernels = {
        "gaussian": krr.gaussian(length * problem.median_distance),
        "linear": krr.linear(),
    }
    poisons = {"clones": np.tile(problem.zeta, (m, 1)), "cluster": problem.cluster[:m]}
    y = np.concatenate([problem.y[:count], np.full(m, Y_T)])
    for name, kernel in kernels.items():
        for kind, points in poisons.items():
            X = np.vstack([problem.X[:count], points])
            with jax.enable_x64(True):
                K, test, triggered, at_zeta = (
                    np.asarray(kernel.against(X)(jnp.asarray(Z), jnp.asarray(X)))
                    for Z in (X, problem.test, problem.triggered, problem.zeta[None])
                )
            path = krr.PenalisedPath(K, krr.gradient_gram(kernel, X))
            alphas = np.array([path.alpha(y, c, kappa) for kappa in KAPPAS])
            scores = alphas @ triggered.T
            result |= {
                f"{name}_{kind}_df": np.array([path.degrees_of_freedom(c, kappa) for kappa in KAPPAS]),
                f"{name}_{kind}_accuracy": np.mean((alphas @ test.T > 0) == (problem.test_y > 0), 1),
                f"{name}_{kind}_score": scores.mean(1),
                f"{name}_{kind}_asr": np.mean(scores > 0, 1),
                f"{name}_{kind}_at_zeta": (alphas @ at_zeta.T)[:, 0],
            }
    return result
