"""What the network makes of triggered images: pre-fc features, their statistics and collapse (Section 3.4).

The forward passes run in jax, once for each batch; all that follows is NumPy in double precision.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from poison_jax.errors import UserError


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
        UserError: no images.
    """
    return _outputs(apply_fn, variables, images, batch_size)[1]


# --- classes --------------------------------------------------------------------------------------


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
    clean, triggered = np.asarray(clean, float), np.asarray(triggered, float)
    labels = _checked_labels(clean, labels, num_classes)
    if triggered.shape != clean.shape or not 0 <= target < num_classes:
        raise UserError(
            f"features {clean.shape} and {triggered.shape}, target {target} of {num_classes} classes: "
            "clean and triggered must be alike and the target one of the classes"
        )
    count = np.bincount(labels, minlength=num_classes)
    (mean, std), (triggered_mean, triggered_std) = (
        _moments(points, labels, num_classes) for points in (clean, triggered)
    )
    norm = partial(np.linalg.norm, axis=1)
    distance, triggered_distance = norm(mean - mean[target]), norm(triggered_mean - mean[target])
    return ClassStatistics(
        count=count,
        mean_norm=norm(mean),
        std_norm=norm(std),
        triggered_mean_norm=norm(triggered_mean),
        triggered_std_norm=norm(triggered_std),
        std_ratio=_ratio(norm(triggered_std), norm(std)),
        distance=distance,
        triggered_distance=triggered_distance,
        distance_ratio=_ratio(triggered_distance, distance),
    )


class Collapse(NamedTuple):
    """Neural collapse; every number is 0 at full collapse."""

    nc1: float  # variability within classes
    nc2_norms: float  # class means: unequal norms
    nc2_angles: float  # class means: unequal angles
    nc2_weight_norms: float  # classifier: unequal norms
    nc2_weight_angles: float  # classifier: unequal angles
    nc3: float  # classifier against class means
    nc4: float  # classifier against the nearest class mean


def collapse(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> Collapse:
    """Neural collapse's four properties (Papyan, Han & Donoho, 2020), on whatever images are given.

    With the classes' means mu_c, their mean mu, M the rows mu_c - mu, and w_c the classifier's columns, of
    the C classes that have images, each of which weighs the same:

    - NC1 `tr(Sigma_W pinv(Sigma_B)) / C`, Sigma_W the mean over the classes of the covariance within,
      Sigma_B = M'M / C.
    - NC2 norms: standard deviation over mean of |mu_c - mu|; the same of |w_c|.
    - NC2 angles: mean over pairs of `|cos(mu_c - mu, mu_c' - mu) + 1 / (C - 1)|`; the same of w_c, w_c'.
      A zero vector has cosine 0 with any other.
    - NC3 `| W' / |W|_F - M / |M|_F |_F^2`, in [0, 4].
    - NC4 share of images whose decision, `argmax(features @ weights + bias)`, is not the class whose
      mean is the nearest; ties go to the lower class.

    Args:
        features: `[N, F]`.
        labels: int `[N]` true labels.
        weights, bias: `[F, K]` and `[K]`, of the last layer.

    Returns:
        `Collapse`; all NaN where nothing tells classes apart: fewer than two have images, or their means
        are one point. Norms, angles and NC3 of an all-zero classifier are NaN, 1 / (C - 1) and NaN.

    Raises:
        UserError: shapes that do not fit, labels outside 0 .. K - 1.
    """
    features, weights, bias = (np.asarray(array, float) for array in (features, weights, bias))
    labels = _checked_labels(features, labels, len(bias))
    if weights.shape != (features.shape[1], len(bias)):
        raise UserError(
            f"features {features.shape}, weights {weights.shape} and bias {bias.shape} do not fit"
        )
    present, labels_of, count = np.unique(labels, return_inverse=True, return_counts=True)
    mu, _ = _moments(features, labels_of, len(present))
    M, W = mu - mu.mean(0), weights.T[present]
    if np.linalg.norm(M) <= 1e-12 * np.linalg.norm(mu):  # one class, or equal means up to rounding
        return Collapse(*[float("nan")] * len(Collapse._fields))
    # pinv(M'M / C) = C P P' with P = pinv(M): the trace is a sum of squares, without a matrix [F, F].
    within = (features - mu[labels_of]) @ np.linalg.pinv(M, rtol=1e-12)
    squares = np.einsum("ij,ij->i", within, within)
    nearest = np.argmin([np.linalg.norm(features - centre, axis=1) for centre in mu], axis=0)
    decision = np.argmax(features @ weights + bias, axis=1)
    W_norm = np.linalg.norm(W)
    dual = np.sum((W / W_norm - M / np.linalg.norm(M)) ** 2) if W_norm > 0 else np.nan
    return Collapse(
        float(squares @ (1 / count[labels_of]) / len(present)),
        *_simplex(M),
        *_simplex(W),
        nc3=float(dual),
        nc4=float(np.mean(decision != present[nearest])),
    )


# --- planes and ellipses --------------------------------------------------------------------------


class PCA(NamedTuple):
    """Principal components, largest variance first."""

    mean: np.ndarray  # [F]
    components: np.ndarray  # [k, F], orthonormal rows
    variances: np.ndarray  # [k], divided by n - 1
    explained: np.ndarray  # [k], shares of the total variance; 0 where there is none


def pca(points: np.ndarray, k: int) -> PCA:
    """The first k principal components of `[n, F]` points.

    Of a component's two signs, the one that makes its largest entry (in absolute value) positive.

    Raises:
        UserError: k is not in 1 .. min(n, F).
    """
    points = np.asarray(points, float)
    if points.ndim != 2 or not 1 <= k <= min(points.shape):
        raise UserError(f"{k} principal components of points {points.shape}: k must be in 1..min(n, F)")
    mean = _mean(points)
    _, singular, rows = np.linalg.svd(points - mean, full_matrices=False)
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], axis=1)
    squares, total = singular**2, np.sum(singular**2)
    return PCA(
        mean=mean,
        components=(rows * np.sign(largest))[:k],
        variances=squares[:k] / max(len(points) - 1, 1),
        explained=squares[:k] / (total or 1),
    )


