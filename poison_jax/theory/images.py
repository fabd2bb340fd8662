"""The laws on real images: cloned dirty-label poisons at a trigger, in kernel ridge regression.

Binary targets, +1 for the target class and -1 for the others, pixels in [0, 1]. The poison zeta is one
non-target training image with the trigger; m clones of it carry the label +1. The trigger points x0 are
non-target *test* images with the trigger. Clean and poisoned fit have the same ridge c.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import pdist

from poison_jax import data, krr, poison
from poison_jax.errors import UserError

Y_T = 1.0
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

    def stamped(images):
        return _points(np.asarray(poison.stamp(jnp.asarray(_unit(images)), mask, value)))

    zeta, *_ = poisons = stamped(train.images[spare[: num_triggered + 1]])
    X = _points(_unit(train.images[:num_points]))
    median = float(np.median(pdist(X[:1000])))
    if not median > 0:
        raise UserError(f"{name}: most of the first {len(X[:1000])} training images are equal to each other")
    return Problem(
        name,
        X,
        _signs(train.labels[:num_points], target),
        zeta,
        poisons[1:],
        stamped(test.images[others[:num_triggered]]),
        _points(_unit(test.images[:2000])),
        _signs(test.labels[:2000], target),
        median,
    )


def _unit(images):
    return images / np.float32(255)


def _points(images):
    return images.reshape(len(images), -1).astype(np.float64)


def _signs(labels, target):
    return np.where(labels == target, 1.0, -1.0)


class Laws(NamedTuple):
    """Efficacy and spike `[m, t]` for every number of clones and trigger point."""

    efficacy: np.ndarray
    spike: np.ndarray


def measured(clean: krr.KRR, poisoned: krr.KRR, clones: np.ndarray, x0: np.ndarray) -> Laws:
    """By fits with m clones, against the clean fit; `poisoned` ends in as many clones as are asked for."""
    count, before = len(clean.targets), clean.predict(x0)
    gradient = clean.input_gradient(x0)
    fits = [poisoned.leading(count + int(m)) for m in clones]
    shifts = np.array([fit.predict(x0) - before for fit in fits])
    spikes = np.array([np.sum((fit.input_gradient(x0) - gradient) ** 2, 1) for fit in fits])
    return Laws(shifts, spikes)


def predicted(section: krr.Expansion, zeta, x0, clones, c: float, label: float) -> Laws:
    """Eqs. 11 and 16 for a kernel given by its section at zeta: the paper's, or the posterior one."""
    gain = krr.gain(clones, c, float(section.predict(zeta)))[:, None] * label
    return Laws(section.predict(x0) * gain, np.sum(section.input_gradient(x0) ** 2, 1) * gain**2)


def laws(problem: Problem, kernel: krr.Kernel, c: float, clones: np.ndarray) -> Arrays:
    """Measured, the paper's law, and the exact law, at every trigger point; and what the clean data say."""
    n, x0, zeta = len(problem.y), problem.triggered, problem.zeta
    copies = int(max(clones))
    X = np.vstack([problem.X, np.tile(zeta, (copies, 1))])
    poisoned = krr.fit(kernel, X, np.concatenate([problem.y, np.full(copies, Y_T)]), c)
    clean = poisoned.leading(n)
    with jax.enable_x64(True):
        section = krr.Expansion(kernel, jnp.asarray(zeta)[None], jnp.ones(1))
    open_part, at_zeta = clean.posterior(zeta), float(clean.predict(zeta))
    found = measured(clean, poisoned, clones, x0)
    paper = predicted(section, zeta, x0, clones, c, Y_T)
    exact = predicted(open_part, zeta, x0, clones, c, Y_T - at_zeta)
    accuracy = np.mean((clean.predict(problem.test) > 0) == (problem.test_y > 0))
    return {
        "efficacy": found.efficacy,
        "spike": found.spike,
        "paper_efficacy": paper.efficacy,
        "paper_spike": paper.spike,
        "exact_efficacy": exact.efficacy,
        "exact_spike": exact.spike,
        "clean_score": clean.predict(x0),
        "clean_curvature": np.sum(clean.input_gradient(x0) ** 2, 1),
        "clean_at_zeta": np.array(at_zeta),
        "open_at_zeta": np.array(float(open_part.predict(zeta))),
        "k_zeta": np.array(float(section.predict(zeta))),
        "clean_accuracy": np.array(accuracy),
    }


