"""SCALE-UP: does the prediction survive multiplied pixels? (Guo et al., ICLR 2023)."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import batches
from poison_jax.audit.checks import checked
from poison_jax.audit.detector import Detector
from poison_jax.errors import UserError
from poison_jax.subject import Subject


def score(
    subject: Subject,
    images: np.ndarray,
    clean: np.ndarray | None = None,
    *,
    key: jax.Array | int = 0,
    factors: Sequence[float] = (3, 5, 7, 9, 11),
    batch_size: int | None = None,
) -> np.ndarray:
    """The share of an image's amplified copies that keep its prediction: scaled prediction consistency.

    SPC(x) = 1/|S| sum_{n in S} 1[argmax z(clip(n x, 0, 1)) = argmax z(x)], the authors' statistic where no
    clean data are at hand; they reject an image above .5. It takes |S| + 1 values, so that ties are common.

    Args:
        subject: the network.
        images: float `[N, H, W, C]` in [0, 1], to be judged.
        clean: not used; they are the null, at the calibration of all detectors.
        key: not used.
        factors: S, the numbers that pixels are multiplied by; not 1, which would change nothing.
        batch_size: images at once; changes memory, not the result.

    Returns:
        Suspicion `[N]`, 0 to 1.

    Raises:
        UserError: fewer than two classes, images that are not in [0, 1], no factors, factors up to 1.
    """
    images, _, _ = checked(subject, images)
    factors = np.asarray(factors, np.float32)
    if factors.ndim != 1 or factors.size == 0 or not (factors > 1).all() or not np.isfinite(factors).all():
        raise UserError(f"factors {factors.tolist()}: give numbers above 1")
    kept = partial(_kept, subject.of_pixels, subject.variables, factors)
    return batches.outputs(kept, images, batch_size=batch_size) / len(factors)


def _kept(of_pixels, variables, factors, images):
    images = jnp.asarray(images)
    plain, *scaled = (_predicted(of_pixels, variables, images, n) for n in (np.float32(1), *factors))
    return sum((prediction == plain).astype(int) for prediction in scaled)


@partial(jax.jit, static_argnums=0)
def _predicted(of_pixels, variables, images, factor):
    return of_pixels(variables, jnp.clip(factor * images, 0, 1)).argmax(-1)


DETECTOR = Detector("SCALE-UP", "share of amplified copies that keep the prediction", "nothing", score)
