"""The input Hessian as a detector: its top eigenvalue, on either side of what clean networks have.

A backdoor concentrates sensitivity in a direction (a spike of the input Hessian); a penalty that hides it
lowers the whole spectrum below that of clean networks. So the statistic is two-sided, fixed beforehand.
"""

import numpy as np

from poison_jax.audit.detector import Detector, NetworkScore
from poison_jax.errors import UserError
from poison_jax.lanczos import Eigenpairs
from poison_jax.spectrum import input_hessian
from poison_jax.subject import Subject

EIGENPAIRS, ITERATIONS = 2, 20


def eigenpairs(
    subject: Subject,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    key: int = 0,
    k: int = EIGENPAIRS,
    num_iters: int = ITERATIONS,
    batch_size: int | None = None,
) -> Eigenpairs:
    """Top eigenpairs of the mean input Hessian of a subject, in its normalised input space.

    Args:
        subject: the network.
        images, labels: float `[N, H, W, C]` in [0, 1], int `[N]`.
        key: of the start vector.
        k, num_iters: eigenpairs and Lanczos steps, at most one each for every pixel.
        batch_size: images at once; changes memory, not the result.
    """
    inputs = subject.normalise(images)
    dimension = inputs[0].size
    return input_hessian(
        subject.apply_fn,
        subject.variables,
        inputs,
        labels,
        k=min(k, dimension),
        num_iters=min(num_iters, dimension),
        key=key,
        batch_size=batch_size,
    )


def score_of(pairs: Eigenpairs, shape: tuple[int, ...]) -> NetworkScore:
    """The score that eigenpairs amount to; `shape` is that of an image.

    Raises:
        UserError: the largest eigenvalue is not positive.
    """
    values = np.asarray(pairs.values, float)
    if not values[0] > 0:
        raise UserError(f"the largest eigenvalue of the input Hessian is {values[0]:.3g}, not positive")
    gap = {"gap": float(values[0] / values[1])} if len(values) > 1 and values[1] > 0 else {}
    return NetworkScore(
        float(np.log(values[0])), picture=np.asarray(pairs.vectors[0]).reshape(shape), others=gap
    )


def _score(subject: Subject, images, labels, *, key, batch_size) -> NetworkScore:
    return score_of(eigenpairs(subject, images, labels, key=key, batch_size=batch_size), images.shape[1:])


DETECTOR = Detector(
    "input Hessian", "log of its largest eigenvalue", "images with labels", _score, two_sided=True
)
