"""The kernel theory compared with a trained network: near clones, efficacy and spike (Sections 3.2 to 3.4).

The network's own features phi make the deep Gaussian kernel `k(x, x') = exp(-|phi(x) - phi(x')|^2 / 2 l^2)`
(Lemma C.1). It has no length scale of its own: l is the median distance between the features of clean
training images, as for the kernels on pixels (`theory.images`). R_k, and so the law, goes as 1 / l^4.

The score f of the target t is its log-odds, `f = z_t - log sum_{j != t} exp z_j`, from the logits z. What is
added to all logits does not change it, and the loss of a poisoned image is a function of it alone,
log(1 + e^-f), as the theory's loss is of its f; a centred logit does not tell the loss. The efficacy is
what the trigger changes in it, `f(x0) - f(x)`: the theory's own, the score at x0 of the poisoned model less
that of a clean one, would take a second network.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import special
from scipy.spatial.distance import cdist, pdist

from poison_jax import batches, features
from poison_jax.arrays import finite
from poison_jax.errors import UserError
from poison_jax.spectrum import input_hessian

NEAR = 0.1  # r / l below which a trigger point counts as a near clone


@jax.default_matmul_precision("highest")
def measure(
    apply_fn: Callable[..., Any],
    variables: Any,
    clean: np.ndarray,
    triggered: np.ndarray,
    poisons: np.ndarray,
    train_clean: np.ndarray,
    target: int,
    *,
    batch_size: int,
    hessian_points: int = 16,
) -> dict[str, np.ndarray]:
    """What the theory speaks of, at every triggered image x0 of a trained network.

    zeta is the poison whose features are nearest to those of x0. With `_mean` in a name it is the centre of
    the poisons instead (of their features, or pixels), which the theory's one point stands for as well.

    Costs K + 2 gradients of every x0, one of every clean image, 12 products with the input Hessian of each of
    `hessian_points` images, and a forward pass of all others.

    Args:
        apply_fn: `(variables, images [B, ...]) -> (logits [B, K], models.Features)`, row by row; a named
            function, or `Model.apply`.
        variables: its first argument.
        clean: non-target test images x `[n, ...]`, as the network takes them (normalised).
        triggered: the same with the trigger, x0 `[n, ...]`.
        poisons: poisoned training images `[m, ...]`; some hundreds do.
        train_clean: clean training images `[c, ...]` of all classes, c >= 2; some hundreds do.
        target: the class t that the poisons are labelled as.
        batch_size: images at once; changes memory, not the results.
        hessian_points: trigger points, the first ones, whose whole input Hessian is looked at.

    Returns:
        Arrays `[n]`, in the units of the network's features and (normalised) pixels:

        - `distance`, `distance_mean`: r = |phi(x0) - phi(zeta)|; `clean_distance`: of x to the nearest clean
          training image; all three with `input_` before them: the same of pixels, zeta the nearest there;
        - `score`, `clean_score`, `efficacy`: f(x0), f(x), and the first less the second;
        - `spike_factor[_mean]`: R_k = |grad_x k(x0, zeta)|^2 / k_0^2 (eq. 17), the gradient in pixels;
        - `law[_mean]`: the law's spike, R_k efficacy^2 (eq. 16);
        - `spike`, `clean_spike`: the Gauss-Newton spike |grad_x f|^2 (eq. 14) at x0, and at x: the background
          of Remark 3.5;
        - `alignment[_mean]`: cosine of grad_x f and grad_x k at x0, 1 by the theory; NaN where one is zero;
        - `softmax_spike`: top eigenvalue of the Gauss-Newton matrix J' (diag p - p p') J of cross-entropy at
          x0, J the logits' Jacobian. It vanishes where the network is sure, p_t -> 1, whatever `spike` is.

        `hessian`, `hessian_residual` `[min(n, hessian_points)]`: top eigenvalue of the whole input Hessian of
        the cross-entropy with the label t at x0, and its Ritz residual. The theory's second term, dropped in
        eq. 14, can dominate it (Theorem A.3); but the logits of a ReLU network at inference are piecewise
        linear, and there the Hessian is the Gauss-Newton matrix, almost everywhere.

        Scalars: `lengthscale` and `input_lengthscale`, the l of features and of pixels; and over the points

        - medians: `median_efficacy` and the like of `spike`, `clean_spike`, `softmax_spike`, `alignment`,
          `alignment_mean`; of r / l: `r_over_l`, `clean_r_over_l`, `input_r_over_l`, `input_clean_r_over_l`;
        - `near_share`: the share with r < NEAR l;
        - `ratio`, `ratio_low`, `ratio_high` (and `_mean`): median, 10 % and 90 % quantile of `spike` over
          `law`, 1 by the theory, where the law is not 0; `rank_correlation[_mean]` of the two (Spearman);
        - `slope`, `slope_low`, `slope_high`, `slope_count`: `log_slope` of `efficacy` and `spike`.

        NaN where there is nothing to take them of.

    Raises:
        UserError: no poison, no trigger point, fewer than two clean training images; images that do not
            belong together or are not finite; a target that is no class; one class; features or pixels of the
            clean training images that are (most of them) equal, where there is no l, or not finite.
    """
    groups = _checked(clean=clean, triggered=triggered, poisons=poisons, train_clean=train_clean)
    clean, triggered, poisons, train_clean = groups
    classes = batches.num_classes(apply_fn, variables, train_clean[:1])
    if classes < 2 or not 0 <= target < classes:
        raise UserError(f"target = {target}: the network has {classes} class(es), and there must be another")
    zeta, reference = (
        features.extract(apply_fn, variables, images, batch_size=batch_size).astype(np.float64)
        for images in (poisons, train_clean)
    )
    lengthscale = _median_distance("features", reference)

    def of_score(logits, phi):
        return [(_log_odds(logits, target)[1], np.zeros_like(phi))]

    def of_all(logits, phi):
        """Every logit; then log k, whose gradient in phi(x0) is (phi(zeta) - phi(x0)) / l^2."""
        nearest = zeta[cdist(phi, zeta).argmin(1)]
        unit = np.eye(classes)[:, None] + np.zeros_like(logits)
        return [(row, np.zeros_like(phi)) for row in unit] + [
            (np.zeros_like(logits), (end - phi) / lengthscale**2) for end in (nearest, zeta.mean(0))
        ]

    clean_logits, clean_phi, clean_gram = _gradients(apply_fn, variables, clean, of_score, batch_size)
    logits, phi, gram = _gradients(apply_fn, variables, triggered, of_all, batch_size)
    clean_score, _ = _log_odds(clean_logits, target)
    score, slopes = _log_odds(logits, target)
    jacobian = gram[:, :classes, :classes]  # J J'
    arrays = {
        "score": score,
        "clean_score": clean_score,
        "efficacy": score - clean_score,
        "spike": np.einsum("nj,njk,nk->n", slopes, jacobian, slopes),
        "clean_spike": clean_gram[:, 0, 0],
        "softmax_spike": _softmax_gauss_newton(logits, jacobian),
    }
    for i, suffix in ((classes, ""), (classes + 1, "_mean")):
        factor = gram[:, i, i]
        along = np.einsum("nj,nj->n", slopes, gram[:, :classes, i])
        lengths = np.sqrt(arrays["spike"] * factor)
        arrays["spike_factor" + suffix] = factor
        arrays["law" + suffix] = factor * arrays["efficacy"] ** 2
        arrays["alignment" + suffix] = features.ratio(along, lengths)
    pixels = [images.reshape(len(images), -1) for images in (triggered, clean, poisons, train_clean)]
    for prefix, (x0, x, poison, train) in (("", (phi, clean_phi, zeta, reference)), ("input_", pixels)):
        arrays[prefix + "distance"] = cdist(x0, poison).min(1)
        arrays[prefix + "distance_mean"] = np.linalg.norm(x0 - poison.mean(0, dtype=np.float64), axis=1)
        arrays[prefix + "clean_distance"] = cdist(x, train).min(1)
    arrays["lengthscale"] = np.array(lengthscale)
    arrays["input_lengthscale"] = np.array(_median_distance("pixels", pixels[-1]))

    steps = {"k": 1, "num_iters": min(10, triggered[0].size), "batch_size": 1}
    pairs = [
        input_hessian(apply_fn, variables, image[None], np.array([target]), **steps)
        for image in triggered[:hessian_points]
    ]
    arrays["hessian"] = np.array([pair.values[0] for pair in pairs])
    arrays["hessian_residual"] = np.array([pair.residuals[0] for pair in pairs])
    return arrays | {key: np.array(value, np.float64) for key, value in _summary(arrays).items()}


def _checked(**groups):
    arrays = {name: batches.checked_images(images, name) for name, images in groups.items()}
    shape = arrays["triggered"].shape
    if arrays["clean"].shape != shape:
        raise UserError(f"clean {arrays['clean'].shape} and triggered {shape} are not n images each")
    for name, images in arrays.items():
        if images.shape[1:] != shape[1:]:
            raise UserError(f"{name} {images.shape} are not images of the shape {shape[1:]}")
    if len(arrays["train_clean"]) < 2:
        raise UserError("train_clean: 1 image, 2 or more are needed for the distance between them")
    return arrays.values()


def _gradients(apply_fn, variables, images, directions, batch_size):
    """Logits, features, and all inner products of some input gradients of every image.

    Args:
        directions: `(logits [B, K], features [B, F]) -> ` list of R pairs of the same shapes: the vectors
            that the Jacobians of logits and features are multiplied by from the left.

    Returns:
        Float64 `[N, K]`, `[N, F]` and `[N, R, R]`. All that is asked of gradients here is in the last.
    """

    def of_batch(rows):
        out, pull = _linearise(apply_fn, variables, rows)
        logits, phi = (np.asarray(part, np.float64) for part in out)
        gradients = [
            np.asarray(_pull(pull, tuple(np.asarray(d, o.dtype) for d, o in zip(pair, out, strict=True))))
            for pair in directions(finite("logits", logits), finite("features", phi))
        ]
        gradients = np.stack(gradients, 1).reshape(len(rows), len(gradients), -1).astype(np.float64)
        return logits, phi, gradients @ gradients.transpose(0, 2, 1)

    return batches.outputs(of_batch, images, batch_size=batch_size)


@functools.partial(jax.jit, static_argnums=0)
def _linearise(apply_fn, variables, images):
    def logits_and_features(images):
        logits, known = apply_fn(variables, images)
        return logits, known.pre_fc

    # Applied from Python, row by row: a compiled loop over gradients of convolutions is slow on CPUs, and
    # one batch of K times as many images may not fit.
    return jax.vjp(logits_and_features, images)


@jax.jit
def _pull(pull, cotangents):
    return pull(cotangents)[0]


def _log_odds(logits, target):
    """f `[N]` and its gradient in the logits `[N, K]`."""
    others = np.delete(logits, target, axis=1)
    slopes = np.insert(-special.softmax(others, axis=1), target, 1, axis=1)
    return logits[:, target] - special.logsumexp(others, axis=1), slopes


def _softmax_gauss_newton(logits, jacobian):
    """Top eigenvalue of J' (diag p - p p') J from J J': that of S J J' S' with S'S = diag p - p p'."""
    p = special.softmax(logits, axis=1)
    S = np.sqrt(p)[:, :, None] * (np.eye(p.shape[1]) - p[:, None])
    return np.maximum(0, np.linalg.eigvalsh(S @ jacobian @ S.transpose(0, 2, 1))[:, -1])


