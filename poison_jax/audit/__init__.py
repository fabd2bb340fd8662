"""Is this model poisoned? An answer with an error rate that holds, for a network of anybody's.

    subject = Subject(apply_fn, variables, normalisation=(mean, std))
    report = audit(subject, images, labels, references=references(config, n=19))
    report.verdict, report.p_value, report.target, report.trigger, report.table

A few hundred clean images with labels are needed, and clean networks of the same recipe (`references`), by
which every detector is calibrated the same way. Nobody is ever called clean.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from poison_jax import calibration, metrics
from poison_jax.arrays import class_labels
from poison_jax.audit import (
    activation_clustering,
    common_gradient,
    curvature,
    maximum_margin,
    neural_cleanse,
    scale_up,
    scan,
    spectral_signatures,
    strip,
)
from poison_jax.audit.checks import checked_logits, checked_pixels, generator
from poison_jax.audit.detector import DataScore, Detector, NetworkScore
from poison_jax.audit.report import BLIND, Finding, Report, Row
from poison_jax.errors import UserError
from poison_jax.lanczos import Eigenpairs
from poison_jax.subject import Subject

__all__ = ["DataScore", "Detector", "NetworkScore", "Report", "Subject", "audit", "data", "inputs"]

VERDICT = (curvature.DETECTOR, common_gradient.NORM, common_gradient.LOCALISATION)  # fixed beforehand
SHOWN = (*VERDICT, common_gradient.FLIPS)  # of every network
OTHERS = {  # of networks
    "maximum_margin": maximum_margin.DETECTOR,
    "neural_cleanse": neural_cleanse.DETECTOR,
}
OF_DATA = {
    "activation_clustering": activation_clustering.DETECTOR,
    "scan": scan.DETECTOR,
    "spectral_signatures": spectral_signatures.DETECTOR,
}
OF_INPUTS = {"scale_up": scale_up.DETECTOR, "strip": strip.DETECTOR}


class Measured(NamedTuple):
    """What the verdict is made of, of one network, and what stands beside it."""

    pairs: Eigenpairs  # of the input Hessian
    gradients: np.ndarray  # [K, H, W, C], common gradients
    flip_rates: np.ndarray  # [K], along each of them
    scores: tuple[NetworkScore, ...]  # one for each of `SHOWN`


def measure(
    subject: Subject, images: np.ndarray, labels: np.ndarray, *, key: int = 0, batch_size: int | None = None
) -> Measured:
    """A network's statistics, by one pass for the Hessian, one for the gradients, one along each of them.

    Args:
        subject: the network.
        images, labels: as of `audit`.
        key, batch_size: as of `audit`.
    """
    pairs = curvature.eigenpairs(subject, images, labels, key=key, batch_size=batch_size)
    gradients = common_gradient.common_gradients(
        subject.apply_fn, subject.variables, subject.normalise(images), labels, batch_size=batch_size
    )
    scores = [
        curvature.score_of(pairs, images.shape[1:]),
        common_gradient.score_of(gradients, common_gradient.norms),
        common_gradient.score_of(gradients, common_gradient.localisations),
    ]
    rates = common_gradient.flip_rates(subject, images, labels, gradients, batch_size=batch_size)
    return Measured(pairs, gradients, rates, (*scores, common_gradient.flips_score_of(rates, gradients)))


def audit(
    subject: Subject,
    images: np.ndarray,
    labels: np.ndarray,
    references: Sequence[Subject] = (),
    *,
    alpha: float = 0.05,
    key: int = 0,
    batch_size: int | None = None,
    detectors: Sequence[Detector] = (),
    on_model: Callable[[], None] = lambda: None,
) -> Report:
    """Compares a network with clean references by its input curvature and common gradients.

    One score decides, fixed beforehand: the largest of how far, in median absolute deviations from the other
    networks, the log of the input Hessian's top eigenvalue lies (on either side), and the logs of the norm
    and localisation ratios of the common gradients (above). It is taken of every network against all others,
    the subject among them; `p = (1 + references with a score at least as large) / (N + 1)`.

    Args:
        subject: the network in question.
        images: float `[N, H, W, C]` in [0, 1], clean and of the data that it was trained for; a few hundred.
        labels: int `[N]`, their classes.
        references: clean networks of the same recipe. At least `needed(alpha)` of them (19 for .05), or the
            answer is "cannot say"; without any there are scores and no p.
        alpha: probability, at most, with which a clean network of the recipe is called poisoned-like.
        key: integer seed of whatever the detectors draw.
        batch_size: images at once; changes memory, not the result.
        detectors: further detectors of networks (of `OTHERS`), shown at the same calibration; like the flip
            rate, which is always shown, they never enter the verdict.
        on_model: called after each network.

    Returns:
        `Report`.

    Raises:
        UserError: images that are not in [0, 1] or do not fit the network, labels that are no classes, fewer
            images than classes, a network that gives probabilities instead of logits, references of another
            recipe, shape or number of classes or whose training failed.
    """
    least = needed(alpha)
    images, labels, logits = checked_input(subject, images, labels, batch_size=batch_size)
    accuracy, num_classes = float(np.mean(logits.argmax(-1) == labels)), logits.shape[1]
    if not metrics.beats_chance(accuracy, labels):
        reason = f"accuracy {accuracy:.1%} on these images, no better than chance: is `normalisation` right?"
        return Report("cannot say", reason, accuracy, alpha, classes=_names(subject, labels))
    for i, reference in enumerate(references, 1):
        _check_reference(subject, reference, i, images, labels, num_classes, batch_size)

    # Every detector on every network, the subject first; of the references numbers alone are kept.
    options = {"key": key, "batch_size": batch_size}
    statistics, flip_rates = [], []
    for i, model in enumerate((subject, *references)):
        measured = measure(model, images, labels, **options)
        others = [detector.score(model, images, labels, **options) for detector in detectors]
        statistics.append([score.statistic for score in (*measured.scores, *others)])
        flip_rates.append(measured.flip_rates)
        if i == 0:
            pairs, scores = measured.pairs, [*measured.scores, *others]
        del measured, others
        on_model()

    # The one score, of each network against all others; and every detector by itself, the same way.
    values = np.array(statistics)
    used = [*SHOWN, *detectors]
    rows = [_row(detector, values[:, i], scores[i]) for i, detector in enumerate(used)]
    target, trigger = scores[1].target, scores[1].picture
    p_value, score = None, None
    if len(references) > 1:
        away = calibration.deviations(values[:, : len(VERDICT)], [detector.two_sided for detector in VERDICT])
        combined = away.max(axis=1)
        score, p_value = float(combined[0]), calibration.p_value(combined[0], combined[1:])
        if away[0, 2] > away[0, 1]:  # a patch: localisation says more about the class
            target, trigger = scores[2].target, scores[2].picture
    flips = [float(own[target]) for own in flip_rates]
    verdict, reason = _verdict(p_value, len(references), least, alpha)
    if verdict == "not distinguishable":
        reason += _beside(rows[len(VERDICT) :], alpha)
    return Report(
        verdict,
        reason,
        accuracy,
        alpha,
        p_value=p_value,
        score=score,
        target=target,
        trigger=trigger,
        flip_rate=flips[0],
        reference_flip_rates=tuple(flips[1:]),
        eigenpairs=pairs,
        references=len(references),
        table=tuple(rows),
        classes=_names(subject, labels),
        example=images[0],
    )


def data(
    subject: Subject,
    images: np.ndarray,
    labels: np.ndarray,
    detector: Detector,
    *,
    clean: tuple[np.ndarray, np.ndarray],
    level: float = 0.05,
    key: int = 0,
    batch_size: int | None = None,
) -> Finding:
    """Which training examples look poisoned: conformal against held-out clean ones of the same label.

    Suspicions of different classes have scales of their own, and are not compared: an example of a label with
    M held-out clean images has a p of 1 / (M + 1) at the least, 1 where there are none. To flag k examples of
    N takes about N / (k level) clean images of their labels.

    Args:
        subject: the network.
        images, labels: the training data in question, in [0, 1].
        detector: one of `OF_DATA`.
        clean: images and labels that were not trained on and are known to be clean. A detector that learns
            from clean images (`uses_clean`: SCAn) gets half of them, drawn by `key`, and is calibrated by the
            rest.
        level: of the list that is flagged, the expected share of clean examples (Benjamini-Hochberg).
        key, batch_size: as of `audit`.

    Raises:
        UserError: bad input, as `audit`.
    """
    images, labels, _ = checked_input(subject, images, labels, batch_size=batch_size)
    held_out, held_labels, _ = checked_input(subject, *clean, batch_size=batch_size)
    options = {"key": key, "batch_size": batch_size}
    if detector.uses_clean:
        half, rest = _halves(len(held_out), key)
        options["clean"] = held_out[half], held_labels[half]
        held_out, held_labels = held_out[rest], held_labels[rest]
    # Scored together: what is clean must be seen as the examples are.
    both, both_labels = np.concatenate([images, held_out]), np.concatenate([labels, held_labels])
    score = detector.score(subject, both, both_labels, **options)
    suspicion, of_clean = np.split(score.suspicion, [len(images)])
    p = np.ones(len(images))
    for label in np.unique(labels):
        own = labels == label
        p[own] = calibration.p_values(suspicion[own], of_clean[held_labels == label])
    return Finding(suspicion, p, calibration.benjamini_hochberg(p, level))


def inputs(
    subject: Subject,
    suspects: np.ndarray,
    clean: np.ndarray,
    detector: Detector,
    *,
    level: float = 0.05,
    key: int = 0,
    batch_size: int | None = None,
) -> Finding:
    """Which inputs look triggered: conformal against one half of the clean ones, with the help of the other.

    The halves are drawn by `key`.

    Args:
        subject: the network.
        suspects: float `[N, H, W, C]` in [0, 1].
        clean: the same, `[M, H, W, C]`, M >= 2, known to be clean and not trained on.
        detector: one of `OF_INPUTS`.
        level: of the list that is flagged, the expected share of clean inputs (Benjamini-Hochberg).
        key, batch_size: as of `audit`.

    Raises:
        UserError: bad input, as `audit`.
    """
    suspects, clean = checked_pixels(suspects), checked_pixels(clean, "clean images")
    if len(clean) < 2:
        raise UserError(f"{len(clean)} clean image: give at least two, better a hundred")
    for given in (suspects, clean):
        checked_logits(subject, given, batch_size=batch_size)
    half, rest = _halves(len(clean), key)
    options = {"key": key, "batch_size": batch_size}
    suspicion = np.asarray(detector.score(subject, suspects, clean[half], **options))
    p = calibration.p_values(suspicion, detector.score(subject, clean[rest], clean[half], **options))
    return Finding(suspicion, p, calibration.benjamini_hochberg(p, level))


def _halves(count: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of two halves, drawn: the images may come in an order of their labels."""
    order = generator(key).permutation(count)
    return order[::2], order[1::2]


