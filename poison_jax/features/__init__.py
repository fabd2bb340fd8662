"""Pre-fc features of clean and triggered images, and their statistics (Section 3.4, Table 3, Figures 1 to 3).

The forward passes run in jax, once for each batch; all that follows is NumPy in double precision.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from poison_jax import batches
from poison_jax.arrays import class_labels, finite
from poison_jax.errors import UserError
from poison_jax.features.neural_collapse import class_moments, collapse
from poison_jax.features.planes import Ellipse, ellipse, pca, project


def extract(
    apply_fn: Callable[..., Any], variables: Any, images: np.ndarray, *, batch_size: int
) -> np.ndarray:
    """Pre-fc features `[N, F]` of images, in the network's precision.

    Args:
        apply_fn: `(variables, images [B, h, w, C]) -> (logits [B, K], models.Features)`. A named function
            (or `model.apply`) is compiled once, a new lambda each time.
        variables: first argument of `apply_fn`, any pytree.
        images: `[N, h, w, C]` as the network takes them: cropped, normalised.
        batch_size: images at once; a ragged last batch is filled up, so that there is one compilation.

    Raises:
        UserError: no images, integers, values that are not finite in the images or in what is made of them, a
            leaf of `variables` that is no array.
    """
    return _outputs(apply_fn, variables, images, batch_size)[1]


class ClassStatistics(NamedTuple):
    """The columns of Table 3, each `[K]`; NaN where a number does not exist."""

    count: np.ndarray  # images of the class
    mean_norm: np.ndarray  # |mu_c|
    std_norm: np.ndarray  # |sigma_c|
    triggered_mean_norm: np.ndarray  # |mu_c*|
    triggered_std_norm: np.ndarray  # |sigma_c*|
    std_ratio: np.ndarray  # |sigma_c*| / |sigma_c|
    distance: np.ndarray  # d(mu_c) = |mu_c - mu_t|
    triggered_distance: np.ndarray  # d(mu_c*) = |mu_c* - mu_t|
    distance_ratio: np.ndarray  # d(mu_c*) / d(mu_c)


def class_statistics(
    clean: np.ndarray, triggered: np.ndarray, labels: np.ndarray, target: int, num_classes: int
) -> ClassStatistics:
    """Means and spreads of the classes' features, without and with the trigger (Table 3, App. B).

    Args:
        clean, triggered: `[N, F]` features of the same images without and with the trigger.
        labels: int `[N]` true labels; the trigger does not change them.
        target: class t, from whose *clean* mean mu_t both distances are measured.
        num_classes: K.

    Returns:
        `ClassStatistics`. sigma_c holds the standard deviation of each feature (divided by the number of
        images, not one less: zero for a single image), |.| is the Euclidean norm. A class without images
        has NaN in every column but `count`; without images of the target there are no distances; a
        ratio to zero is NaN, the target's `distance_ratio` among them.

    Raises:
        UserError: shapes that do not fit, labels or target outside 0 .. K - 1.
    """
    clean, triggered = finite("clean features", clean), finite("triggered features", triggered)
    labels = class_labels(labels, len(clean), num_classes, what="features")
    if triggered.shape != clean.shape or not 0 <= target < num_classes:
        raise UserError(
            f"features {clean.shape} and {triggered.shape}, target {target} of {num_classes} classes: "
            "clean and triggered must be alike and the target one of the classes"
        )
    count = np.bincount(labels, minlength=num_classes)
    (mean, std), (triggered_mean, triggered_std) = (
        class_moments(points, labels, num_classes) for points in (clean, triggered)
    )
    norm = partial(np.linalg.norm, axis=1)
    distance, triggered_distance = norm(mean - mean[target]), norm(triggered_mean - mean[target])
    return ClassStatistics(
        count=count,
        mean_norm=norm(mean),
        std_norm=norm(std),
        triggered_mean_norm=norm(triggered_mean),
        triggered_std_norm=norm(triggered_std),
        std_ratio=ratio(norm(triggered_std), norm(std)),
        distance=distance,
        triggered_distance=triggered_distance,
        distance_ratio=ratio(triggered_distance, distance),
    )


def measure(
    apply_fn: Callable[..., Any],
    variables: Any,
    clean: np.ndarray,
    triggered: np.ndarray,
    labels: np.ndarray,
    *,
    target: int,
    class_names: Sequence[str],
    weights: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    batch_size: int,
    source: int | None = None,
) -> dict[str, np.ndarray]:
    """All that Figures 1 to 3 and Table 3 show of a network.

    Args:
        apply_fn, variables, batch_size: as `extract` takes them.
        clean, triggered: `[N, h, w, C]`, the same images without and with the trigger, as the network
            takes them; some 2,000 test images are plenty.
        labels: int `[N]` true labels.
        target: the attack's target class.
        class_names: of all K classes.
        weights, bias: `[F, K]` and `[K]`, of the last layer.
        mean, std: `[C]` of the normalisation, `network input = (pixel in [0, 1] - mean) / std`.
        source: the class whose images are followed in Figures 1 and 2; None: the first that has images and
            is not the target.

    Returns:
        Arrays by name; real ones are float32. With n_t and n_s images of the target and the source:

        - `target`, `source`, `class_names [K]`, `labels [N]`;
        - Table 3: the fields of `ClassStatistics`; `nc1` ...: those of `neural_collapse.Collapse`, on the
          clean images;
        - Figure 3, in the plane of the clean features' principal components: `explained [2]`, `clean` and
          `triggered [N, 2]`, and for both `<kind>_centre [K, 2]`, `_half_axes [K, 2]`, `_angle [K]`;
        - Figure 2, in the plane of the target's and the source's clean images, in either `space` (`input`,
          the network's, and `feature`): `<space>_explained [2]`, `_target [n_t, 2]`, `_source [n_s, 2]`,
          `_triggered [n_s, 2]`; `_moved`, the share of the source's triggered images that are nearer to
          the target's clean mean than to the source's, and `_moved_clean`, the share of its clean ones;
        - Figure 1, for the first image of the target, the first of the source, and the latter with the
          trigger: `pictures [3, h, w, C]` uint8, `posteriors [3]` p(y = target | x), `maps [3, h', w']`
          (last feature map, mean over its channels), `vectors [3, F]` (pre-fc).

    Raises:
        UserError: shapes that do not fit, labels, target or source outside 0 .. K - 1, no images of the
            target or of the source, fewer than two features.
    """
    clean, triggered, num_classes = np.asarray(clean), np.asarray(triggered), len(class_names)
    labels = class_labels(labels, len(clean), num_classes)
    if triggered.shape != clean.shape:
        raise UserError(f"clean images {clean.shape} and triggered ones {triggered.shape} differ in shape")
    if source is None:
        source = next((int(c) for c in np.unique(labels) if c != target), -1)
    of_target, of_source = np.flatnonzero(labels == target), np.flatnonzero(labels == source)
    if source == target or not of_target.size or not of_source.size:
        raise UserError(
            f"target {target} and source {source} must be two classes with images: "
            f"there are {np.unique(labels).tolist()}"
        )

    outputs = [_outputs(apply_fn, variables, images, batch_size) for images in (clean, triggered)]
    if outputs[0][0].shape[1] != num_classes:
        raise UserError(
            f"{num_classes} class names for a network of {outputs[0][0].shape[1]} logits: name each class"
        )
    features = [pre_fc.astype(float) for _, pre_fc, _ in outputs]
    result: dict[str, Any] = {
        "target": target,
        "source": source,
        "class_names": np.array(class_names),
        "labels": labels.astype(np.int32),
    }
    result |= class_statistics(*features, labels, target, num_classes)._asdict()
    result |= collapse(features[0], labels, weights, bias)._asdict()

    plane = pca(features[0], 2)
    result["explained"] = plane.explained
    for kind, points in zip(("clean", "triggered"), features, strict=True):
        result[kind] = projected = project(plane, points)
        ellipses = [ellipse(projected[labels == c]) for c in range(num_classes)]
        for field, values in zip(Ellipse._fields, zip(*ellipses, strict=True), strict=True):
            result[f"{kind}_{field}"] = np.stack(values)

    spaces = {
        "input": [images.reshape(len(images), -1) for images in (clean, triggered)],
        "feature": features,
    }
    for name, (plain, stamped) in spaces.items():
        clouds = plain[of_target], plain[of_source], stamped[of_source]
        result |= {f"{name}_{key}": value for key, value in _two_classes(*clouds).items()}

    rows = [(0, of_target[0]), (0, of_source[0]), (1, of_source[0])]
    normalised = np.stack([(clean, triggered)[kind][i] for kind, i in rows])
    pixels = normalised * np.asarray(std) + np.asarray(mean)
    logits, vectors, maps = (np.stack([outputs[kind][j][i] for kind, i in rows]) for j in range(3))
    result |= {
        "pictures": np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8),
        "posteriors": np.asarray(jax.nn.softmax(logits))[:, target],
        "maps": maps,
        "vectors": vectors,
    }
    arrays = {key: np.asarray(value) for key, value in result.items()}
    return {key: a.astype(np.float32) if a.dtype.kind == "f" else a for key, a in arrays.items()}


def _two_classes(target: np.ndarray, source: np.ndarray, triggered: np.ndarray) -> dict[str, np.ndarray]:
    """Figure 2 in one space, from points `[., d]`."""
    plane = pca(np.concatenate([target, source]), 2)
    centres = [points.mean(0, dtype=float) for points in (target, source)]

    def moved(points):
        to_target, to_source = (np.linalg.norm(points - centre, axis=1) for centre in centres)
        return np.mean(to_target < to_source)

    clouds = {"target": target, "source": source, "triggered": triggered}
    return {"explained": plane.explained, "moved": moved(triggered), "moved_clean": moved(source)} | {
        key: project(plane, points) for key, points in clouds.items()
    }


@partial(jax.jit, static_argnums=0)
def _forward(apply_fn, variables, images):
    """Logits `[B, K]`, pre-fc features `[B, F]`, last feature map `[B, h, w]` (mean over channels)."""
    logits, known = apply_fn(variables, images)
    if known is None:
        raise UserError("the network returns logits alone: its features are not known")
    pre_fc, last_map = known
    return logits, pre_fc, last_map.astype(pre_fc.dtype).mean(-1)


@jax.default_matmul_precision("highest")  # GPUs and TPUs round float32 products to fewer bits unless told
def _outputs(apply_fn, variables, images, batch_size):
    """`_forward` of all images, batch by batch."""
    images = batches.checked_images(images)
    batches.check_variables(variables)
    parts = batches.outputs(partial(_forward, apply_fn, variables), images, batch_size=batch_size)
    if not all(np.isfinite(part).all() for part in parts):
        raise UserError("the network's logits or features are not finite: it overflowed or diverged")
    return parts


def ratio(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return `values / by`, each `[n]`; NaN where `by` is zero or NaN."""
    return np.divide(values, by, out=np.full(len(values), np.nan), where=by > 0)
