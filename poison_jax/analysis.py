"""What is looked at in a trained network beyond its accuracy: input Hessian and Fisher, features, the theory.

Each function stores its arrays in the run's directory and returns what belongs in its result.
"""

from typing import Any

import jax
import numpy as np

from poison_jax import console, features, fisher, metrics, near_clone, spectrum, store, train
from poison_jax.errors import UserError
from poison_jax.lanczos import Eigenpairs
from poison_jax.setup import Setup


def after_epoch(setup: Setup, state: train.TrainState) -> dict[str, float]:
    """Neural collapse, the Fisher's energy along the trigger, efficacy and spike, as the config asks for."""
    c, row = setup.config.analysis, {}
    if c.collapse:
        images, _, labels = _training_images(setup, c.collapse)
        pre_fc = features.extract(
            setup.model.apply, state.variables, images, batch_size=setup.config.train.batch_size
        )
        row |= features.collapse(pre_fc, labels, *_last_layer(state))._asdict()
    if c.fisher:
        images, triggered, labels = _training_images(setup, c.fisher)
        gradients = fisher.input_gradients(
            setup.model.apply,
            state.variables,
            images,
            labels,
            batch_size=setup.config.spectrum.batch_size,
            mesh=setup.mesh,
        )
        trigger = _vector(setup.direction(images, triggered), images.shape[1:])
        row["fisher_energy"] = float(fisher.energies(gradients, trigger[None])[0])
        row["fisher_trace"] = float(fisher.trace(gradients))
    try:
        arrays = _at_triggered_images(setup, state, hessian_points=0)
    except UserError:  # said in the end
        arrays = None
    if arrays:
        row |= {f"near_clone_{name}": float(arrays[name]) for name in _MEDIANS}
    return row


def input_hessian(setup: Setup, run: store.Run, state: train.TrainState) -> dict[str, Any]:
    """Top eigenpairs of the input Hessian -> `spectrum.npz`; and of the input Fisher -> `fisher.npz`."""
    c = setup.config
    images, triggered, labels = _training_images(setup, c.spectrum.num_examples)
    direction = setup.direction(images, triggered)
    if c.spectrum.data == "poisoned":
        rows = _training_rows(setup, c.spectrum.num_examples)
        poisoned = setup.poisoned(rows)
        images = np.where(poisoned[:, None, None, None], triggered, images)
        labels = np.where(poisoned, setup.aim[labels], labels)

    def eigenpairs(operator, images, labels, **options) -> Eigenpairs:
        return operator(
            setup.model.apply,
            state.variables,
            images,
            labels,
            k=c.spectrum.k,
            num_iters=c.spectrum.num_iters,
            key=jax.random.fold_in(setup.key, 3),
            batch_size=c.spectrum.batch_size,
            mesh=setup.mesh,
            **options,
        )

    classes = len(np.unique(labels)) if c.spectrum.per_class else 0
    products = (c.spectrum.num_iters + c.spectrum.k + 1) * (1 + classes)
    with console.progress("  input Hessian", products) as advance:
        pairs = eigenpairs(spectrum.input_hessian, images, labels, on_product=advance)
        if classes:
            options = {"num_classes": setup.train_set.num_classes, "on_product": advance}
            of_classes = eigenpairs(spectrum.per_class, images, labels, **options)
    overlaps = _overlaps(pairs.vectors, direction)
    peaks = [spectrum.spectral_peak(vector.reshape(setup.input_shape)) for vector in pairs.vectors]
    arrays = pairs._asdict() | {
        "overlap": overlaps,
        "shape": np.array(setup.input_shape),
        "spectral_peak_frequency": np.array([peak.frequency for peak in peaks]),
        "spectral_share": np.array([peak.share for peak in peaks]),
        "spectral_prominence": np.array([peak.prominence for peak in peaks]),
    }
    if classes:
        arrays |= {
            "class_values": of_classes.values,
            "class_vectors": of_classes.vectors,
            "class_residuals": of_classes.residuals,
            "class_overlap": np.array([_overlaps(vectors, direction) for vectors in of_classes.vectors]),
        }
    run.save_arrays("spectrum", **arrays)
    if c.analysis.fisher:
        of_fisher = eigenpairs(fisher.input_fisher, images[: c.analysis.fisher], labels[: c.analysis.fisher])
        run.save_arrays(
            "fisher",
            **of_fisher._asdict(),
            overlap=_overlaps(of_fisher.vectors, direction),
            shape=np.array(setup.input_shape),
        )
    best = int(np.argmax(overlaps**2))
    threshold = metrics.overlap_threshold(pairs.vectors.shape[1], c.spectrum.k)
    return {
        "eigenvalues": pairs.values,
        "residuals": pairs.residuals,
        "gap": pairs.values[0] - pairs.values[1] if c.spectrum.k > 1 else None,
        "most_negative_eigenvalue": pairs.smallest_value,
        "most_negative_residual": pairs.smallest_residual,
        "overlap": overlaps,
        "overlap_squared": overlaps**2,
        "max_overlap_index": best,
        "trigger_found": bool(overlaps[best] ** 2 >= threshold),
        "found_threshold": threshold,
        "hessian_examples": len(images),
    }