def needed(alpha: float) -> int:
    """References without which p cannot reach alpha; two at least, of which one says how far the other lies.

    Raises:
        UserError: alpha outside (0, 1).

    >>> needed(0.05), needed(0.01), needed(0.9)
    (19, 99, 2)
    """
    if not 0 < alpha < 1:
        raise UserError(f"alpha = {alpha}: use a number between 0 and 1")
    return max(int(np.ceil(1 / alpha - 1e-9)) - 1, 2)


def _row(detector: Detector, values: np.ndarray, score: NetworkScore) -> Row:
    p = None
    if len(values) > 2:
        away = calibration.deviations(values, detector.two_sided)
        p = calibration.p_value(away[0], away[1:])
    spread = (float(values[1:].min()), float(values[1:].max())) if len(values) > 1 else None
    return Row(
        detector.name,
        detector.statistic,
        float(values[0]),
        spread,
        p,
        score.target,
        score.authors,
        dict(score.others),
    )


def _verdict(p_value: float | None, references: int, least: int, alpha: float) -> tuple[str, str]:
    if not references:
        return "cannot say", f"there is nothing to compare with: train {least} references or more"
    if references < least:
        return "cannot say", f"too few references ({references}) to reach p = {alpha:g}: it takes {least}"
    if p_value <= alpha:
        return "poisoned-like", f"p = {p_value:.3g}"
    return "not distinguishable", f"from {references} clean references (p = {p_value:.2g}); {BLIND}"


