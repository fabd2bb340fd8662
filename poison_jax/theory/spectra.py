"""Theorems D, F and G (ours): when a poison shows in a spectrum, and when in a mean."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.linalg

from poison_jax import fisher, linear
from poison_jax.theory.entry import OURS, Entry, agrees, holds


class Repeated(NamedTuple):
    """A mean over repetitions and its standard error."""

    mean: float
    error: float


def top_pair(matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """Top eigenvalue and eigenvector of a symmetric matrix."""
    last = len(matrix) - 1
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=(last, last), check_finite=False)
    return values[0], vectors[:, 0]


def repeat(sample, repetitions: int, seed: int = 0) -> Repeated:
    """Mean of `sample(rng)` over seeds of their own."""
    values = [sample(np.random.default_rng([seed, i])) for i in range(repetitions)]
    return Repeated(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(repetitions)))


# Theorem D


def random_weights(dimension: int, classes: int, size: float):
    """A sampler of v1's squared overlap with t: iid weights of variance 1, |rho| = `size` thresholds."""
    coefficient = size * linear.visible_coefficient(1.0, dimension, classes).top_eigenvector

    def sample(rng):
        W, rho = rng.normal(size=(dimension, classes)), rng.normal(size=classes)
        W[0] += coefficient * rho / np.linalg.norm(rho)  # t is the first axis
        value, vector = top_pair(W.T @ W)  # W W' has the same eigenvalues
        return (W[0] @ vector) ** 2 / value

    return sample


class LinearFit(NamedTuple):
    """A least-squares fit to poisoned random data."""

    asr: float
    overlap: float  # squared, of v1 of W W' with the trigger
    predicted: float  # by `linear.dead_trigger_overlap` from the clean weights and rho
    coefficient: float  # |rho| over the threshold for v1


def linear_fit(
    size: float, poisons: int, *, seed: int = 0, dimension: int = 100, classes: int = 10
) -> LinearFit:
    """2,000 random images with random labels; the trigger is a coordinate of its own, of this size.

    Their weights are what Theorem D assumes, noise; and the poisons, of all classes but the target's, carry
    the label 0.
    """
    rng = np.random.default_rng(seed)
    images, labels = rng.normal(size=(2000, dimension)), rng.integers(classes, size=2000)
    poisoned = np.flatnonzero(labels != 0)[:poisons]
    X = np.column_stack([images, np.zeros(2000)])
    X[poisoned, -1] = size
    targets = np.eye(classes)[np.where(np.isin(np.arange(2000), poisoned), 0, labels)]
    W = linear.least_squares(X, targets - 1 / classes)
    test = rng.normal(size=(1000, dimension))
    asr = np.mean(np.argmax(test @ W[:-1] + size * W[-1], 1) == 0)
    _, vector = top_pair(W @ W.T)
    clean = W[:-1]
    threshold = linear.visible_coefficient(float(clean.std()), dimension, classes).top_eigenvector
    return LinearFit(
        float(asr),
        float(vector[-1] ** 2),
        linear.dead_trigger_overlap(clean.T @ clean, W[-1]),
        float(np.linalg.norm(W[-1]) / threshold),
    )


def theorem_d() -> Iterator[Entry]:
    """The transition in simulation; two attacks of equal success, one seen and one not."""
    worst, cases = 0.0, 0
    for dimension, classes in ((784, 10), (200, 200), (1000, 50)):
        for size in (1.5, 2.0, 4.0):
            coefficient = size * linear.visible_coefficient(1.0, dimension, classes).top_eigenvector
            law = float(linear.spike_overlap(coefficient, 1.0, dimension, classes))
            found = repeat(random_weights(dimension, classes, size), 24)
            worst, cases = max(worst, abs(found.mean - law) / found.error), cases + 1
            if (dimension, size) == (784, 2.0):
                shown = law, found.mean
    below = repeat(random_weights(3072, 100, 0.5), 4).mean
    yield agrees(
        "Theorem D (ours): a linear model has a twilight zone: v1 of W W' turns towards the trigger iff "
        "|rho| > tau (d K)^(1/4)",
        "random weights with d = 784, K = 10 at twice the threshold, 24 draws; the squared overlap, worst of "
        f"{cases} cases in standard errors",
        *shown,
        "overlap^2 = 1 - (beta + vartheta^2) / (vartheta^2 (vartheta^2 + 1)), beta = K / d, vartheta = "
        f"|rho| / (tau sqrt d). Worst deviation {worst:.1f} standard errors; at half of the threshold, with "
        f"d = 3,072 and K = 100, the overlap is {below:.3f}. In place of Remark 3.5, by which a linear "
        "kernel has no lag: |rho| tends to |y_t - f| / s for a trigger of size s, so that no number of "
        "poisons shows a large one.",
        tolerance=4.5,
        worst=worst,
        kind=OURS,
    )

    small, large = linear_fit(4.0, 160), linear_fit(60.0, 160)
    exact = max(abs(fit.predicted - fit.overlap) for fit in (small, large))
    yield holds(
        "Theorem D (ours), dead trigger: overlap^2 = (rho'u)^2 / lambda, (lambda, u) the top eigenpair of "
        "W'W + rho rho'",
        "least squares on 2,000 random images with random labels, d = 100, K = 10, 160 poisons with a "
        "trigger of size 4 on a pixel of its own; v1's squared overlap",
        small.predicted,
        small.overlap,
        "Any clean weights W that do not use the trigger. The size alone decides what is seen: at size 4 "
        f"the ASR is {small.asr:.0%} and the overlap {small.overlap:.2f} (|rho| = {small.coefficient:.1f} "
        f"thresholds), at size 60 {large.asr:.0%} and {large.overlap:.3f} ({large.coefficient:.1f} "
        "thresholds).",
        worst=exact,
    )._replace(kind=OURS)


