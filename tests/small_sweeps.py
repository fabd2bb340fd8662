"""Records of sweeps that were never run, for the figures' and tables' tests."""

import numpy as np
from small_stores import write_lines

import plots
from poison_jax import config as config_lib
from poison_jax.runs import records

SHAPE = (8, 8, 3)


def record(
    *,
    asr=0.5,
    overlap=(0.3, 0.1, 0.05),
    accuracy=0.8,
    untriggered=0.02,
    status="ok",
    features=False,
    **overrides,
):
    """A finished cell; `poison__fraction=0.1` and the like are what it overrides."""
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    config = config_lib.default()
    config.data.n_train = 10_000
    config.update_from_flattened_dict(overrides)
    result = {
        "asr": asr,
        "clean_accuracy": accuracy,
        "robust_accuracy": 0.3,
        "no_trigger_target_rate": untriggered,
        "status": status,
        "overlap": list(overlap),
        "trigger_found": max(value**2 for value in overlap) > 0.1,
        "max_overlap_index": int(np.argmax(np.square(overlap))),
        "eigenvalues": [3.0, 0.2, 0.1],
        "residuals": [1e-5, 1e-3, 0.01],
        "hessian_examples": 512,
        "config": config.to_dict(),
    }
    return records.Record(_name(overrides), overrides, result, lambda: _arrays(overrides, features))


def grid(thetas, kappas, seeds, asr, overlap, **others):
    """Cells of every theta, kappa and seed; `asr` and `overlap` (v1's squared) of (theta, kappa, seed)."""
    return [
        record(
            poison__fraction=theta,
            penalty__kappa=kappa,
            seed=seed,
            asr=asr(theta, kappa, seed),
            overlap=(-(overlap(theta, kappa, seed) ** 0.5), 0.05, 0.01),
            **others,
        )
        for theta in thetas
        for kappa in kappas
        for seed in seeds
    ]


def draw(name, cells, sweep="mine"):
    """The parts of a figure of these cells, not yet files."""
    return plots.table().of_records(cells, name, sweep)


def panel(figure, name):
    """The panel whose y axis has this name."""
    return next(axis for axis in figure.axes if axis.get_ylabel() == name)


def line(axis, label):
    """The line of this label."""
    (found,) = (line for line in axis.lines if line.get_label() == label)
    return found


def write(folder, name, cells):
    """`<name>.jsonl` in a folder, as `records` reads it."""
    write_lines(cells, folder / f"{name}.jsonl")
    return folder


def _name(overrides):
    return "cell-" + "-".join(str(value) for value in overrides.values())


def _arrays(overrides, features):
    rng = np.random.default_rng(sorted(_name(overrides).encode()))
    trigger = np.zeros(SHAPE[:2])
    trigger[1, 5:7] = 1
    arrays = {
        "top_eigenvector": rng.standard_normal(SHAPE[:2]),
        "shape": np.array(SHAPE),
        "trigger": trigger,
    }
    if features:
        arrays |= {name: i + np.arange(10) / 10 for i, name in enumerate(records.COLUMNS)}
        arrays["distance_ratio"] = np.where(np.arange(10) == 0, np.nan, arrays["distance_ratio"])
        arrays |= {"class_names": np.array([f"class {c}" for c in range(10)]), "target": np.array(0)}
    return arrays