def _beside(rows: list[Row], alpha: float) -> str:
    """What stands out to detectors that do not enter the verdict."""
    found = [f"{row.detector} (p = {row.p_value:.2g})" for row in rows if row.p_value <= alpha]
    return f"; beside the verdict stands out: {', '.join(found)}" if found else ""


def checked_input(
    subject: Subject, images: np.ndarray, labels: np.ndarray, *, batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and the logits of the images; what cannot be audited is refused.

    Args:
        subject, images, labels, batch_size: as of `audit`.

    Raises:
        UserError: bad input, as `audit`.
    """
    images = checked_pixels(images)
    logits = checked_logits(subject, images, batch_size=batch_size)
    num_classes = logits.shape[1]
    if num_classes < 2:
        raise UserError("the network has one class: there is nothing to be taken for something else")
    labels = class_labels(labels, len(images), num_classes)
    if len(images) < num_classes:
        raise UserError(
            f"{len(images)} images of {num_classes} classes: give one a class at least, better fifty"
        )
    return images, labels, logits


def _check_reference(subject, reference, number, images, labels, num_classes, batch_size):
    if subject.recipe and reference.recipe and subject.recipe != reference.recipe:
        raise UserError(
            f"reference {number} was trained by {reference.recipe}, the subject by {subject.recipe}: "
            "references of another recipe calibrate nothing"
        )
    logits = checked_logits(reference, images, batch_size=batch_size, name=f"reference {number}")
    if logits.shape[1] != num_classes:
        raise UserError(
            f"reference {number} tells {logits.shape[1]} classes apart, the subject {num_classes}: give "
            "references of the subject's classes"
        )
    accuracy = float(np.mean(logits.argmax(-1) == labels))
    if not metrics.beats_chance(accuracy, labels):
        raise UserError(
            f"reference {number} has an accuracy of {accuracy:.1%}: its training failed, leave it out"
        )


def _names(subject: Subject, labels: np.ndarray) -> tuple[str, ...]:
    return subject.classes or tuple(str(c) for c in range(int(labels.max()) + 1))
