"""The poisoned linear regression of Section 4: exact, by Lemma F.1, with a ridge, and by SGD.

A linear model of the pixels is fitted to one-hot labels by squared error; images are classified by the
argmax. Every fit here is linear in the targets, and one-hot labels sum to 1 over the classes: a fit W to
them gives the one to targets of +-1, 2 W - W 1 1', without fitting again (`plus_minus`). The two classify
alike; their input Hessians, W W', differ.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from poison_jax import console, linear, metrics
from poison_jax.errors import UserError
from poison_jax.experiments import views
from poison_jax.experiments.regression_setup import Problem, features_of
from poison_jax.linear import sgd as linear_sgd
from poison_jax.runs import provenance, store

Arrays = dict[str, np.ndarray]
BIAS = (False, True)  # an axis of every array: pixels alone, pixels and a constant 1


def run(
    config: ml_collections.ConfigDict, workdir: str = "runs", *, tensorboard: bool = False
) -> list[store.Run]:
    """Runs the experiment, prints its tables, returns the finished run: see `experiments.run`.

    The exact fits of a seed are a stage, and so is its SGD. There are no curves for TensorBoard.

    Raises:
        UserError: what only the data can show to be wrong, before any compute; an SGD that diverges.
    """
    problem = Problem(config)
    run = views.open_run(config, workdir)
    run.pin_inputs(problem.inputs_digest())
    for remark in problem.remarks():
        console.warn(remark)
    if run.finished() is not None:
        console.say(f"already done in {run.path}")
    else:
        with run.claim():
            console.say(str(run.path))
            _fill(problem, run)
    _show(run)
    return [run]


def plus_minus(weights: np.ndarray) -> np.ndarray:
    """The fit `[..., K]` to targets of +-1, from that to one-hot targets.

    2 Y - 1 is linear in one-hot Y, whose rows sum to 1, and so are the fits: least squares, with a ridge
    or without, and SGD from zero.
    """
    return 2 * weights - weights.sum(-1, keepdims=True)


# --- the fits -------------------------------------------------------------------------------------


def _exact(problem: Problem, seed: int, without: Callable, advance: Callable[[], None]) -> Arrays:
    """The direct fits of a seed, float64 `full [R, T, 2, d + 1, K]` (ridge, theta, bias), and Lemma F.1's.

    Args:
        without: bias -> the factorised clean design without the trigger's columns. Poison changes no
            other column, so this design is that of every theta and seed.

    Returns:
        Besides `full`: `step [T, 2, d + 1, K]`, the exact fit by adding the trigger's columns to the
        poisoned data's fit without them; `mean_residual [T, 2]` of that fit, target class, poisoned
        images; `num_poisoned [T]`.
    """
    trigger, classes, target = problem.trigger, problem.train_set.num_classes, problem.config.poison.target
    chosen = problem.poisoned(seed)
    full = np.zeros((len(problem.ridges), len(chosen), 2, len(trigger), classes))
    step, mean_residual = np.zeros(full.shape[1:]), np.full(full.shape[1:3], np.nan)
    for t, rows in enumerate(chosen):
        features = problem.stamped(problem.features, rows)
        targets = np.eye(classes)[np.where(rows, target, problem.train_set.labels)]
        design = linear.factorise(features)
        for b, bias in enumerate(BIAS):
            used, others = len(trigger) - 1 + bias, np.append(~trigger[:-1], bias)
            direct = linear.leading(design, used)
            for r, ridge in enumerate(problem.ridges):
                full[r, t, b, :used] = linear.least_squares(direct, targets, ridge=ridge)
            rest = without(bias)
            beta = linear.least_squares(rest, targets)
            update = linear.add_feature(rest, targets, beta, features[:, trigger])
            step[t, b, others], step[t, b, trigger] = update.beta_old, update.beta_new
            if rows.any():
                mean_residual[t, b] = (targets[rows] - rest.X[rows] @ beta)[:, target].mean()
        advance()
    return {"full": full, "step": step, "mean_residual": mean_residual, "num_poisoned": chosen.sum(1)}


def _sgd(problem: Problem, seed: int, advance: Callable[[], None]) -> Arrays:
    """Weights of a seed's SGD from zero, float32 `[E, T, 2, d + 1, K]` (epochs, theta, bias)."""
    c, trigger, classes = problem.config, problem.trigger, problem.train_set.num_classes
    features = problem.features.astype(np.float32)
    used = np.ones((2, np.sum(~trigger)), np.float32)
    used[0, -1] = 0
    models = 2 * len(problem.thetas)
    sgd_data = jax.device_put(
        linear_sgd.Regression(
            features[:, ~trigger],
            features[:, trigger],
            problem.train_set.labels,
            np.repeat(problem.poisoned(seed), 2, axis=0),
            np.tile(used, (len(problem.thetas), 1)),
            np.float32(c.poison.value),
            np.int32(c.poison.target),
        )
    )
    sizes = np.sum(~trigger), np.sum(trigger)
    weights = linear_sgd.Weights(*(jnp.zeros((models, size, classes)) for size in sizes))
    steps, recorded = len(features) // c.train.batch_size, []
    for epoch in range(1, c.train.epochs + 1):
        order = np.random.default_rng([seed, epoch]).permutation(len(features))
        order = order[: steps * c.train.batch_size].reshape(steps, -1)
        weights = linear_sgd.epoch(weights, sgd_data, order, np.float32(c.train.learning_rate))
        if not jnp.isfinite(weights.rest).all():
            raise UserError(
                f"the SGD diverged in epoch {epoch}: lower train.learning_rate = {c.train.learning_rate:g}"
            )
        if epoch in problem.epochs:
            recorded.append(np.zeros((models, len(trigger), classes), np.float32))
            recorded[-1][:, ~trigger], recorded[-1][:, trigger] = weights
        advance()
    shape = len(recorded), len(problem.thetas), 2, len(trigger), classes
    return {"weights": np.array(recorded).reshape(shape), "steps": steps * np.array(problem.epochs)}


