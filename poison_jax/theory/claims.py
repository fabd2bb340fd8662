"""Checks of the paper's unnumbered claims: its abstract, contributions, assumptions, Section 6."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import pdist

from poison_jax import data, krr, linear, metrics, poison
from poison_jax.theory import clones
from poison_jax.theory.capacity import RIDGE, gaussian_gram
from poison_jax.theory.clones import GAUSSIAN, LENGTHSCALE, step_from
from poison_jax.theory.entry import Entry, agrees, fails, has_order, holds
from poison_jax.theory.near_clones import RATIOS


def tangent_error(width: int, *, seed: int = 0, ridge: float = 0.01) -> float:
    """How far a trained two-layer tanh network is from its tangent kernel's ridge regression at test points.

    f(x) = a' tanh(W x) / sqrt(2 n), antisymmetric at the start so that f = 0; full-batch gradient descent on
    |f - y|^2 / 2 + ridge |w - w(0)|^2 / 2, to stationarity. Relative, root mean square.
    """
    points, rng = np.random.default_rng(5), np.random.default_rng(seed)
    X, test, y = points.normal(size=(10, 3)), points.normal(size=(20, 3)), points.choice([-1.0, 1.0], 10)
    X, test = (Z / np.linalg.norm(Z, axis=1)[:, None] for Z in (X, test))
    W, a = np.tile(rng.normal(size=(width, 3)), (2, 1)), np.outer([1, -1], rng.normal(size=width)).ravel()
    scale, start = 1 / np.sqrt(2 * width), (W, a)

    def tangent(Z):  # d f(z) / d (W, a), as rows
        hidden = np.tanh(Z @ start[0].T)
        slopes = ((1 - hidden**2) * start[1])[:, :, None] * Z[:, None]
        return scale * np.hstack([hidden, slopes.reshape(len(Z), -1)])

    J = tangent(X)
    kernel = tangent(test) @ J.T @ np.linalg.solve(J @ J.T + ridge * np.eye(10), y)
    for _ in range(3000):
        hidden = np.tanh(X @ W.T)
        error = scale * hidden @ a - y
        pull = scale * ((error[:, None] * (1 - hidden**2) * a).T @ X)
        a, W = (
            a - 0.3 * (scale * hidden.T @ error + ridge * (a - start[1])),
            W - 0.3 * (pull + ridge * (W - start[0])),
        )
    return float(np.linalg.norm(scale * np.tanh(test @ W.T) @ a - kernel) / np.linalg.norm(kernel))


def abstract() -> Iterator[Entry]:
    """A network beside its kernel, at two widths."""
    narrow, wide = (tangent_error(width) for width in (32, 1024))
    yield agrees(
        "Abstract: kernel ridge regression is an exact model of wide networks",
        "two-layer tanh network of 2 x 1,024 hidden units, squared loss, trained to stationarity; its "
        "relative distance at test points from the ridge regression with its tangent kernel",
        0,
        wide,
        "In the limit of infinite width, in the tangent kernel's scaling and for the squared loss: at 2 x "
        f"32 units the distance is {narrow:.2f}. The networks of Section 5 are narrow, batch-normalised and "
        "trained on cross-entropy until their features collapse: for them the theory is a picture to be "
        "measured.",
        tolerance=0.1,
    )


def triggered_digits() -> tuple[np.ndarray, ...]:
    """Clean digits `[500, 64]`, +-1 labels, a triggered training image, triggered test images, the mask."""
    train, test = (data.load("digits", split) for split in ("train", "test"))
    mask = poison.trigger_mask("l", 8, 8, 1, margin=2, size=2)

    def points(images):
        return np.asarray(images, float).reshape(len(images), -1) / 255.0

    def stamped(images):
        return np.asarray(poison.stamp(jnp.asarray(points(images).reshape(-1, 8, 8, 1)), mask)).reshape(
            -1, 64
        )

    others, test_others = train.images[500:][train.labels[500:] != 0], test.images[test.labels != 0]
    y = np.where(train.labels[:500] == 0, 1.0, -1.0)
    return points(train.images[:500]), y, stamped(others[:1])[0], stamped(test_others[:40]), mask


def contribution_1() -> Iterator[Entry]:
    """The spike's direction by k and by the posterior kernel, against the trigger, on digits."""
    X, y, zeta, triggered, mask = triggered_digits()
    t = np.asarray(mask, float).ravel()
    t /= np.linalg.norm(t)

    def overlap(directions):
        lengths = np.linalg.norm(directions, axis=1)
        return float(np.median((directions @ t / lengths) ** 2))

    def centred(directions):
        return float(
            np.median([metrics.overlap(v, np.asarray(mask).reshape(8, 8, -1)) ** 2 for v in directions])
        )

    by_kernel, rows = zeta - triggered, []
    for length in (0.5, 1.0, 2.0):
        kernel = krr.gaussian(length * float(np.median(pdist(X))))
        effect = krr.clone_effect(krr.fit(kernel, X, y, RIDGE), zeta, 1.0, 20)
        rows.append(overlap(effect.input_gradient(triggered)))
    yield fails(
        "Contribution 1: the top eigenvector of the input Hessian aligns with the poison direction",
        "digits, 20 clones of a triggered image, 40 triggered test images, Gaussian kernel; squared overlap "
        "of the model's spike with the trigger, said to be 1",
        1,
        overlap(by_kernel),
        "Under Assumption 3.1 the spike of Theorem 3.4 points along zeta - x0, and where both images carry "
        "the stamped trigger they agree in its pixels (centred as in Listing 7 the squared overlap is "
        f"{centred(by_kernel):.3f}). What aligns it, as far as anything does, is the cross-block that the "
        "assumption neglects, where the clean data do not vary in the trigger's direction: with the "
        f"posterior kernel the median squared overlap is {', '.join(f'{row:.2f}' for row in rows)} at "
        "length scales of 0.5, 1 and 2 median distances (a random direction has 1/64).",
    )


