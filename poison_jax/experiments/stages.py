"""The stages of a run: what is looked at in its trained network.

A stage is a function `Trained -> (arrays, findings)`. Which config keys it reads is declared in
`config.table`; `results.measure` makes those that are not kept yet.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from poison_jax import config as config_lib
from poison_jax import console, evaluate, features, fisher, metrics, models, near_clone, spectrum
from poison_jax.audit import measure
from poison_jax.data import Dataset
from poison_jax.errors import UserError
from poison_jax.experiments.setup import Setup, Stream
from poison_jax.experiments.visits import poison_visits
from poison_jax.lanczos import Eigenpairs
from poison_jax.subject import Subject
from poison_jax.train import TrainState, decay_time

Arrays = dict[str, np.ndarray]
Findings = dict[str, Any]

NC1_IMAGES = 2000
NEAR_CLONE_POISONS = 500  # poisoned training images among which the nearest is looked for
MEDIANS = ("median_efficacy", "median_spike")
# How many images `after_epoch` and the attack are measured on: keys that are no part of a run's identity.
COUNTS = (
    "data.n_test",
    "analysis.collapse",
    "analysis.fisher",
    "analysis.near_clone",
    "spectrum.num_examples",
)
COUNTS_OF_NEAR_CLONE = ("data.n_test", "analysis.near_clone", "spectrum.num_examples")


class Trained(NamedTuple):
    """A trained network, and what belongs to it."""

    setup: Setup
    state: TrainState
    epochs: list[Findings]  # what was measured after each epoch
    directions: Mapping[str, np.ndarray]  # name -> `[h, w]` or `[h, w, C]`: other triggers to compare with


def evaluate_attack(
    setup: Setup, state: TrainState, dataset: Dataset | None = None
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, float]]:
    """Logits of images (the test set's) without and with the trigger, and what they amount to."""
    images, labels, *_ = dataset or setup.test_set
    batch_size = setup.config.train.batch_size
    logits = evaluate.predict(state.variables, images, setup.knobs, setup.program, batch_size=batch_size)
    return logits, metrics.attack_report(*logits, labels, setup.aim)


def attack(trained: Trained) -> tuple[Arrays, Findings]:
    """The attack on all test images; and a few of them, without and with the trigger, for the picture."""
    setup, test_set = trained.setup, trained.setup.test_set
    (clean_logits, triggered_logits), report = evaluate_attack(setup, trained.state)
    attacked = np.flatnonzero(setup.aim[test_set.labels] != test_set.labels)
    rows = (attacked if len(attacked) else np.arange(len(test_set.labels)))[:6]
    views = setup.views(test_set.images[rows], normalised=False)
    clean, triggered = (np.round(np.clip(view, 0, 1) * 255).astype(np.uint8) for view in views)
    arrays = {
        "clean": clean,
        "triggered": triggered,
        "labels": test_set.labels[rows],
        "clean_prediction": clean_logits[rows].argmax(-1),
        "triggered_prediction": triggered_logits[rows].argmax(-1),
        "class_names": np.array(test_set.class_names),
        "mask": setup.direction(*views),
    }
    return arrays, report


def regime(trained: Trained) -> tuple[Arrays, Findings]:
    """Where training ended: what the paper says of networks is about the terminal phase.

    `train_accuracy` on the training images' true labels, without trigger or augmentation;
    `poisoned_train_accuracy` of the non-target ones, triggered, taken for the target; `decay_time` T =
    sum_t lr_t * weight_decay; `poison_visits` of all classes, see `visits.poison_visits`; `nc1`, `nc1_test`.
    """
    setup, c = trained.setup, trained.setup.config
    train_set, variables = trained.setup.train_set, trained.state.variables
    _, report = evaluate_attack(setup, trained.state, train_set)
    found = {
        "train_accuracy": report["clean_accuracy"],
        "poisoned_train_accuracy": report["asr"],
        "decay_time": decay_time(setup.program, c.train.epochs * setup.steps_per_epoch),
        "poison_visits": float(poison_visits(setup).sum()),
        "regime": "terminal" if report["clean_accuracy"] >= metrics.TERMINAL else "not terminal",
    }
    for name, dataset in (("nc1", train_set), ("nc1_test", setup.test_set)):
        rows = np.random.default_rng(c.seed).permutation(len(dataset.labels))[:NC1_IMAGES]
        clean, _ = setup.views(dataset.images[rows])
        try:
            pre_fc = features.extract(setup.looked_at.apply, variables, clean, batch_size=c.train.batch_size)
            collapsed = features.collapse(pre_fc, dataset.labels[rows], *_last_layer(trained.state))
            found[name] = float(collapsed.nc1)
        except UserError:  # the features are not known, or a class has too few images
            found[name] = None
    return {}, found


def after_epoch(setup: Setup, state: TrainState) -> Findings:
    """Neural collapse, the Fisher's energy along the trigger, efficacy and spike, as the config asks for."""
    c, row = setup.config.analysis, {}
    if c.collapse:
        images, _, labels, _ = _training_images(setup, c.collapse)
        batch_size = setup.config.train.batch_size
        pre_fc = features.extract(setup.looked_at.apply, state.variables, images, batch_size=batch_size)
        row |= features.collapse(pre_fc, labels, *_last_layer(state))._asdict()
    if c.fisher:
        images, triggered, labels, _ = _training_images(setup, c.fisher)
        options = {"batch_size": setup.config.spectrum.batch_size, "mesh": setup.mesh}
        gradients = fisher.input_gradients(setup.looked_at.apply, state.variables, images, labels, **options)
        trigger = _vector(setup.direction(images, triggered), images.shape[1:])
        row["fisher_energy"] = float(fisher.energies(gradients, trigger[None])[0])
        row["fisher_trace"] = float(fisher.trace(gradients))
    if c.near_clone:
        try:
            found = _at_triggered_images(setup, state, hessian_points=0)
            row |= {f"near_clone_{name}": float(found[name]) for name in MEDIANS}
        except UserError:  # said in the end
            row |= {f"near_clone_{name}": None for name in MEDIANS}
    return row


def measured_on(setup: Setup) -> dict[str, int]:
    """`COUNTS` of a config: an epoch's row keeps them, as `measured_on`."""
    counts = {key: config_lib.get(setup.config, key) for key in COUNTS}
    return counts | {"data.n_test": len(setup.test_set.labels)}


def input_hessian(trained: Trained) -> tuple[Arrays, Findings]:
    """Top eigenpairs of the input Hessian, and their overlaps with the trigger (Algorithm 2)."""
    setup, c = trained.setup, trained.setup.config
    images, labels, direction = _hessian_images(setup)
    classes = len(np.unique(labels)) if c.spectrum.per_class else 0
    products = (c.spectrum.num_iters + c.spectrum.k + 1) * (1 + classes)
    with console.progress("  input Hessian", products) as advance:
        pairs = _eigenpairs(trained, spectrum.input_hessian, images, labels, on_product=advance)
        if classes:
            options = {"num_classes": setup.train_set.num_classes, "on_product": advance}
            of_classes = _eigenpairs(trained, spectrum.per_class, images, labels, **options)
    overlaps = _overlaps(pairs.vectors, direction)
    others = {name: _overlaps(pairs.vectors, other) for name, other in trained.directions.items()}
    peaks = [metrics.spectral_peak(vector.reshape(setup.input_shape)) for vector in pairs.vectors]
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
    findings = {
        "eigenvalues": pairs.values,
        "residuals": pairs.residuals,
        "gap": pairs.values[0] - pairs.values[1] if c.spectrum.k > 1 else None,
        "most_negative_eigenvalue": pairs.smallest_value,
        "most_negative_residual": pairs.smallest_residual,
        "overlap": overlaps,
        "overlap_squared": overlaps**2,
        "max_overlap_index": int(np.argmax(overlaps**2)),
        "trigger_found": metrics.found(overlaps, pairs.vectors.shape[1]),
        "found_threshold": metrics.overlap_threshold(pairs.vectors.shape[1], c.spectrum.k),
        "hessian_examples": len(images),
    }
    return arrays, findings | ({"overlaps_with": others} if others else {})


def input_fisher(trained: Trained) -> tuple[Arrays, Findings]:
    """Top eigenpairs of the input Fisher (eq. 29), on as many of the Hessian's images as asked for.

    No more than the Hessian has (`spectrum.num_examples`): `fisher_examples` says how many.
    """
    setup, count = trained.setup, trained.setup.config.analysis.fisher
    images, labels, direction = _hessian_images(setup)
    pairs = _eigenpairs(trained, fisher.input_fisher, images[:count], labels[:count])
    overlaps = _overlaps(pairs.vectors, direction)
    arrays = pairs._asdict() | {"overlap": overlaps, "shape": np.array(setup.input_shape)}
    return arrays, {"fisher_examples": len(images[:count])}


def pre_fc_features(trained: Trained) -> tuple[Arrays, Findings]:
    """Feature collapse on test images (Section 3.4, Table 3)."""
    setup, c, test_set = trained.setup, trained.setup.config, trained.setup.test_set
    count = min(c.analysis.features, len(test_set.labels))
    clean, triggered = setup.views(test_set.images[:count])
    weights, bias = _last_layer(trained.state)
    knobs = jax.device_get(setup.knobs)
    arrays = features.measure(
        setup.looked_at.apply,
        trained.state.variables,
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
    names = ("nc2_norms", "nc2_angles", "nc3", "nc4", "input_moved", "feature_moved", "feature_moved_clean")
    return arrays, {"features_examples": count} | {name: float(arrays[name]) for name in names}


def theory(trained: Trained) -> tuple[Arrays, Findings]:
    """The kernel theory beside the network at triggered test images.

    With the slope of log spike on log efficacy over the epochs, of the medians that each one measured; none
    where they measured on different numbers of images.
    """
    arrays = _at_triggered_images(trained.setup, trained.state)
    rows = [
        row for row in trained.epochs if all(row.get(f"near_clone_{name}") is not None for name in MEDIANS)
    ]
    counts = [row["measured_on"] for row in rows if "measured_on" in row]
    if len({tuple(of_row[key] for key in COUNTS_OF_NEAR_CLONE) for of_row in counts}) > 1:
        rows = []
    medians = [[row[f"near_clone_{name}"] for row in rows] for name in MEDIANS]
    over_epochs = near_clone.log_slope(*medians)._asdict()
    found = {name: float(value) for name, value in arrays.items() if np.ndim(value) == 0}
    found |= {
        f"epochs_slope_{name}".removesuffix("_slope"): float(value) for name, value in over_epochs.items()
    }
    return arrays, {f"near_clone_{name}": value for name, value in found.items()}


def audit_statistics(trained: Trained) -> tuple[Arrays, Findings]:
    """The statistics that an audit shows, on clean test images.

    And the squared overlap of the trigger with the common gradient of the class that stands out.
    """
    setup, count = trained.setup, trained.setup.config.analysis.audit
    images, triggered = setup.views(setup.test_set.images[:count])
    labels, batch_size = setup.test_set.labels[:count], setup.config.spectrum.batch_size
    subject = Subject(setup.looked_at.apply, trained.state.variables)  # of images that are normalised already
    measured = measure(subject, images, labels, batch_size=batch_size)
    top, norm, localised, flips = measured.scores
    trigger = setup.direction(images, triggered)
    findings = {
        "audit_examples": len(images),
        "audit_top_eigenvalue": float(np.exp(top.statistic)),
        "audit_norm_ratio": float(np.exp(norm.statistic)),
        "audit_target": norm.target,
        "audit_localisation_ratio": float(np.exp(localised.statistic)),
        "audit_localised_target": localised.target,
        "audit_flip_rate": flips.statistic,
        "audit_flip_target": flips.target,
        "audit_overlap_squared": metrics.overlap(norm.picture.ravel(), trigger) ** 2,
    }
    return {"gradients": measured.gradients}, findings


STAGES: dict[str, Callable[[Trained], tuple[Arrays, Findings]]] = {
    "attack": attack,
    "regime": regime,
    "spectrum": input_hessian,
    "fisher": input_fisher,
    "features": pre_fc_features,
    "near_clone": theory,
    "audit": audit_statistics,
}
NEEDED = ("attack", "regime", "spectrum")  # nothing is a result without them


def _hessian_images(setup: Setup) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels that the Hessian is averaged over, and the trigger's direction."""
    c = setup.config
    images, triggered, labels, rows = _training_images(setup, c.spectrum.num_examples)
    direction = setup.direction(images, triggered)
    if c.spectrum.data == "poisoned":
        poisoned, _ = setup.selected(rows)
        images = np.where(poisoned[:, None, None, None], triggered, images)
        labels = np.where(poisoned, setup.aim[labels], labels)
    return images, labels, direction


def _eigenpairs(trained: Trained, operator, images, labels, **options) -> Eigenpairs:
    setup, c = trained.setup, trained.setup.config.spectrum
    return operator(
        setup.looked_at.apply,
        trained.state.variables,
        images,
        labels,
        k=c.k,
        num_iters=c.num_iters,
        key=setup.stream(Stream.LANCZOS),
        batch_size=c.batch_size,
        mesh=setup.mesh,
        **options,
    )


def _at_triggered_images(setup: Setup, state: TrainState, **options: int) -> Arrays:
    """`near_clone.measure` of a run's network."""
    c = setup.config
    labels = setup.test_set.labels
    attacked = np.flatnonzero((setup.aim[labels] == c.poison.target) & (labels != c.poison.target))
    clean, triggered = setup.views(setup.test_set.images[attacked[: c.analysis.near_clone]])
    poisoned, _ = setup.selected(np.arange(len(setup.train_set.labels)))
    _, poisons = setup.views(setup.train_set.images[poisoned][:NEAR_CLONE_POISONS])
    images, *_ = _training_images(setup, c.spectrum.num_examples)
    return near_clone.measure(
        setup.looked_at.apply,
        state.variables,
        clean,
        triggered,
        poisons,
        images,
        c.poison.target,
        batch_size=c.spectrum.batch_size,
        **options,
    )


def _training_images(setup: Setup, count: int) -> tuple[np.ndarray, ...]:
    """Up to so many training images as the network takes them, triggered, their labels and their rows."""
    total = len(setup.train_set.labels)
    rows = np.random.default_rng(setup.config.seed).permutation(total)[: min(count, total)]
    return *setup.views(setup.train_set.images[rows]), setup.train_set.labels[rows], rows


def _last_layer(state: TrainState) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[F, K]` and bias `[K]` of the classifier.

    Raises:
        UserError: the network has no layer `fc`.
    """
    if not models.has_classifier(state.params):
        raise UserError("the network's last layer is no Dense layer called fc: its features are not known")
    layer = jax.device_get(state.params["fc"])
    return layer["kernel"], layer["bias"]


def _vector(direction: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A direction `[h, w]` or `[h, w, C]` as a vector over all pixels and channels."""
    direction = np.asarray(direction, float)
    return np.broadcast_to(direction[..., None] if direction.ndim == 2 else direction, shape).ravel()


def _overlaps(vectors: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Of `[k, d]` with the trigger's direction; NaN for those of a class without images."""
    return np.array([metrics.overlap(v, direction) if np.isfinite(v).all() else np.nan for v in vectors])