# --- the measures ---------------------------------------------------------------------------------


def _fill(problem: Problem, run: store.Run) -> None:
    """Makes the stages that are not there, and the result."""
    seeds = problem.config.linear.seeds
    clean = problem.features[:, np.append(~problem.trigger[:-1], True)]

    @functools.cache
    def without(bias):
        return linear.factorise(clean[:, : None if bias else -1])

    def stage(name, make, *args):
        return run.stage(name, lambda: make(problem, *args))

    def bar(title, name, per_seed):
        there = sum((run.path / f"{name}-{seed}.npz").exists() for seed in seeds)
        return console.progress(title, len(seeds) * per_seed, there * per_seed)

    with bar("  exact fits", "exact", len(problem.thetas)) as advance:
        exact = [stage(f"exact-{seed}", _exact, seed, without, advance) for seed in seeds]
    with bar("  epochs of SGD", "sgd", problem.config.train.epochs) as advance:
        sgd = [stage(f"sgd-{seed}", _sgd, seed, advance) for seed in seeds]
    with console.progress("  measuring", len(seeds)) as advance:
        measured = stage("measures", _measure, exact, sgd, advance)
    stages = *exact, *sgd, measured
    run.finish(
        {
            "theta": problem.config.linear.picture,
            "methods": _summary(problem, measured),
            "largest_step_full_difference": measured["step_full_difference"].max(),
            "num_train": len(problem.train_set.labels),
            "num_test": len(problem.test_set.labels),
            "seeds": seeds,
            "wall_seconds": sum(float(arrays["seconds"]) for arrays in stages),
            "config": problem.config.to_dict(),
            **provenance.here(),
        }
    )


def _measure(problem: Problem, exact: list[Arrays], sgd: list[Arrays], advance: Callable) -> Arrays:
    """Every measure of every fit: `[S, methods, T, 2]` (seed, theta, bias); of the Hessian `[..., 2]`, for
    one-hot targets and for +-1."""
    ridges = (f"ridge {c:g}" for c in problem.ridges[1:])
    sgd_fits = (f"SGD, {epochs} epoch{'s'[: epochs > 1]}" for epochs in problem.epochs)
    clean = features_of(problem.test_set.images)
    triggered = problem.stamped(clean)
    measured: dict[str, list] = {}
    step_full, sgd_full = [], []
    for fits, trained in zip(exact, sgd, strict=True):
        every = np.concatenate([fits["full"], trained["weights"]])
        reports = [
            _report(problem, clean, triggered, weights) for weights in every.reshape(-1, *every.shape[3:])
        ]
        for name in reports[0]:
            values = np.array([report[name] for report in reports])
            measured.setdefault(name, []).append(values.reshape(*every.shape[:3], *values.shape[1:]))
        step_full.append(_difference(fits["step"], fits["full"][0]))
        sgd_full.append(_difference(trained["weights"], fits["full"][:, None]))
        advance()
    return {name: np.array(values) for name, values in measured.items()} | {
        "step_full_difference": np.array(step_full),
        "sgd_full_difference": np.array(sgd_full),
        "methods": np.array(["exact", *ridges, *sgd_fits]),
        "thetas": np.array(problem.thetas),
        "ridges": np.array(problem.ridges),
        "epochs": np.array(problem.epochs),
        "steps": sgd[0]["steps"],
        "num_poisoned": np.array([fits["num_poisoned"] for fits in exact]),
        "mean_residual": np.array([fits["mean_residual"] for fits in exact]),
        "mask": problem.mask,
    }


