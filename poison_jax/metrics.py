"""What is measured: accuracies, attack success rates, overlap of a direction with the trigger."""

import numpy as np
from scipy import special


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
        `clean_accuracy`: of all untouched images.
        `asr`: share of triggered images classified as `target`, images of the target class excluded.
        `asr_incl_target`: the same over all images.
        `robust_accuracy`: share of triggered images, target class excluded, that keep their true label.
        `no_trigger_target_rate`: share of *untouched* non-target images classified as `target`; near
        `asr`, it says that the model collapsed rather than that the attack worked.
        A rate over no image at all is NaN.

    Ties go to the lower class. Runs on the host, once.
    """
    labels = np.asarray(labels)
    clean = np.argmax(clean_logits, axis=-1)
    triggered = np.argmax(triggered_logits, axis=-1)
    aim = np.full_like(labels, target) if np.ndim(target) == 0 else np.asarray(target)[labels]
    other = labels != aim
    return {
        "clean_accuracy": _rate(clean == labels),
        "asr": _rate(triggered[other] == aim[other]),
        "asr_incl_target": _rate(triggered == aim),
        "robust_accuracy": _rate(triggered[other] == labels[other]),
        "no_trigger_target_rate": _rate(clean[other] == aim[other]),
    }


def beats_chance(accuracy: float, labels: np.ndarray) -> bool:
    """Whether an accuracy is above that of always naming the commonest class, by 3 standard errors."""
    chance = np.bincount(labels).max() / len(labels)
    return bool(accuracy > chance + 3 * np.sqrt(chance * (1 - chance) / len(labels)))


def overlap(vector: np.ndarray, mask: np.ndarray) -> float:
    """Listing 7: signed cosine of a direction and the trigger mask, both centred and normalised.

    Args:
        vector: `[H, W, C]` or flat `[H * W * C]`.
        mask: `[H, W]` (all channels) or `[H, W, C]`.

    Returns:
        A number in [-1, 1]; 0 where either is constant, since a constant has no direction left.
    """
    vector, mask = np.asarray(vector, np.float64), np.asarray(mask, np.float64)
    if mask.ndim == 2:
        mask = np.broadcast_to(mask[..., None], (*mask.shape, vector.size // mask.size))
    v, m = vector.ravel() - vector.mean(), mask.ravel() - mask.mean()
    if np.ptp(vector) == 0 or np.ptp(mask) == 0:  # the mean of equal numbers need not be that number
        return 0.0
    return float(v @ m / (np.linalg.norm(v) * np.linalg.norm(m)))


def overlap_threshold(dimension: int, k: int, *, level: float = 1e-3, floor: float = 0.1) -> float:
    """The squared overlap from which on a trigger counts as found among k eigenvectors.

    The squared cosine of a fixed and a uniformly random direction is Beta(1/2, (d - 1)/2); the best of
    k exceeds the returned quantile with probability `level` (Bonferroni). In high dimension that is
    tiny, and the smooth eigenvectors of a clean network are not uniform: hence the `floor`.
    """
    return max(floor, float(special.betainccinv(0.5, (dimension - 1) / 2, level / k)))


def _rate(hits: np.ndarray) -> float:
    return float(np.mean(hits)) if hits.size else float("nan")