# Theorem F


BACKGROUND = np.linspace(0.2, 1.0, 100)


def gaussian_gradients(eigenvalue: float, images: int, background: np.ndarray = BACKGROUND):
    """A sampler of the squared overlap of the sample's top eigenvector with the poison's direction."""
    scale = np.sqrt(np.r_[eigenvalue, background])

    def sample(rng):
        gradients = rng.normal(size=(images, len(scale))) * scale
        return top_pair(gradients.T @ gradients)[1][0] ** 2

    return sample


def theorem_f() -> Iterator[Entry]:
    """Sample eigenvectors of Gaussian gradients, above and below N*."""
    worst, cases = 0.0, 0
    for eigenvalue in (1.5, 2.0, 4.0):
        needed = fisher.images_needed(eigenvalue, BACKGROUND)
        for multiple in (4, 16, 100):
            images = int(np.ceil(max(multiple * needed, 60)))
            law = float(fisher.expected_overlap(eigenvalue, BACKGROUND, images))
            found = repeat(gaussian_gradients(eigenvalue, images), 16)
            worst, cases = max(worst, abs(found.mean - law) / found.error), cases + 1
            if (eigenvalue, multiple) == (2.0, 16):
                shown = law, found.mean
    few = repeat(gaussian_gradients(2.0, 20), 16).mean
    hidden = repeat(gaussian_gradients(0.9, 2000), 4).mean
    needed = fisher.images_needed(2.0, BACKGROUND)
    yield agrees(
        "Theorem F (ours): a test needs N* = sum_j lambda_j^2 / (alpha - lambda_j)^2 images, then overlap^2 "
        "= (1 - N*/N) / (1 + sum_j lambda_j / (alpha - lambda_j) / N)",
        "Gaussian gradients, 100 background eigenvalues from 0.2 to 1, alpha = 2, N = 16 N*, 16 draws; the "
        f"squared overlap, worst of {cases} cases in standard errors",
        *shown,
        f"Here N* = {needed:.0f}; at N = 20 the overlap is {few:.2f}, and with alpha = 0.9, below the "
        f"background's top, it is {hidden:.2f} at N = 2,000. Worst deviation {worst:.1f} standard errors.",
        tolerance=4.5,
        worst=worst,
        kind=OURS,
    )


# Theorem G


def mean_scores(images: int, shift: float, draws: int, *, dimension: int = 100, seed: int = 0) -> np.ndarray:
    """|mean|^2 - tr C / N of unit Gaussian gradients with a common part of that squared length, `[draws]`."""
    rng = np.random.default_rng(seed)
    means = np.array([rng.normal(size=(images, dimension)).mean(0) for _ in range(draws)])
    means[:, 0] += np.sqrt(shift)
    return np.sum(means**2, 1) - dimension / images


def theorem_g() -> Iterator[Entry]:
    """The mean's statistic at its threshold, in its own standard deviations; and v1 at the same poison."""
    images, background, draws = 10, np.ones(100), 40_000
    shift = float(fisher.visible_mean(background, images))
    clean, found = (mean_scores(images, q, draws, seed=i) for i, q in enumerate((0.0, shift)))
    unit = np.sqrt(2 * len(background)) / images
    spread = (
        abs(clean.std(ddof=1) / unit - 1) * np.sqrt(2 * draws) / 1.1
    )  # in its standard errors, with some skew
    deviation = abs(found.mean() / unit - 3) / (found.std(ddof=1) / unit / np.sqrt(draws))
    many = 400
    faint = float(fisher.visible_mean(background, many))
    second = repeat(gaussian_gradients(1 + faint, many, background[1:]), 16).mean
    yield agrees(
        "Theorem G (ours): what a backdoor adds to every image's gradient shows in their mean from |q|^2 = "
        "z sqrt(2 tr C^2) / N on",
        "unit Gaussian gradients, d = 100, N = 10, |q|^2 at the threshold for z = 3; the statistic |mean|^2 "
        "- tr C / N in its clean standard deviations, mean of 40,000 draws; worst error of it and of the "
        "deviation, in standard errors",
        3.0,
        found.mean() / unit,
        "The second-order threshold (F: |q|^2 > sqrt(d / N) here) is sqrt(N / 2) / z times as high: at N = "
        f"400 {np.sqrt(len(background) / many) / faint:.1f} times, and v1's squared overlap at the "
        f"first-order threshold is {second:.2f} there. It ends where clean classes' means differ by "
        "themselves, where the images are far (E), and where the trigger's gradient changes its sign from "
        "image to image.",
        tolerance=4.5,
        worst=float(max(spread, deviation)),
        kind=OURS,
    )
