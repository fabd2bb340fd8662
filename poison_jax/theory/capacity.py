"""Section 3.5.1: what the gradient penalty does to a kernel's fit."""

from collections.abc import Iterator

import numpy as np
import scipy.optimize
from scipy.spatial.distance import cdist

from poison_jax import krr
from poison_jax.theory.entry import Entry, fails, holds

LENGTHSCALE, RIDGE, KAPPA = 1.0, 0.1, 0.5
GAUSSIAN = krr.gaussian(LENGTHSCALE)


def problem(n: int = 12, p: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random points and targets with a Gaussian kernel: X `[n, p]`, y `[n]`, K and G `[n, n]`."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, p)), rng.normal(size=n)
    return X, y, gaussian_gram(X, LENGTHSCALE), krr.gradient_gram(GAUSSIAN, X)


def gaussian_gram(X: np.ndarray, lengthscale: float) -> np.ndarray:
    """K of the Gaussian kernel, by differences."""
    return np.exp(-cdist(X, X, "sqeuclidean") / (2 * lengthscale**2))


def section_gradients(X: np.ndarray, lengthscale: float) -> np.ndarray:
    """grad_x k(x_i, x_a) of the Gaussian kernel, `[i, a, p]`."""
    return -(X[:, None] - X) / lengthscale**2 * gaussian_gram(X, lengthscale)[..., None]


def eq_26() -> Iterator[Entry]:
    """Eq. 26's alpha against a minimisation of J, of eq. 25, and against the whole function space."""
    X, y, K, G = problem()

    def J(alpha):
        norm, penalty = 0.5 * RIDGE * alpha @ K @ alpha, 0.5 * KAPPA * alpha @ G @ alpha
        return 0.5 * np.sum((y - K @ alpha) ** 2) + norm + penalty

    paper = krr.PenalisedPath(K, G, form="paper").alpha(y, RIDGE, KAPPA)
    exact = krr.PenalisedPath(K, G).alpha(y, RIDGE, KAPPA)
    whole = krr.hermite_fit(GAUSSIAN, X, y, RIDGE, KAPPA)
    everywhere = (
        0.5 * np.sum((y - whole.values) ** 2)
        + 0.5 * RIDGE * whole.norm_squared
        + 0.5 * KAPPA * np.sum(whole.gradients**2)
    )
    yield fails(
        "Eq. 26 (stationarity): (K + lambda I + kappa G) alpha = y is the fit with the gradient penalty",
        "12 random points in the plane; J = |y - K a|^2/2 + lambda a'Ka/2 + kappa a'Ga/2, predicted to be "
        "minimal at eq. 26's alpha, and minimised numerically",
        J(paper),
        scipy.optimize.minimize(J, np.zeros(len(y)), tol=1e-12).fun,
        "True instead, over the span of k(., x_i): [K (K + lambda I) + kappa G] alpha = K y, that is K^-1 G "
        f"in place of G (J = {J(exact):.6f}). Moreover the representer theorem for a penalty on gradients "
        "adds the functions d/dx_ij k(., x_i) to that span; over the whole space the minimum is J = "
        f"{everywhere:.6f}: kernel ridge regression on values and on gradients observed to be zero with "
        "ridge lambda / kappa. Eq. 2 writes n lambda where eq. 26 writes lambda.",
    )

    X, y, K, G = problem(n=8, seed=1)
    sections = section_gradients(X, LENGTHSCALE)

    def eq_25(alpha):
        residual = K @ alpha - y
        gradient = residual[:, None] * np.einsum("iap,a->ip", sections, alpha)
        return 0.5 * np.sum(residual**2) + 0.5 * RIDGE * alpha @ K @ alpha + 0.5 * KAPPA * np.sum(gradient**2)

    linear = krr.PenalisedPath(K, G).alpha(y, RIDGE, KAPPA)
    yield fails(
        "Eq. 26 (from eq. 25): it is the KRR form of eq. 25, which penalises |grad_x L|^2",
        "8 random points; eq. 25's objective (with the ridge, times n) at the fit that penalises |grad "
        "f|^2, and its minimum found numerically",
        eq_25(linear),
        min(scipy.optimize.minimize(eq_25, start, tol=1e-12).fun for start in (linear, np.zeros(len(y)))),
        "grad_x L = (f - y) grad f, so that eq. 25 is quartic in alpha and has no linear system; eq. 26 "
        "penalises |grad f|^2 at the training points, a different objective: where the fit is good, eq. 25 "
        "hardly penalises.",
    )


def eq_27() -> Iterator[Entry]:
    """The quadratic form of G against the gradients of a fit."""
    X, y, _, G = problem(n=40, p=5)
    f = krr.fit(GAUSSIAN, X, y, RIDGE)
    values = np.linalg.eigvalsh(G)
    lowest = values[0] / values[-1]
    yield holds(
        "Eq. 27: alpha' G alpha = sum_i |grad f(x_i)|^2, and G is positive semidefinite",
        "40 random points in 5 dimensions, Gaussian kernel; the sum of squared input gradients",
        f.alpha @ G @ f.alpha,
        np.sum(f.input_gradient(X) ** 2),
        "An identity. "
        + ("G's smallest eigenvalue is not negative beyond rounding." if lowest > -1e-12 else f"{lowest}"),
    )


def theorem_3_9() -> Iterator[Entry]:
    """df's derivative by its formula and by differences, a search for an increase; residuals that fall."""
    increases, tried, step = 0, 0, 1e-5
    for seed in range(20):
        _, _, K, G = problem(n=8, seed=seed)
        for form in ("exact", "paper"):
            path = krr.PenalisedPath(K, G, form=form)
            values = [path.degrees_of_freedom(RIDGE, kappa) for kappa in (0, 0.01, 0.1, 1, 10, 1e3)]
            tried, increases = tried + 5, increases + int((np.diff(values) >= 0).sum())
    inverse = np.linalg.inv(K + RIDGE * np.eye(8) + KAPPA * G)  # of the last problem, in the paper's form
    above, beneath = (path.degrees_of_freedom(RIDGE, KAPPA + sign * step) for sign in (1, -1))
    yield holds(
        "Theorem 3.9 (df): the effective degrees of freedom (eq. 28) decrease strictly in kappa",
        "8 random points; d df / d kappa by its formula -tr[K M^-1 G M^-1], M = K + lambda I + kappa G, and "
        "by central differences",
        -np.trace(K @ inverse @ G @ inverse),
        (above - beneath) / (2 * step) if not increases else np.inf,
        "Wherever G is not zero, for eq. 26 and for the corrected system "
        f"({increases} increases in {tried} steps of random problems). Where no section has a gradient at a "
        "training point, as for clones of one point under a Gaussian kernel, G = 0 and df is constant.",
        tolerance=1e-7,
    )

    before, after = residual_counterexample("paper")
    exact = residual_counterexample("exact")
    yield fails(
        "Theorem 3.9 (residual): the training residual |y - K alpha|^2 increases strictly in kappa",
        "points 0, 0.5, 2 on a line, l = 1, lambda = 0.1, a y chosen against it; the residual at kappa = 0 "
        "(a lower bound, if the statement held) and at kappa = 0.3",
        before,
        after,
        f"K and G do not commute, and the residual can fall; in the corrected system too ({exact[0]:.6f} to "
        f"{exact[1]:.6f}, its own y). True instead, for the minimiser of J: y'(y - yhat) does not decrease, "
        "for any y, nor E|y - yhat|^2 over uncorrelated labels of mean zero and equal variance (Theorem A's "
        "corollary); the penalty alpha' G alpha does not increase, and |y - K alpha|^2 + lambda alpha' K "
        "alpha does not decrease.",
        margin=1e-4,
    )


def residual_counterexample(form: str, kappas: tuple[float, ...] = (0.0, 0.3)) -> list[float]:
    """|y - K alpha|^2 at each kappa, for the y whose residual falls fastest.

    Three points on a line. At kappa = 0 the residual's derivative is a quadratic form in
    z = (K + lambda)^-1 y, with the symmetric part of K (K + lambda)^-1 G (paper) or (K + lambda)^-1 G
    (exact); K and G do not commute, and it is indefinite.
    """
    X = np.array([[0.0], [0.5], [2.0]])
    K, G = gaussian_gram(X, LENGTHSCALE), krr.gradient_gram(GAUSSIAN, X)
    M = K + RIDGE * np.eye(3)
    slope = np.linalg.solve(M, G) if form == "exact" else K @ np.linalg.solve(M, G)
    _, vectors = np.linalg.eigh((slope + slope.T) / 2)
    y = M @ vectors[:, 0]
    path = krr.PenalisedPath(K, G, form=form)
    return [float(np.sum((y - K @ path.alpha(y, RIDGE, kappa)) ** 2)) for kappa in kappas]