def _median_distance(name, points):
    median = float(np.median(pdist(points)))
    if not 0 < median < np.inf:
        raise UserError(f"the median distance between {name} of clean training images is {median}: no l")
    return median


def _summary(arrays):
    from scipy import stats

    spike, found = arrays["spike"], {}
    for key in ("", "clean_", "input_", "input_clean_"):
        length = arrays["input_lengthscale" if "input" in key else "lengthscale"]
        found[key + "r_over_l"] = np.median(arrays[key + "distance"]) / length
    found["near_share"] = np.mean(arrays["distance"] < NEAR * arrays["lengthscale"])
    for key in ("efficacy", "spike", "clean_spike", "softmax_spike"):
        found["median_" + key] = np.median(arrays[key])
    for suffix in ("", "_mean"):
        law, alignment = arrays["law" + suffix], arrays["alignment" + suffix]
        ratio = spike[law > 0] / law[law > 0]
        quantiles = np.quantile(ratio, (0.5, 0.1, 0.9)) if len(ratio) else np.full(3, np.nan)
        for name, value in zip(("ratio", "ratio_low", "ratio_high"), quantiles, strict=True):
            found[name + suffix] = value
        varied = len(law) > 2 and np.ptp(law) > 0 and np.ptp(spike) > 0
        found["rank_correlation" + suffix] = stats.spearmanr(law, spike).statistic if varied else np.nan
        alignment = alignment[np.isfinite(alignment)]
        found["median_alignment" + suffix] = np.median(alignment) if len(alignment) else np.nan
    slope = log_slope(arrays["efficacy"], spike)
    return found | {("slope_" + key).removesuffix("_slope"): value for key, value in slope._asdict().items()}


