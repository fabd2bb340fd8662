"""The curves behind the theory's figures, each a dict of arrays made by real fits on synthetic data."""

import numpy as np

from poison_jax import krr
from poison_jax.theory import capacity, clones, filters
from poison_jax.theory.flow import PoisonedFlow

Arrays = dict[str, np.ndarray]


def spike_law() -> Arrays:
    """Efficacy and Gauss-Newton spike for m = 1 to 1000 clones at several r / l, clones far from the data,
    and the same two length scales from the data (`near_*`), with R of the posterior kernel there."""
    ratios, m = np.array([0.01, 0.1, 0.5, 1.0, 2.0]), np.array([1, 3, 10, 30, 100, 300, 1000])
    result = {"ratios": ratios, "m": m, "lengthscale": np.array(clones.LENGTHSCALE)}
    for prefix, distance in (("far", 60.0), ("near", 3.0)):
        cases = [clones.poison(clones.GAUSSIAN, count, 1.0, distance=distance) for count in m]
        points = [clones.step_from(cases[0].zeta, ratio * clones.LENGTHSCALE) for ratio in ratios]
        open_part = cases[0].clean.posterior(cases[0].zeta)
        factors = [np.sum(open_part.input_gradient(x) ** 2) / open_part.predict(x) ** 2 for x in points]
        result |= {
            f"{prefix}_efficacy": np.array([[case.shift(x) for case in cases] for x in points]),
            f"{prefix}_spike": np.array([[case.spike(x) for case in cases] for x in points]),
            f"{prefix}_factor": np.array(factors),
        }
    return result


def twilight_zone() -> Arrays:
    """Efficacy, Gauss-Newton spike and the loss Hessian's extreme eigenvalues against r / l.

    m = 20 clones with y_t = 1 far from the data; the Hessian for y = 1 (`target`) and y = -1 (`truth`).
    """
    case = clones.poison(clones.GAUSSIAN, 20, 1.0)
    ratios = np.geomspace(1e-3, 5, 40)
    points = [clones.step_from(case.zeta, ratio * clones.LENGTHSCALE) for ratio in ratios]
    result = {
        "ratios": ratios,
        "efficacy": np.array([case.shift(x) for x in points]),
        "spike": np.array([np.sum(case.poisoned.input_gradient(x) ** 2) for x in points]),
    }
    for name, label in (("target", 1.0), ("truth", -1.0)):
        values = np.array([np.linalg.eigvalsh(case.poisoned.loss_hessian(x, label)) for x in points])
        result |= {f"{name}_largest": values[:, -1], f"{name}_smallest": values[:, 0]}
    return result


def lost_capacity() -> Arrays:
    """Degrees of freedom and training residual against kappa, in both forms, for random targets and for
    those of Theorem 3.9's counterexample."""
    kappas = np.concatenate([[0.0], np.geomspace(1e-4, 1e2, 40)])
    _, y, K, G = capacity.problem(n=40)
    result = {"kappas": kappas}
    for form in ("exact", "paper"):
        path = krr.PenalisedPath(K, G, form=form)
        residuals = [np.sum((y - K @ path.alpha(y, capacity.RIDGE, k)) ** 2) for k in kappas]
        result |= {
            f"{form}_df": np.array([path.degrees_of_freedom(capacity.RIDGE, k) for k in kappas]),
            f"{form}_residual": np.array(residuals),
            f"{form}_counterexample": np.array(capacity.residual_counterexample(form, kappas)),
        }
    return result


def filter_responses() -> Arrays:
    """What the penalised fit keeps of each frequency on a circle: measured, and three formulae for it."""
    omega, measured, _ = filters.circle("exact")
    fine = np.linspace(0, omega[-1], 200)
    curves = {form: filters.circle_response(fine, form=form) for form in ("exact", "remark", "paper")}
    unpenalised = filters.circle_response(fine, 0.0)
    return {"omega": omega, "measured": measured, "fine": fine, "unpenalised": unpenalised, **curves}


def fisher_decay() -> Arrays:
    """v'F v under gradient flow on J for the poison's eigenvector of F(0) and the weakest one, and eq. 32.

    The bound uses the smallest alpha of eq. 31 over all training points and times.
    """
    times, kappas = np.linspace(0, 20, 81), np.array([0.0, 1.0, 10.0, 100.0])
    system = PoisonedFlow()
    _, vectors = np.linalg.eigh(system.fisher(system.start))
    strong, weak = vectors[:, -1], vectors[:, 0]
    paths = [system.run(kappa, times) for kappa in kappas]
    fishers = np.array([[system.fisher(alpha) for alpha in path] for path in paths])
    energies = np.einsum("i,ktij,j->kt", strong, fishers, strong)
    objective = [[system.objective(a, k) for a in path] for k, path in zip(kappas, paths, strict=True)]
    alphas = [min(system.smallest_alpha(a, strong) for a in path) for path in paths]
    return {
        "times": times,
        "kappas": kappas,
        "poison_direction": strong,
        "strong": energies,
        "weak": np.einsum("i,ktij,j->kt", weak, fishers, weak),
        "trace": np.trace(fishers, axis1=2, axis2=3),
        "objective": np.array(objective),
        "bound": energies[:, :1] * np.exp(-2 * np.outer(kappas * alphas, times)),
    }


CURVES = {
    curve.__name__: curve
    for curve in (spike_law, twilight_zone, lost_capacity, filter_responses, fisher_decay)
}