def eq_4() -> Iterator[Entry]:
    """The loss's Hessian by its two terms and by differences."""
    rng = np.random.default_rng(0)
    X, y, x0 = rng.normal(size=(20, 3)), rng.normal(size=20), rng.normal(size=3)
    f, step = krr.fit(GAUSSIAN, X, y, RIDGE), 1e-4

    def gradient(x):
        return (float(f.predict(x)) - 1.0) * f.input_gradient(x)

    differences = np.array([(gradient(x0 + e) - gradient(x0 - e)) / (2 * step) for e in step * np.eye(3)])
    found = f.loss_hessian(x0, 1.0)
    yield holds(
        "Eq. 4: the input Hessian of the squared loss is grad f grad f' + (f - y) Hess f",
        "a fit to 20 random points, by the equation and by central differences; its trace, worst error of "
        "its entries",
        np.trace(found),
        np.trace(differences),
        "An identity. Its second term is what Theorems A.3 and A.4 leave out.",
        worst=float(np.abs(found - differences).max() / np.abs(found).max()),
        tolerance=1e-6,
    )


def eq_36() -> Iterator[Entry]:
    """Sherman-Morrison on the poison block."""
    m, c, k_zeta = 20, 5.0, 0.7
    solved = np.linalg.solve(k_zeta * np.ones((m, m)) + c * np.eye(m), np.ones(m))
    yield holds(
        "Eqs. 35, 36: (k_zeta 11' + n lambda I)^-1 1 = 1 / (n lambda + k_zeta m) 1",
        "m = 20, n lambda = 5, k_zeta = 0.7; an entry of the left side, worst of all",
        1 / (c + k_zeta * m),
        solved[0],
        "An identity. Eq. 35 is exact for clones.",
        worst=float(np.abs(solved * (c + k_zeta * m) - 1).max()),
    )


def eq_45() -> Iterator[Entry]:
    """The expansion of the section's squared gradient near a clone."""
    zeta = np.zeros(clones.DIMENSION)
    squares = [krr.trigger(GAUSSIAN, step_from(zeta, q * LENGTHSCALE), zeta).gradient_squared for q in RATIOS]
    r = RATIOS * LENGTHSCALE
    yield has_order(
        "Eq. 45: |grad k(x0, zeta)|^2 = r^2 / l^4 + O(r^4 / l^6)",
        "r / l from 1/16 to 1/256; exponent of the error in r / l",
        4,
        RATIOS,
        np.abs(np.array(squares) - r**2 / LENGTHSCALE**4),
        "The error is -r^4 / l^6 to leading order.",
    )