class Slope(NamedTuple):
    """An exponent, its 95 % confidence interval, and through how many points the line goes."""

    slope: float
    low: float
    high: float
    count: int


def log_slope(efficacy: np.ndarray, spike: np.ndarray) -> Slope:
    """Return the exponent in `spike ~ efficacy^slope`: 2 by Theorem 3.4, where R_k is the same at all points.

    Ordinary least squares of log spike on log efficacy, with the interval of Student's t: for residuals that
    are independent, normal and of one size.

    Args:
        efficacy, spike: `[m]`, of the points of one network, or medians of several networks. Pairs without
            a logarithm (zero, negative, not finite) are left out.

    Returns:
        `Slope`; `count` is what was not left out. NaN with fewer than 3 points, or all at one efficacy.

    Raises:
        UserError: arrays that are not two of one length.

    >>> round(log_slope([1.0, 10.0, 100.0, -1.0], [3.0, 300.0, 30000.0, 5.0]).slope, 3)
    2.0
    """
    efficacy, spike = np.asarray(efficacy, np.float64), np.asarray(spike, np.float64)
    if efficacy.ndim != 1 or efficacy.shape != spike.shape:
        raise UserError(f"efficacy {efficacy.shape} and spike {spike.shape} are not m numbers each")
    usable = np.isfinite(efficacy) & np.isfinite(spike) & (efficacy > 0) & (spike > 0)
    x, y = np.log(efficacy[usable]), np.log(spike[usable])
    if len(x) < 3 or np.ptp(x) == 0:
        return Slope(np.nan, np.nan, np.nan, len(x))
    from scipy import stats  # slow to import

    line = stats.linregress(x, y)
    half = stats.t.ppf(0.975, len(x) - 2) * line.stderr
    return Slope(float(line.slope), float(line.slope - half), float(line.slope + half), len(x))