def _report(problem: Problem, clean: np.ndarray, triggered: np.ndarray, weights: np.ndarray) -> Arrays:
    """Accuracies, the rise of the target's score with the trigger, the top of the input Hessian W W'."""
    labels, target = problem.test_set.labels, problem.config.poison.target
    scores = clean @ weights, triggered @ weights
    rise = (scores[1] - scores[0])[labels != target, target].mean()
    report = metrics.attack_report(*scores, labels, target) | {"rise": rise}
    tops = [np.linalg.svd(w[:-1], full_matrices=False) for w in (weights, plus_minus(weights))]
    report["eigenvalue"] = [s[0] ** 2 for _, s, _ in tops]
    report["overlap_squared"] = [metrics.overlap(U[:, 0], problem.mask) ** 2 for U, _, _ in tops]
    return report


def _difference(step: np.ndarray, full: np.ndarray) -> np.ndarray:
    """|step - full| / |full|, Frobenius norms over the last two axes."""
    return np.linalg.norm(step - full, axis=(-2, -1)) / np.linalg.norm(full, axis=(-2, -1))


# --- the tables -----------------------------------------------------------------------------------

_COLUMNS = {  # measure -> its column's head, and how much of it is 1 in the column
    "clean_accuracy": ("clean\naccuracy, %", 100),
    "asr": ("ASR, %", 100),
    "robust_accuracy": ("robust\naccuracy, %", 100),
    "no_trigger_target_rate": ("target rate w/o\ntrigger, %", 100),
    "rise": ("rise of the\ntarget's score", 1),
    "overlap_squared": ("overlap^2 of v1\nand trigger", 1),
    "eigenvalue": ("top eigenvalue", 1),
}


def _summary(problem: Problem, measured: Arrays) -> dict[str, dict[str, list[float]]]:
    """[mean, standard deviation] over the seeds, at `linear.picture`, with a bias, one-hot targets."""
    t = problem.thetas.index(problem.config.linear.picture)
    summary: dict[str, dict[str, list[float]]] = {}
    for m, method in enumerate(measured["methods"].tolist()):
        for name in (*_COLUMNS, "asr_incl_target"):
            values = measured[name][:, m, t, 1]
            one_hot = values.reshape(len(values), -1)[:, 0]
            summary.setdefault(method, {})[name] = [one_hot.mean(), one_hot.std()]
    return summary


def _show(run: store.Run) -> None:
    """The measures at one theta, and the ASR at all."""
    result, measured = run.result(), run.arrays("measures")
    c = result["config"]
    console.say(
        f"\n{c['data']['name']}, {result['num_train']} training images, linear regression with a bias, "
        f"{c['poison']['trigger']} trigger, target class {c['poison']['target']}; "
        f"mean ± standard deviation over seeds {', '.join(map(str, result['seeds']))}"
    )
    rows = []
    for method, values in result["methods"].items():
        scaled = [[scale * value for value in values[name]] for name, (_, scale) in _COLUMNS.items()]
        rows.append((method, *(f"{mean:.4g} ± {deviation:.1g}" for mean, deviation in scaled)))
    heads = [head for head, _ in _COLUMNS.values()]
    console.table(f"theta = {result['theta']:g}", ["fit", *heads], rows)
    rows = [
        (method, *(f"{100 * value:.1f}" for value in values))
        for method, values in zip(measured["methods"], measured["asr"][..., 1].mean(0), strict=True)
    ]
    console.table("ASR (%) against theta", ["fit", *(f"{t:g}" for t in measured["thetas"])], rows)
    difference = result["largest_step_full_difference"]
    console.say(f"largest relative difference of Lemma F.1's step from the direct fit: {difference:.1e}")
    console.say(f"total {console.duration(result['wall_seconds'])} on {result['device']}")