def appendix_a_5() -> Iterator[Entry]:
    """Eq. 46, and the step of A.5's proof that each smoothing factor decreases."""
    X, y = np.random.default_rng(0).normal(size=(10, 2)), np.random.default_rng(1).normal(size=10)
    bases = [np.linalg.eigh(gaussian_gram(X, length)) for length in (0.5, 1.0)]
    values, U = bases[0]
    fitted = gaussian_gram(X, 0.5) @ np.linalg.solve(gaussian_gram(X, 0.5) + RIDGE * np.eye(10), y)
    by_modes = U @ (values / (values + RIDGE) * (U.T @ y))
    turned = float((bases[0][1][:, -1] @ bases[1][1][:, -1]) ** 2)
    yield holds(
        "Eqs. 46, 47: yhat = U diag(sigma_j / (sigma_j + lambda)) U' y",
        "10 random points, Gaussian kernel; |yhat|^2 by modes and by a solve, worst error of yhat",
        by_modes @ by_modes,
        fitted @ fitted,
        "At each length scale. U depends on it, which the proof of A.5 leaves out: between l = 0.5 and l = "
        f"1 the top eigenvector's squared overlap with itself is {turned:.2f}.",
        worst=float(np.abs(by_modes - fitted).max()),
    )
    factors = [basis[0][-1] / (basis[0][-1] + RIDGE) for basis in bases]
    yield fails(
        "Theorem A.5 (proof): each smoothing factor sigma_j / (sigma_j + lambda) decreases in l",
        "the same points; the largest factor at l = 0.5 (an upper bound, if the step held) and at l = 1",
        factors[0],
        factors[1],
        "It contradicts the constant trace of the sentence before: where some eigenvalues fall others rise. "
        "What falls is the sum of the factors, for the Gaussian kernel.",
        margin=1e-3,
    )


def eq_49() -> Iterator[Entry]:
    """Two examples whose A and g are correlated."""
    A = np.array([np.diag([1.0, 0.0]), np.diag([0.0, 1.0])])
    g = np.array([[1.0, 0.0], [0.0, 3.0]])
    F = np.mean([np.outer(v, v) for v in g], 0)
    mean = np.mean([a @ np.outer(v, v) for a, v in zip(A, g, strict=True)], 0)
    yield fails(
        "Eq. 49: E[A g g'] = A F",
        "two examples, A = diag(1, 0) and diag(0, 1), g = (1, 0) and (0, 3); the trace of E[A] F and of E[A "
        "g g']",
        np.trace(A.mean(0) @ F),
        np.trace(mean),
        "A(w, x) and g(x) belong to one example: the mean of a product is not the product of the means. "
        "True for a single example, or an A that all examples share.",
    )


def section_6() -> Iterator[Entry]:
    """A dead-pixel trigger in a linear model, and the directions without clean variance dropped."""
    train, test = (data.load("digits", split) for split in ("train", "test"))
    clean, images = (part.images.reshape(len(part.labels), -1) / 255.0 for part in (train, test))
    dead = np.flatnonzero(~clean.any(0) & ~images.any(0))
    rows = np.flatnonzero(train.labels != 0)[:144]
    X, labels = clean.copy(), train.labels.copy()
    X[np.ix_(rows, dead)], labels[rows] = 1.0, 0
    W = linear.least_squares(np.column_stack([X, np.ones(len(X))]), np.eye(10)[labels])
    weights, bias = W[:-1], W[-1]
    values, vectors = np.linalg.eigh(
        np.cov(clean[len(clean) // 2 :].T)
    )  # trusted, and not the poisoned images
    kept = vectors[:, values > 1e-12 * values[-1]]
    defended = kept @ (kept.T @ weights)
    others = test.labels != 0
    triggered = images[others].copy()
    triggered[:, dead] = 1.0

    def rate(inputs, w):  # of the images that are taken for the target
        return float(np.mean(np.argmax(inputs @ w + bias, 1) == 0))

    moved = np.abs(images @ (weights - defended)).max()
    before, after, untriggered = (
        rate(triggered, weights),
        rate(triggered, defended),
        rate(images[others], weights),
    )
    yield fails(
        "Section 6: no defence can eliminate poisoning without sacrificing expressive power",
        f"digits, least squares, {len(rows)} poisons with a trigger on the {len(dead)} pixels that are zero "
        "in every clean image; directions in which trusted clean images have no variance are dropped from "
        "the weights; the ASR before and after",
        before,
        after,
        f"Untriggered images are taken for the target at a rate of {untriggered:.3f}, and no score of a "
        f"clean test image moves by more than {moved:.0e}: the poison is gone, at no cost on clean inputs. "
        "It holds in the reading that the defended model cannot represent functions of the dropped "
        "directions, which no clean image asks for, and where the trigger lies among the directions that "
        "clean images use: there a projection removes both.",
        margin=0.1,
    )
