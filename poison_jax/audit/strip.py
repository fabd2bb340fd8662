"""STRIP: the entropy of predictions when clean images are laid over an input (Gao et al., ACSAC 2019)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import batches
from poison_jax.audit.checks import checked, generator
from poison_jax.audit.detector import Detector
from poison_jax.errors import UserError
from poison_jax.subject import Subject


def score(
    subject: Subject,
    images: np.ndarray,
    clean: np.ndarray,
    *,
    key: jax.Array | int,
    copies: int = 100,
    weights: tuple[float, float] = (1.0, 1.0),
    batch_size: int | None = None,
) -> np.ndarray:
    """Minus the mean entropy of the predictions of an image under superposition with clean ones.

    H(x) = -1/n sum_j sum_k p_k log2 p_k with p = softmax(z(clip(a x + b c_j, 0, 1))) and c_1 to c_n drawn
    from the clean images: a trigger that decides the prediction whatever lies over it leaves little entropy.
    The authors reject an image below the 1st percentile of clean images' H (false alarms of 1 %).

    Args:
        subject: the network.
        images: float `[N, H, W, C]` in [0, 1], to be judged.
        clean: float `[M, H, W, C]` in [0, 1], known to be clean; not those that are judged, nor those of the
            null, since an image that is laid over itself does not change.
        key: of the choice of clean images, the same for every image.
        copies: n, without replacement; all M if that is less.
        weights: a and b; 1 and 1 as in the authors' own program.
        batch_size: images at once; changes memory, not the result.

    Returns:
        Suspicion `[N]`, -H in bits: -log2(K) to 0.

    Raises:
        UserError: fewer than two classes, images that are not in [0, 1] or of another size than the clean
            ones, no copies.
    """
    images, _, _ = checked(subject, images)
    clean, _, _ = checked(subject, clean, size=images.shape[1:], name="clean images")
    if copies < 1:
        raise UserError(f"copies = {copies}: use at least 1")
    chosen = generator(key).permutation(len(clean))[:copies]
    entropy = partial(_entropy, subject.of_pixels, subject.variables, clean[chosen], np.float32(weights))
    return -batches.outputs(entropy, images, batch_size=batch_size).astype(float)


def _entropy(of_pixels, variables, clean, weights, images):
    """Mean entropy in bits `[B]` over the overlays."""
    images = jnp.asarray(images)
    return sum(_of_overlay(of_pixels, variables, images, overlay, weights) for overlay in clean) / len(clean)


@partial(jax.jit, static_argnums=0)
def _of_overlay(of_pixels, variables, images, overlay, weights):
    logits = of_pixels(variables, jnp.clip(weights[0] * images + weights[1] * overlay, 0, 1))
    logs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(logs) * logs, axis=-1) / jnp.log(2)


DETECTOR = Detector("STRIP", "minus the mean entropy under superposition", "clean images for it", score)
