"""The curves behind the figures of Theorems A, D, E and F."""

import numpy as np

from poison_jax import fisher, krr, linear
from poison_jax.theory import spectra, visibility

Arrays = dict[str, np.ndarray]


def penalty_bounds() -> Arrays:
    """Efficacy of a flip against kappa, and what the penalty sees of it: clones and a spread cluster."""
    kappas, result = visibility.KAPPAS, {"kappas": visibility.KAPPAS}
    for kind in ("cluster", "clones"):
        X, delta = visibility.flips(0, kind)
        E, V = visibility.penalty_path(krr.gaussian(1.0), X, delta, visibility.RIDGE, kappas)
        result |= {f"{kind}_efficacy": E, f"{kind}_visibility": V}
    return result


def transition() -> Arrays:
    """v1's squared overlap with the trigger against |rho| in thresholds, by theory and by simulation."""
    shapes, sizes, fine = ((784, 10), (200, 200)), np.linspace(0.25, 4, 16), np.linspace(0.25, 4, 200)
    result = {"shapes": np.array(shapes), "sizes": sizes, "fine": fine}
    for i, (dimension, classes) in enumerate(shapes):
        threshold = linear.visible_coefficient(1.0, dimension, classes).top_eigenvector
        found = [spectra.repeat(spectra.random_weights(dimension, classes, size), 12) for size in sizes]
        result |= {
            f"law_{i}": linear.spike_overlap(fine * threshold, 1.0, dimension, classes),
            f"mean_{i}": np.array([f.mean for f in found]),
            f"error_{i}": np.array([f.error for f in found]),
        }
    return result


def far_clones() -> Arrays:
    """Efficacy, and the largest change of Hess f at clean points, against D / l for m = 1 to 10^5 clones."""
    distances, counts = np.linspace(1.8, 8, 12), 10.0 ** np.arange(6)
    efficacy, changes, means, bounds = zip(
        *(visibility.far_clones(D, counts) for D in distances), strict=True
    )
    return {
        "distances": distances,
        "counts": counts,
        "efficacy": np.array(efficacy),
        "changes": np.array(changes),
        "mean_hessian": np.array(means),
        "bounds": np.array(bounds),
    }


def images_needed() -> Arrays:
    """The sample eigenvector's squared overlap with the poison against the number of images."""
    eigenvalues, images = np.array([0.9, 1.5, 2.0, 4.0]), np.geomspace(4, 2000, 12).astype(int)
    fine, background = np.geomspace(4, 2000, 200), spectra.BACKGROUND
    found = [[spectra.repeat(spectra.gaussian_gradients(a, n), 8) for n in images] for a in eigenvalues]
    return {
        "eigenvalues": eigenvalues,
        "images": images,
        "fine": fine,
        "needed": np.array([fisher.images_needed(a, background) for a in eigenvalues]),
        "law": np.array([fisher.expected_overlap(a, background, fine) for a in eigenvalues]),
        "mean": np.array([[f.mean for f in row] for row in found]),
        "error": np.array([[f.error for f in row] for row in found]),
    }


CURVES = {curve.__name__: curve for curve in (penalty_bounds, transition, far_clones, images_needed)}
