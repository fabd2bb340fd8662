"""Section 3.5.1, Appendices A.5 and D: what the gradient penalty does to a kernel's fit."""

import numpy as np
import scipy.optimize
from scipy.spatial.distance import cdist

from poison_jax import krr
from poison_jax.theory.entry import Entry, fails, holds

LENGTHSCALE, RIDGE, KAPPA = 1.0, 0.1, 0.5


def problem(n: int = 12, p: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random points and targets with a Gaussian kernel: X `[n, p]`, y `[n]`, K and G `[n, n]`."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, p)), rng.normal(size=n)
    return X, y, gaussian_gram(X, LENGTHSCALE), krr.gradient_gram(krr.gaussian(LENGTHSCALE), X)


def gaussian_gram(X: np.ndarray, lengthscale: float) -> np.ndarray:
    """K of the Gaussian kernel, by differences."""
    return np.exp(-cdist(X, X, "sqeuclidean") / (2 * lengthscale**2))


def objective(alpha, K, G, y, ridge, kappa):
    """J of `krr.penalised`: what eq. 26 is said to minimise."""
    return (
        0.5 * np.sum((y - K @ alpha) ** 2) + 0.5 * ridge * alpha @ K @ alpha + 0.5 * kappa * alpha @ G @ alpha
    )


def eq_26() -> Entry:
    """Eq. 26's alpha against a numerical minimisation of J, and against the whole function space."""
    X, y, K, G = problem()
    paper = krr.PenalisedPath(K, G, form="paper").alpha(y, RIDGE, KAPPA)
    exact = krr.PenalisedPath(K, G).alpha(y, RIDGE, KAPPA)
    arguments = (K, G, y, RIDGE, KAPPA)
    found = scipy.optimize.minimize(objective, np.zeros(len(y)), arguments, tol=1e-12).fun
    whole = krr.hermite_fit(krr.gaussian(LENGTHSCALE), X, y, RIDGE, KAPPA)
    everywhere = (
        0.5 * np.sum((y - whole.values) ** 2)
        + 0.5 * RIDGE * whole.norm_squared
        + 0.5 * KAPPA * np.sum(whole.gradients**2)
    )
    return fails(
        "Eq. 26 (stationarity): (K + lambda I + kappa G) alpha = y is the fit with the gradient penalty",
        "12 random points in the plane; J = |y - K a|^2/2 + lambda a'Ka/2 + kappa a'Ga/2, predicted to be "
        "minimal at eq. 26's alpha, and minimised numerically",
        objective(paper, *arguments),
        found,
        "True instead, over the span of k(., x_i): [K (K + lambda I) + kappa G] alpha = K y, that is K^-1 G "
        f"in place of G (J = {objective(exact, *arguments):.6f}). Moreover the representer theorem for a "
        "penalty on gradients adds the functions d/dx_ij k(., x_i) to that span; over the whole space the "
        f"minimum is J = {everywhere:.6f}: kernel ridge regression on values and on gradients observed to "
        "be zero with ridge lambda / kappa. Eq. 2 writes n lambda where eq. 26 writes lambda.",
    )


def eq_26_penalty() -> Entry:
    """Eq. 25's objective, quartic in alpha, minimised numerically."""
    X, y, K, G = problem(n=8, seed=1)
    difference = (X[:, None] - X[None]) / LENGTHSCALE**2
    sections = -difference * K[..., None]  # [i, a, p]: grad_x k(x_i, x_a)

    def eq_25(alpha):
        residual = K @ alpha - y
        gradient = residual[:, None] * np.einsum("iap,a->ip", sections, alpha)
        return 0.5 * np.sum(residual**2) + 0.5 * RIDGE * alpha @ K @ alpha + 0.5 * KAPPA * np.sum(gradient**2)

    linear = krr.PenalisedPath(K, G).alpha(y, RIDGE, KAPPA)
    found = min(scipy.optimize.minimize(eq_25, start, tol=1e-12).fun for start in (linear, np.zeros(len(y))))
    return fails(
        "Eq. 26 (from eq. 25): it is the KRR form of eq. 25, which penalises |grad_x L|^2",
        "8 random points; eq. 25's objective (with the ridge, times n) at the fit that penalises |grad "
        "f|^2, and its minimum found numerically",
        eq_25(linear),
        found,
        "grad_x L = (f - y) grad f, so that eq. 25 is quartic in alpha and has no linear system; eq. 26 "
        "penalises |grad f|^2 at the training points, a different objective: where the fit is good, eq. 25 "
        "hardly penalises.",
    )


def eq_27() -> Entry:
    """The quadratic form of G against the gradients of a fit."""
    X, y, _, G = problem(n=40, p=5)
    f = krr.fit(krr.gaussian(LENGTHSCALE), X, y, RIDGE)
    predicted = f.alpha @ G @ f.alpha
    lowest = np.linalg.eigvalsh(G)[0] / np.linalg.eigvalsh(G)[-1]
    return holds(
        "Eq. 27: alpha' G alpha = sum_i |grad f(x_i)|^2, and G is positive semidefinite",
        "40 random points in 5 dimensions, Gaussian kernel; the sum of squared input gradients",
        predicted,
        np.sum(f.input_gradient(X) ** 2),
        "An identity. "
        + ("G's smallest eigenvalue is not negative beyond rounding." if lowest > -1e-12 else f"{lowest}"),
    )


def theorem_3_9_df() -> Entry:
    """df's derivative by its formula and by differences, and a search for an increase."""
    increases, tried, step = 0, 0, 1e-5
    for seed in range(20):
        _, _, K, G = problem(n=8, seed=seed)
        for form in ("paper", "exact"):
            path = krr.PenalisedPath(K, G, form=form)
            values = [path.degrees_of_freedom(RIDGE, kappa) for kappa in (0, 0.01, 0.1, 1, 10, 1e3)]
            tried, increases = tried + 5, increases + int((np.diff(values) >= 0).sum())
    path = krr.PenalisedPath(K, G, form="paper")
    inverse = np.linalg.inv(K + RIDGE * np.eye(8) + KAPPA * G)
    predicted = -np.trace(K @ inverse @ G @ inverse)
    measured = (
        path.degrees_of_freedom(RIDGE, KAPPA + step) - path.degrees_of_freedom(RIDGE, KAPPA - step)
    ) / (2 * step)
    return holds(
        "Theorem 3.9 (df): the effective degrees of freedom (eq. 28) decrease strictly in kappa",
        "8 random points; d df / d kappa by its formula -tr[K M^-1 G M^-1], M = K + lambda I + kappa G, and "
        "by central differences",
        predicted,
        measured if not increases else np.inf,
        "Wherever K is positive definite and G not zero, for eq. 26 and for the corrected system "
        f"({increases} increases in {tried} steps of random problems). Where no section has a gradient at a "
        "training point, as for clones of one point under a Gaussian kernel, G = 0 and df is constant.",
        tolerance=1e-7,
    )


def residual_counterexample(form: str, kappa: float = 0.3) -> tuple[float, float]:
    """|y - K alpha|^2 at kappa = 0 and at `kappa`, for the y whose residual falls fastest.

    Three points on a line. At kappa = 0 the residual's derivative is a quadratic form in
    z = (K + lambda)^-1 y, with the symmetric part of K (K + lambda)^-1 G (paper) or (K + lambda)^-1 G
    (exact); K and G do not commute, and it is indefinite.
    """
    X = np.array([[0.0], [0.5], [2.0]])
    K, G = gaussian_gram(X, 1.0), krr.gradient_gram(krr.gaussian(1.0), X)
    M = K + RIDGE * np.eye(3)
    slope = np.linalg.solve(M, G) if form == "exact" else K @ np.linalg.solve(M, G)
    _, vectors = np.linalg.eigh((slope + slope.T) / 2)
    y = M @ vectors[:, 0]
    path = krr.PenalisedPath(K, G, form=form)
    residuals = [float(np.sum((y - K @ path.alpha(y, RIDGE, k)) ** 2)) for k in (0.0, kappa)]
    return residuals[0], residuals[1]


def theorem_3_9_residual() -> Entry:
    """Three points whose residual falls, in both forms of the system."""
    before, after = residual_counterexample("paper")
    exact = residual_counterexample("exact")
    return fails(
        "Theorem 3.9 (residual): the training residual |y - K alpha|^2 increases strictly in kappa",
        "points 0, 0.5, 2 on a line, l = 1, lambda = 0.1, a y chosen against it; the residual at kappa = 0 "
        "(a lower bound, if the statement held) and at kappa = 0.3",
        before,
        after,
        f"K and G do not commute, and the residual can fall; in the corrected system too ({exact[0]:.6f} to "
        f"{exact[1]:.6f}, its own y). True instead, for the minimiser of J: the penalty alpha' G alpha does "
        "not increase, and |y - K alpha|^2 + lambda alpha' K alpha does not decrease.",
        margin=1e-4,
    )


ENTRIES = (eq_26, eq_26_penalty, eq_27, theorem_3_9_df, theorem_3_9_residual)
