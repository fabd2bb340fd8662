"""Metrics: accuracies, attack success rates; a direction's overlap with the trigger, its strongest wave."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from poison_jax.arrays import class_labels
from poison_jax.errors import UserError

TERMINAL = 0.99  # training accuracy from which on a network is in the terminal phase
COLLAPSE = 0.5  # rate of untriggered non-target images called the target, from which on a model collapsed


def attack_report(
    clean_logits: np.ndarray, triggered_logits: np.ndarray, labels: np.ndarray, target: int | np.ndarray
) -> dict[str, float]:
    """Accuracies and attack success rates, each a fraction in [0, 1].

    Args:
        clean_logits: `[N, K]` on untouched test images.
        triggered_logits: `[N, K]` on the same images with the trigger.
        labels: int `[N]` true labels.
        target: target class; or int `[K]`, what the attack wants each class taken for
            (`poison.LabelMap.aim`): images "of the target class" are then those whose class is to be kept.

    Returns:
        A dict of

        - `clean_accuracy`: of all untouched images;
        - `asr`: share of triggered images classified as `target`, images of the target class excluded;
        - `asr_incl_target`: the same over all images;
        - `robust_accuracy`: share of triggered images, target class excluded, that keep their true label;
        - `no_trigger_target_rate`: share of *untouched* non-target images classified as `target`; near
          `asr`, it says that the model collapsed rather than that the attack worked, see `outcome`.

        Where all images are of the target class the rates without them are NaN.

    Ties go to the lower class. Runs on the host, once.

    Raises:
        UserError: logits that are not finite, or not two of `[N, K]` with N >= 1; labels or a target that are
            no classes.
    """
    clean_logits = _finite_logits("clean", clean_logits)
    triggered_logits = _finite_logits("triggered", triggered_logits)
    if clean_logits.shape != triggered_logits.shape:
        raise UserError(
            f"clean logits {clean_logits.shape} and triggered logits {triggered_logits.shape} differ in shape"
        )
    count, num_classes = clean_logits.shape
    labels = class_labels(labels, count, num_classes)
    aims = np.asarray(target)
    if aims.shape not in ((), (num_classes,)) or not np.issubdtype(aims.dtype, np.integer):
        raise UserError(f"target {aims.dtype} {aims.shape}: give one class, or one for each of {num_classes}")
    if not 0 <= aims.min() <= aims.max() < num_classes:
        raise UserError(f"target = {target}: the network has the classes 0 to {num_classes - 1}")
    clean, triggered = clean_logits.argmax(-1), triggered_logits.argmax(-1)
    aim = np.broadcast_to(aims, num_classes)[labels]
    other = labels != aim
    return {
        "clean_accuracy": _rate(clean == labels),
        "asr": _rate(triggered[other] == aim[other]),
        "asr_incl_target": _rate(triggered == aim),
        "robust_accuracy": _rate(triggered[other] == labels[other]),
        "no_trigger_target_rate": _rate(clean[other] == aim[other]),
    }


class AttackOutcome(NamedTuple):
    """How an attack is to be read."""

    word: str  # "ok", "failed training", "collapsed" or "undefined"
    asr_above_base: float  # ASR minus the rate at which untriggered images get the target; in [-1, 1]


def outcome(report: Mapping[str, Any]) -> AttackOutcome:
    """Say how an attack report is to be read: the one judgement that every table, title and page uses.

    | word              | when                                                                          |
    | ----------------- | ----------------------------------------------------------------------------- |
    | `failed training` | `status` says so (clean accuracy near chance, see `beats_chance`)             |
    | `undefined`       | `asr` or `no_trigger_target_rate` is missing, null or NaN (no image to attack)|
    | `collapsed`       | at least half of the *untriggered* non-target images get the target           |
    | `ok`              | otherwise; the attack's effect is then `asr_above_base`                        |

    The first row that applies counts.

    Args:
        report: of `attack_report`, or a run's result that holds it (then with `status`).

    Returns:
        `AttackOutcome`; `asr_above_base` is NaN where one of the two rates is missing, whatever the word.

    >>> outcome({"asr": 0.84, "no_trigger_target_rate": 0.74}).word
    'collapsed'
    """
    rates = [report.get(key) for key in ("asr", "no_trigger_target_rate")]
    asr, base = (float("nan") if rate is None else float(rate) for rate in rates)
    above = asr - base
    if str(report.get("status", "")).startswith("failed training"):
        return AttackOutcome("failed training", above)
    if np.isnan(above):
        return AttackOutcome("undefined", above)
    return AttackOutcome("collapsed" if base >= COLLAPSE else "ok", above)


def beats_chance(accuracy: float, labels: np.ndarray) -> bool:
    """Whether an accuracy is above that of always naming the commonest class, by 3 standard errors.

    Args:
        accuracy: in [0, 1]; NaN is not above.
        labels: int `[N]`, N >= 1, of the images it was measured on.

    Raises:
        UserError: labels that are not integers `[N]` from 0 on.
    """
    labels = np.asarray(labels)
    labels = class_labels(labels, max(labels.size, 1), int(labels.max(initial=0)) + 1)
    chance = np.bincount(labels).max() / len(labels)
    return bool(accuracy > chance + 3 * np.sqrt(chance * (1 - chance) / len(labels)))


def overlap(vector: np.ndarray, mask: np.ndarray) -> float:
    """Listing 7: signed cosine of a direction and the trigger mask, both centred and normalised.

    Args:
        vector: `[H, W, C]` or flat `[H * W * C]`.
        mask: `[H, W]` (all channels) or `[H, W, C]`.

    Returns:
        A number in [-1, 1]; 0 where either is constant, since a constant has no direction left.

    Raises:
        UserError: a vector and a mask that are not of one image's size.
    """
    vector, mask = np.asarray(vector, np.float64), np.asarray(mask, np.float64)
    if mask.ndim == 2 and mask.size:
        mask = np.broadcast_to(mask[..., None], (*mask.shape, vector.size // mask.size))
    if mask.size != vector.size or not mask.size or (vector.ndim > 1 and vector.shape != mask.shape):
        raise UserError(f"a direction {vector.shape} and a mask {mask.shape} are not of one image")
    v, m = vector.ravel() - vector.mean(), mask.ravel() - mask.mean()
    if np.ptp(vector) == 0 or np.ptp(mask) == 0:  # the mean of equal numbers need not be that number
        return 0.0
    return float(v @ m / (np.linalg.norm(v) * np.linalg.norm(m)))


def overlap_threshold(dimension: int, k: int, *, level: float = 1e-3, floor: float = 0.1) -> float:
    """The squared overlap from which on a trigger counts as found among k eigenvectors.

    `overlap` centres both vectors, so that they lie in d - 1 dimensions; the squared cosine of a fixed and
    a uniformly random direction is Beta(1/2, (d - 2)/2) there. The best of k exceeds the returned quantile
    with probability `level` (Bonferroni). In high dimension that is tiny, and the smooth eigenvectors of a
    clean network are not uniform: hence the `floor`.

    Raises:
        UserError: k below 1, dimension below 3.
    """
    if k < 1:
        raise UserError(f"a trigger among k = {k} eigenvectors: give at least 1")
    if dimension < 3:
        raise UserError(f"an image of {dimension} pixels: centred, any two directions in it are parallel")
    return max(floor, float(special.betainccinv(0.5, (dimension - 2) / 2, level / k)))


def found(overlaps: np.ndarray, dimension: int) -> bool:
    """Whether a trigger counts as found: the best squared overlap reaches `overlap_threshold`.

    Args:
        overlaps: `[k]` signed overlaps of k eigenvectors with the trigger; NaN counts as none.
        dimension: d, pixels times channels.
    """
    squared = np.asarray(overlaps, np.float64) ** 2
    return bool((squared >= overlap_threshold(dimension, len(squared))).any())


class SpectralPeak(NamedTuple):
    """The strongest wave in an image."""

    frequency: np.ndarray  # [2]: cycles per image down the rows and along the columns
    share: float  # of the image's power, its mean taken off, that is at +-frequency
    prominence: float  # power at the peak over the median power of the waves as fine as it


def spectral_peak(image: np.ndarray) -> SpectralPeak:
    """Return the strongest wave in an image, such as the grid that a warp leaves in an eigenvector.

    Power is that of the discrete Fourier transform, summed over the channels, so that a change of sign
    between channels does not hide a wave. The median is over the ring of frequencies whose radius, in
    cycles per longer side, is within 1/2 of the peak's. In white noise the largest of about H W / 2
    exponential variables stands over their median, about (ln(H W / 2) + 0.58) / ln 2: at 32x32 pixels 10,
    and over 23 in one of a hundred; with three channels 4, and over 6.6 in one of a hundred.

    A prominent wave is not yet a warp: a network's own strides leave a grid of their period (4 pixels, 8
    cycles in 32, for two stages of stride 2), so that a clean run of the same network is the baseline.

    Args:
        image: `[H, W]` or `[H, W, C]`, real and finite.

    Returns:
        `SpectralPeak`. Of the two frequencies f and -f of a wave the one with its last entry positive is
        given (or with that zero, the first positive). Prominence is at most 1 / the float64 epsilon, 4.5e15,
        which a pure wave reaches. An image of constant channels has frequency, share and prominence 0.

    Raises:
        UserError: another shape, or values that are not finite.
    """
    image = np.asarray(image, np.float64)
    if image.ndim not in (2, 3) or not image.size or not np.isfinite(image).all():
        raise UserError(f"an image of shape {image.shape}: give finite values [H, W] or [H, W, C]")
    height, width = image.shape[:2]
    image = image.reshape(height, width, -1)
    # Off with the first pixel, not the mean: the mean of equal numbers need not be that number.
    power = (np.abs(np.fft.fft2(image - image[:1, :1], axes=(0, 1))) ** 2).sum(-1)
    power[0, 0] = 0
    total = power.sum()
    if total == 0:
        return SpectralPeak(np.zeros(2, int), 0.0, 0.0)
    rows, columns = (np.rint(np.fft.fftfreq(n) * n).astype(int) for n in (height, width))
    radius = np.hypot(*np.meshgrid(rows / height, columns / width, indexing="ij")) * max(height, width)
    i, j = np.unravel_index(power.argmax(), power.shape)
    ring = power[np.abs(radius - radius[i, j]) <= 0.5]
    frequency = np.array([rows[i], columns[j]])
    if frequency[1] < 0 or (frequency[1] == 0 and frequency[0] < 0):
        frequency = -frequency
    if 2 * abs(frequency[0]) == height:  # the same wave with either sign
        frequency[0] = height // 2
    pair = {(i, j), (-i % height, -j % width)}  # one where the wave is the finest there is
    floor = np.finfo(np.float64).eps * power[i, j]  # the rounding of the transform
    return SpectralPeak(
        frequency,
        float(sum(power[index] for index in pair) / total),
        float(power[i, j] / max(np.median(ring), floor)),
    )


def _finite_logits(name: str, logits: np.ndarray) -> np.ndarray:
    """Logits `[N, K]` as an array; NaN would be counted as the class that it stands at."""
    logits = np.asarray(logits)
    if logits.ndim != 2 or 0 in logits.shape:
        raise UserError(f"{name} logits are {logits.shape}: give [N, K], at least one image and one class")
    bad = ~np.isfinite(logits)
    if bad.any():
        raise UserError(
            f"{name} logits of {bad.any(-1).sum()} of {len(logits)} images are not finite ({bad.sum()} of "
            f"{bad.size} values): the network overflowed or diverged, lower the learning rate"
        )
    return logits


def _rate(hits: np.ndarray) -> float:
    return float(np.mean(hits)) if hits.size else float("nan")