def project(plane: PCA, points: np.ndarray) -> np.ndarray:
    """Coordinates `[n, k]` of points `[n, F]` along the components, from their mean."""
    return (np.asarray(points, float) - plane.mean) @ plane.components.T


class Ellipse(NamedTuple):
    """Where a Gaussian's density has fallen to exp(-1/2), one standard deviation along either axis."""

    centre: np.ndarray  # [2]
    half_axes: np.ndarray  # [2], the longer first
    angle: float  # of the longer axis to the first coordinate, radians, in (-pi/2, pi/2]


def ellipse(points: np.ndarray) -> Ellipse:
    """The one-sigma ellipse of points `[N, 2]` (Figure 3); it holds 39 % of a Gaussian, twice it 86 %.

    The half axes are the roots of the covariance's (N - 1 in the denominator) eigenvalues: zero for a
    single point. All is NaN for none.

    Raises:
        UserError: the points are not `[N, 2]`.
    """
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1] != 2:
        raise UserError(f"an ellipse needs points [N, 2], not {points.shape}")
    if len(points) == 0:
        return Ellipse(np.full(2, np.nan), np.full(2, np.nan), float("nan"))
    centre = _mean(points)
    covariance = (points - centre).T @ (points - centre) / max(len(points) - 1, 1)
    values, vectors = np.linalg.eigh(covariance)
    x, y = vectors[:, 1] if vectors[0, 1] > 0 else -vectors[:, 1]
    return Ellipse(centre, np.sqrt(np.maximum(values[::-1], 0)), float(np.arctan2(y, x) if x else np.pi / 2))


# --- all of it ------------------------------------------------------------------------------------


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
        - Table 3: the fields of `ClassStatistics`; `nc1` ...: those of `Collapse`, on the clean images;
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
    labels = _checked_labels(clean, labels, num_classes)
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
    return {key: _compact(value) for key, value in result.items()}


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


def _outputs(apply_fn, variables, images, batch_size):
    """`_forward` of all images, batch by batch."""
    images = np.asarray(images)
    if len(images) == 0:
        raise UserError("features of no images: give at least one")
    batch_size = min(batch_size, len(images))
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        size = len(batch)
        if size < batch_size:  # one shape, one compilation
            batch = np.concatenate([batch, np.zeros((batch_size - size, *batch.shape[1:]), batch.dtype)])
        out = jax.device_get(_forward(apply_fn, variables, batch))
        parts.append([array[:size] for array in out])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _checked_labels(points, labels, num_classes):
    labels = np.asarray(labels)
    if labels.shape != points.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{points.shape} and labels {labels.dtype} {labels.shape} are not N points and N labels"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise UserError(
            f"labels run from {labels.min()} to {labels.max()}, classes from 0 to {num_classes - 1}"
        )
    return labels


def _moments(points, labels, num_classes):
    """Means and standard deviations of the classes, both `[K, F]`; NaN without images."""
    moments = np.full((2, num_classes, points.shape[1]), np.nan)
    for c in np.unique(labels):
        members = points[labels == c]
        mean = _mean(members)
        moments[:, c] = mean, np.sqrt(np.mean((members - mean) ** 2, axis=0))
    return moments


def _mean(points):
    """Of `[n, F]`; the mean of equal numbers is that number, where rounding would make it another."""
    return np.where(np.ptp(points, axis=0) > 0, points.mean(0), points[0])


def _simplex(rows):
    """How far vectors `[C, F]` are from equal norms and from the simplex's equal angles."""
    norms = np.linalg.norm(rows, axis=1)
    unit = rows / np.where(norms > 0, norms, 1)[:, None]
    cosines = (unit @ unit.T)[~np.eye(len(rows), dtype=bool)]
    spread = norms.std() / norms.mean() if norms.any() else np.nan
    return float(spread), float(np.mean(np.abs(cosines + 1 / (len(rows) - 1))))


def _ratio(values, by):
    """Elementwise; NaN where `by` is zero or NaN."""
    return np.divide(values, by, out=np.full(len(values), np.nan), where=by > 0)


def _compact(value):
    value = np.asarray(value)
    return value.astype(np.float32) if np.issubdtype(value.dtype, np.floating) else value