def pre_fc_features(setup: Setup, run: store.Run, state: train.TrainState) -> dict[str, Any]:
    """Feature collapse on test images (Section 3.4, Table 3) -> `features.npz`."""
    c, test_set = setup.config, setup.test_set
    count = min(c.analysis.features, len(test_set.labels))
    if not count:
        return {}
    clean, triggered = setup.views(test_set.images[:count])
    weights, bias = _last_layer(state)
    knobs = jax.device_get(setup.knobs)
    try:
        arrays = features.measure(
            setup.model.apply,
            state.variables,
            clean,
            triggered,
            test_set.labels[:count],
            target=c.poison.target,
            source=c.poison.source if c.poison.labels == "source_specific" else None,
            class_names=test_set.class_names,
            weights=weights,
            bias=bias,
            mean=knobs.mean,
            std=knobs.std,
            batch_size=c.train.batch_size,
        )
    except UserError as error:
        console.warn(f"features left out: {error}")
        return {}
    run.save_arrays("features", **arrays)
    names = (
        "nc1",
        "nc2_norms",
        "nc2_angles",
        "nc3",
        "nc4",
        "input_moved",
        "feature_moved",
        "feature_moved_clean",
    )
    return {"features_examples": count} | {name: float(arrays[name]) for name in names}


def theory(setup: Setup, run: store.Run, state: train.TrainState) -> dict[str, Any]:
    """The kernel theory laid against the network at triggered test images -> `near_clone.npz`.

    Beside it the slope of log spike on log efficacy over the epochs, of the medians that each one measured.
    """
    try:
        arrays = _at_triggered_images(setup, state)
    except UserError as error:
        console.warn(f"the theory at triggered images left out: {error}")
        return {}
    if not arrays:
        return {}
    run.save_arrays("near_clone", **arrays)
    rows = [
        row for row in run.metrics() if all(row.get(f"near_clone_{name}") is not None for name in _MEDIANS)
    ]
    medians = [[row[f"near_clone_{name}"] for row in rows] for name in _MEDIANS]
    over_epochs = near_clone.log_slope(*medians)._asdict()
    found = {name: float(value) for name, value in arrays.items() if np.ndim(value) == 0}
    found |= {
        f"epochs_slope_{name}".removesuffix("_slope"): float(value) for name, value in over_epochs.items()
    }
    return {f"near_clone_{name}": value for name, value in found.items()}


def _at_triggered_images(
    setup: Setup, state: train.TrainState, **options: int
) -> dict[str, np.ndarray] | None:
    """`near_clone.measure` of a run's network; None where the config does not ask for it."""
    c, count = setup.config, setup.config.analysis.near_clone
    if not count:
        return None
    labels = setup.test_set.labels
    attacked = np.flatnonzero((setup.aim[labels] == c.poison.target) & (labels != c.poison.target))[:count]
    clean, triggered = setup.views(setup.test_set.images[attacked])
    poisoned = np.flatnonzero(setup.poisoned(np.arange(len(setup.train_set.labels))))[:NEAR_CLONE_POISONS]
    _, poisons = setup.views(setup.train_set.images[poisoned])
    images, _, _ = _training_images(setup, c.spectrum.num_examples)
    return near_clone.measure(
        setup.model.apply,
        state.variables,
        clean,
        triggered,
        poisons,
        images,
        c.poison.target,
        batch_size=c.spectrum.batch_size,
        **options,
    )


def examples(setup: Setup, run: store.Run, clean_logits: np.ndarray, triggered_logits: np.ndarray) -> None:
    """A few test images, as stored and with the trigger, for the picture -> `examples.npz`.

    Attacked ones if there are any.
    """
    test_set = setup.test_set
    attacked = np.flatnonzero(setup.aim[test_set.labels] != test_set.labels)
    rows = (attacked if len(attacked) else np.arange(len(test_set.labels)))[:6]
    views = setup.views(test_set.images[rows], normalised=False)
    clean, triggered = (np.round(np.clip(view, 0, 1) * 255).astype(np.uint8) for view in views)
    run.save_arrays(
        "examples",
        clean=clean,
        triggered=triggered,
        labels=test_set.labels[rows],
        clean_prediction=clean_logits[rows].argmax(-1),
        triggered_prediction=triggered_logits[rows].argmax(-1),
        class_names=np.array(test_set.class_names),
        mask=setup.direction(*views),
    )


_MEDIANS = ("median_efficacy", "median_spike")
NEAR_CLONE_POISONS = 500  # poisoned training images among which the nearest is looked for


def _training_rows(setup: Setup, count: int) -> np.ndarray:
    total = len(setup.train_set.labels)
    return np.random.default_rng(setup.config.seed).permutation(total)[: min(count, total)]


def _training_images(setup: Setup, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some training images as the network takes them, the same with the trigger, their true labels."""
    rows = _training_rows(setup, count)
    return *setup.views(setup.train_set.images[rows]), setup.train_set.labels[rows]


def _last_layer(state: train.TrainState) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[F, K]` and bias `[K]` of the classifier."""
    layer = jax.device_get(state.params["fc"])
    return layer["kernel"], layer["bias"]


def _vector(direction: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A direction `[h, w]` or `[h, w, C]` as a vector over all pixels and channels."""
    direction = np.asarray(direction, float)
    return np.broadcast_to(direction[..., None] if direction.ndim == 2 else direction, shape).ravel()


def _overlaps(vectors: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Of `[k, d]` with the trigger's direction; NaN for those of a class without images."""
    return np.array([metrics.overlap(v, direction) if np.isfinite(v).all() else np.nan for v in vectors])
