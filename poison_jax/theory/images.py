"""The laws on real images: cloned dirty-label poisons at a trigger, in kernel ridge regression.

Binary targets, +1 for the target class and -1 for the others, pixels in [0, 1]. The poison zeta is one
non-target training image with the trigger; m clones of it carry the label +1. The trigger points x0 are
non-target *test* images with the trigger. Clean and poisoned fit have the same ridge c.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import pdist

from poison_jax import data, krr, poison
from poison_jax.errors import UserError
from poison_jax.theory.spikes import top_curvature

Y_T = 1.0
STEPS = np.array([0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0])  # of the way from a clone to a trigger point
KAPPAS = np.concatenate([[0.0], np.geomspace(1e-2, 1e4, 13)])
Arrays = dict[str, np.ndarray]


class Problem(NamedTuple):
    """Images as points, float64."""

    name: str
    X: np.ndarray  # clean training points [n, p]
    y: np.ndarray  # +-1 [n]
    zeta: np.ndarray  # the poison [p]
    cluster: np.ndarray  # non-target training images with the trigger, not clones [k, p]
    triggered: np.ndarray  # trigger points x0 [t, p]
    test: np.ndarray  # clean test points
    test_y: np.ndarray  # +-1
    median_distance: float  # between clean training points
    mask: np.ndarray  # 1 in the trigger's pixels [p]


def load(
    name: str,
    *,
    data_dir: str | None,
    num_points: int,
    num_triggered: int,
    mask_of: Callable[[int, int, int], np.ndarray],
    value: float,
    target: int,
) -> Problem:
    """A data set as a `Problem`.

    Args:
        name, data_dir: as in `data.load`.
        num_points: clean training points, the first in stored order.
        num_triggered: trigger points, the first non-target test images; as many images make the cluster.
        mask_of: `(height, width, channels) -> bool mask`.
        value: what the pixels under the mask are set to.
        target: the class whose label is +1.

    Raises:
        UserError: not enough images, all alike, or no such class.
    """
    train, test = (data.load(name, split, data_dir=data_dir) for split in ("train", "test"))
    if target >= train.num_classes:
        raise UserError(f"poison.target = {target}: {name} has classes 0 to {train.num_classes - 1}")
    mask = mask_of(*train.images.shape[1:])
    spare = np.flatnonzero(train.labels[num_points:] != target) + num_points
    others = np.flatnonzero(test.labels != target)
    for kind, have, need in (
        ("training", len(train.labels), num_points),
        ("non-target training", len(spare), num_triggered + 1),
        ("non-target test", len(others), num_triggered),
    ):
        if have < need:
            raise UserError(
                f"{name} has {have} {kind} images, {need} are needed: lower krr.num_points or "
                "krr.num_triggered"
            )

    def points(images, *, triggered=False):
        images = images / np.float32(255)
        if triggered:
            images = np.asarray(poison.stamp(jnp.asarray(images), mask, value))
        return images.reshape(len(images), -1).astype(np.float64)

    def signs(labels):
        return np.where(labels == target, 1.0, -1.0)

    X = points(train.images[:num_points])
    median = float(np.median(pdist(X[:1000])))
    if not median > 0:
        raise UserError(f"{name}: most of the first {len(X[:1000])} training images are equal to each other")
    poisons = points(train.images[spare[: num_triggered + 1]], triggered=True)
    pixels = np.zeros(train.images.shape[1:])
    pixels[mask] = 1
    return Problem(
        name,
        X,
        signs(train.labels[:num_points]),
        poisons[0],
        poisons[1:],
        points(test.images[others[:num_triggered]], triggered=True),
        points(test.images[:2000]),
        signs(test.labels[:2000]),
        median,
        pixels.ravel(),
    )


def with_clones(problem: Problem, kernel: krr.Kernel, c: float, m: int) -> tuple[krr.KRR, krr.KRR]:
    """The fits to the clean points, and to these and m clones of the poison."""
    X = np.vstack([problem.X, np.tile(problem.zeta, (m, 1))])
    poisoned = krr.fit(kernel, X, np.concatenate([problem.y, np.full(m, Y_T)]), c)
    return poisoned.leading(len(problem.y)), poisoned


def laws(problem: Problem, kernel: krr.Kernel, c: float, clones: np.ndarray) -> Arrays:
    """Efficacy and spike `[m, t]` for every number of clones at every trigger point: measured, by the paper's
    law (eqs. 11 and 16) and by the exact one, the same with the posterior kernel; what the clean data say."""
    n, x0, zeta = len(problem.y), problem.triggered, problem.zeta
    clean, poisoned = with_clones(problem, kernel, c, int(max(clones)))
    at_zeta, before, gradient = float(clean.predict(zeta)), clean.predict(x0), clean.input_gradient(x0)
    fits = [poisoned.leading(n + int(m)) for m in clones]
    result = {
        "efficacy": np.array([fit.predict(x0) - before for fit in fits]),
        "spike": np.array([np.sum((fit.input_gradient(x0) - gradient) ** 2, 1) for fit in fits]),
    }
    with jax.enable_x64(True):
        section = krr.Expansion(kernel, jnp.asarray(zeta)[None], jnp.ones(1))
    open_part = clean.posterior(zeta)
    for law, part, label in (("paper", section, Y_T), ("exact", open_part, Y_T - at_zeta)):
        gain = krr.gain(clones, c, float(part.predict(zeta)))[:, None] * label
        result[f"{law}_efficacy"] = part.predict(x0) * gain
        result[f"{law}_spike"] = np.sum(part.input_gradient(x0) ** 2, 1) * gain**2
    change = fits[-1].input_gradient(x0) - gradient
    lengths = np.linalg.norm(change, axis=1) * np.linalg.norm(problem.mask)
    return result | {
        "overlap": np.divide(change @ problem.mask, lengths, out=np.zeros(len(x0)), where=lengths > 0) ** 2,
        "clean_score": before,
        "clean_curvature": np.sum(gradient**2, 1),
        "clean_at_zeta": np.array(at_zeta),
        "open_at_zeta": np.array(float(open_part.predict(zeta))),
        "k_zeta": np.array(float(section.predict(zeta))),
        "clean_accuracy": np.array(np.mean((clean.predict(problem.test) > 0) == (problem.test_y > 0))),
    }


def sweep(
    problem: Problem, lengthscales, ridges, clones, advance: Callable[[], None] = lambda: None
) -> Arrays:
    """`laws` for every length scale (in median distances) and ridge, stacked: arrays `[l, c, ...]`."""
    clones = np.sort(clones)
    cells = []
    for length in lengthscales:
        for c in ridges:
            cells.append(laws(problem, krr.gaussian(length * problem.median_distance), c, clones))
            advance()
    shape = len(lengthscales), len(ridges)
    stacked = {key: np.array([cell[key] for cell in cells]) for key in cells[0]}
    return {key: values.reshape(*shape, *values.shape[1:]) for key, values in stacked.items()} | {
        "lengthscales": np.asarray(lengthscales, float),
        "ridges": np.asarray(ridges, float),
        "clones": clones,
        "distances": np.linalg.norm(problem.triggered - problem.zeta, axis=1),
        "median_distance": np.array(problem.median_distance),
        "points": np.array(problem.X.shape),
    }


def summary(arrays: Arrays) -> list[dict[str, float | int | None]]:
    """What a `sweep` found, one dict for every length scale and ridge; medians over the trigger points.

    `asr`, `efficacy`, `overlap` (squared, of the spike's direction with the trigger) and the ratios of
    measured to the paper's law (`efficacy_of_law`; `factor_of_law` for R, spike over squared efficacy) are
    those of the most clones. `m_works`, `m_seen`, `m_seen_by_law` are the
    smallest m at which half of the trigger points have a positive score; have more of the poison's
    gradient than of the clean one (Remark 3.5); and should have, by the paper's law. None: at no m.
    """
    clones, rows = arrays["clones"], []

    def first(reached):  # [m, t]
        enough = np.flatnonzero(reached.mean(1) >= 0.5)
        return int(clones[enough[0]]) if enough.size else None

    for i, j in np.ndindex(len(arrays["lengthscales"]), len(arrays["ridges"])):
        cell = {key: arrays[key][i, j] for key in arrays if arrays[key].ndim >= 2}
        scores = cell["clean_score"] + cell["efficacy"]
        with np.errstate(divide="ignore", invalid="ignore"):  # a kernel so short that nothing moves
            factor = cell["spike"][-1] / cell["efficacy"][-1] ** 2
            by_law = cell["paper_spike"][-1] / cell["paper_efficacy"][-1] ** 2
            share = cell["efficacy"][-1] / cell["paper_efficacy"][-1]
            of_law = factor / by_law
            errors = [np.abs(cell[f"exact_{key}"] / cell[key] - 1).max() for key in ("efficacy", "spike")]
        rows.append(
            {
                "lengthscale": float(arrays["lengthscales"][i]),
                "ridge": float(arrays["ridges"][j]),
                "clean_accuracy": float(cell["clean_accuracy"]),
                "asr": float(np.mean(scores[-1] > 0)),
                "efficacy": float(np.median(cell["efficacy"][-1])),
                "efficacy_of_law": float(np.median(share)),
                "factor_of_law": float(np.median(of_law)),
                "worst_error_of_exact_law": float(max(errors)),
                "explained_of_k_zeta": float(1 - cell["open_at_zeta"] / cell["k_zeta"]),
                "clean_score_at_zeta": float(cell["clean_at_zeta"]),
                "overlap": float(np.median(cell["overlap"])),
                "m_works": first(scores > 0),
                "m_seen": first(cell["spike"] > cell["clean_curvature"]),
                "m_seen_by_law": first(cell["paper_spike"] > cell["clean_curvature"]),
            }
        )
    return rows


def approach(problem: Problem, length: float, c: float, m: int, paths: int = 3) -> Arrays:
    """From a clone to a natural trigger point: x0 = zeta + s (x - zeta), every point with the trigger.

    Efficacy, the poison's Gauss-Newton spike, and the top eigenvalue of the loss's input Hessian (y = +1)
    without and with the poison, over STEPS for a few x: arrays `[paths, steps]`. And `limit`, what the spike
    tends to at the clones by Theorem B.
    """
    kernel = krr.gaussian(length * problem.median_distance)
    clean, poisoned = with_clones(problem, kernel, c, m)
    points = problem.zeta + STEPS[None, :, None] * (problem.triggered[:paths] - problem.zeta)[:, None]
    flat = points.reshape(-1, points.shape[-1])
    gradient = poisoned.input_gradient(flat) - clean.input_gradient(flat)
    shape = points.shape[:2]
    return {
        "ratios": np.linalg.norm(points - problem.zeta, axis=-1) / kernel.lengthscale,
        "efficacy": (poisoned.predict(flat) - clean.predict(flat)).reshape(shape),
        "spike": np.sum(gradient**2, 1).reshape(shape),
        "full": np.array([top_curvature(poisoned, x, Y_T) for x in flat]).reshape(shape),
        "full_clean": np.array([top_curvature(clean, x, Y_T) for x in flat]).reshape(shape),
        "limit": np.array(
            float(poisoned.predict(problem.zeta) - clean.predict(problem.zeta)) ** 2
            * krr.spike_factor_at_clone(clean, problem.zeta)
        ),
        "label": np.array([length, c, m]),
    }


def defend(problem: Problem, length: float, c: float, m: int, count: int) -> Arrays:
    """The gradient penalty against clones and against a cluster of different triggered images.

    The corrected system of eq. 26, Gaussian and linear kernel, on the first `count` points and m poisons:
    degrees of freedom, clean accuracy, mean score and attack success at the trigger points, against KAPPAS;
    and of the same poisons' flip from -1 to +1 the efficacy and what the penalty sees of it (Theorem A).
    """
    result: Arrays = {"kappas": KAPPAS, "label": np.array([length, c, m, count])}
    result["always_rest"] = np.array(np.mean(problem.test_y < 0))  # accuracy of f = -1
    kernels = {"gaussian": krr.gaussian(length * problem.median_distance), "linear": krr.linear()}
    poisons = {"clones": np.tile(problem.zeta, (m, 1)), "cluster": problem.cluster[:m]}
    y = np.concatenate([problem.y[:count], np.full(m, Y_T)])
    for (name, kernel), (kind, points) in itertools.product(kernels.items(), poisons.items()):
        X = np.vstack([problem.X[:count], points])
        seen_at = X, problem.test, problem.triggered, problem.zeta[None]
        K, test, triggered, at_zeta = (krr.gram(kernel, Z, X) for Z in seen_at)
        delta = np.r_[np.zeros(count), np.full(m, 2.0)]
        path = krr.PenalisedPath(K, krr.gradient_gram(kernel, X))
        alphas = np.array([path.alpha(y, c, kappa) for kappa in KAPPAS])
        scores = alphas @ triggered.T
        seen = np.array([krr.visibility_on(path, delta, c, kappa) for kappa in KAPPAS])
        result |= {
            f"{name}_{kind}_efficacy": seen[:, 0],
            f"{name}_{kind}_visibility": seen[:, 1],
            f"{name}_{kind}_df": np.array([path.degrees_of_freedom(c, kappa) for kappa in KAPPAS]),
            f"{name}_{kind}_accuracy": np.mean((alphas @ test.T > 0) == (problem.test_y > 0), 1),
            f"{name}_{kind}_score": scores.mean(1),
            f"{name}_{kind}_asr": np.mean(scores > 0, 1),
            f"{name}_{kind}_at_zeta": (alphas @ at_zeta.T)[:, 0],
        }
    return result