def sweep(
    problem: Problem, lengthscales, ridges, clones, advance: Callable[[], None] = lambda: None
) -> Arrays:
    """`laws` for every length scale (in median distances) and ridge, stacked: arrays `[l, c, ...]`."""
    clones = np.sort(clones)
    rows = []
    for length in lengthscales:
        kernel = krr.gaussian(length * problem.median_distance)
        row = []
        for c in ridges:
            row.append(laws(problem, kernel, c, clones))
            advance()
        rows.append(row)
    result = {key: np.array([[cell[key] for cell in row] for row in rows]) for key in rows[0][0]}
    return result | {
        "lengthscales": np.asarray(lengthscales, float),
        "ridges": np.asarray(ridges, float),
        "clones": clones,
        "distances": np.linalg.norm(problem.triggered - problem.zeta, axis=1),
        "median_distance": np.array(problem.median_distance),
        "points": np.array(problem.X.shape),
    }


def summary(arrays: Arrays) -> list[dict[str, float | int | None]]:
    """What a `sweep` found, one dict for every length scale and ridge; medians over the trigger points.

    `asr`, `efficacy` and the ratios of measured to the paper's law (`efficacy_of_law`; `factor_of_law` for
    R, spike over squared efficacy) are those of the most clones. `m_works`, `m_seen`, `m_seen_by_law` are the
    smallest m at which half of the trigger points have a positive score; have more of the poison's
    gradient than of the clean one (Remark 3.5); and should have, by the paper's law. None: at no m.
    """
    clones, rows = arrays["clones"], []

    def first(reached):  # [m, t]
        enough = np.flatnonzero(reached.mean(1) >= 0.5)
        return int(clones[enough[0]]) if enough.size else None

    for i, length in enumerate(arrays["lengthscales"]):
        for j, ridge in enumerate(arrays["ridges"]):
            cell = {key: arrays[key][i, j] for key in arrays if arrays[key].ndim >= 2 and key != "points"}
            scores = cell["clean_score"] + cell["efficacy"]
            with np.errstate(divide="ignore", invalid="ignore"):  # a kernel so short that nothing moves
                factor = cell["spike"][-1] / cell["efficacy"][-1] ** 2
                by_law = cell["paper_spike"][-1] / cell["paper_efficacy"][-1] ** 2
                share = cell["efficacy"][-1] / cell["paper_efficacy"][-1]
                of_law = factor / by_law
                errors = [np.abs(cell[f"exact_{key}"] / cell[key] - 1).max() for key in ("efficacy", "spike")]
            rows.append(
                {
                    "lengthscale": float(length),
                    "ridge": float(ridge),
                    "clean_accuracy": float(cell["clean_accuracy"]),
                    "asr": float(np.mean(scores[-1] > 0)),
                    "efficacy": float(np.median(cell["efficacy"][-1])),
                    "efficacy_of_law": float(np.median(share)),
                    "factor_of_law": float(np.median(of_law)),
                    "worst_error_of_exact_law": float(max(errors)),
                    "explained_of_k_zeta": float(1 - cell["open_at_zeta"] / cell["k_zeta"]),
                    "clean_score_at_zeta": float(cell["clean_at_zeta"]),
                    "m_works": first(scores > 0),
                    "m_seen": first(cell["spike"] > cell["clean_curvature"]),
                    "m_seen_by_law": first(cell["paper_spike"] > cell["clean_curvature"]),
                }
            )
    return rows
