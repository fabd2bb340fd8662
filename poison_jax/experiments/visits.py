"""Expected visits of a training to poisoned images; warnings about empty classes and absent poison."""

import numpy as np

from poison_jax.experiments.setup import Setup


def poison_visits(setup: Setup) -> np.ndarray:
    """Expected visits of the training to poisoned images of each class, float64 `[K]`.

    theta * (eligible images) * (epochs), or who is poisoned by index for theta * (eligible images); less
    what an incomplete last batch leaves out.
    """
    c, labels = setup.config, setup.train_set.labels
    if c.poison.mode == "deterministic":
        weight = setup.selected(np.arange(len(labels)))[0].astype(np.float64)
    else:
        weight = c.poison.fraction * np.asarray(setup.knobs.labels.eligible)[labels]
    visits = c.train.epochs * setup.steps_per_epoch * c.train.batch_size / len(labels)
    return visits * np.bincount(labels, weight, minlength=setup.train_set.num_classes)


def remarks(setup: Setup) -> list[str]:
    """What is odd about the data and the poison, a line each: classes without images, nobody poisoned."""
    c, names = setup.config, np.array(setup.train_set.class_names)
    counts = np.bincount(setup.train_set.labels, minlength=len(names))
    tested = np.bincount(setup.test_set.labels, minlength=len(names))
    lines = [
        f"none of the {of.sum()} {which} images is of class {_listed(names[of == 0])}: "
        f"raise {key}, or mix the stored order"
        for which, key, of in (("training", "data.n_train", counts), ("test", "data.n_test", tested))
        if not of.all()
    ]
    if c.poison.fraction == 0:
        return lines
    theta = f"poison.fraction = {c.poison.fraction:g}"
    visits, eligible = poison_visits(setup), (counts > 0) & np.asarray(setup.knobs.labels.eligible)
    if not eligible.any():
        lines.append(
            f"{theta} poisons nobody: there is no training image of a class that poison.labels = "
            f"{c.poison.labels} poisons"
        )
    elif visits.sum() < 1:
        lines.append(
            f"{theta} poisons nobody: {visits.sum():.2g} poisoned images are expected in all "
            f"{c.train.epochs} epochs of {setup.steps_per_epoch} batches of {c.train.batch_size}"
        )
    elif (few := eligible & (visits < 1)).any():
        few = _listed(names[few])
        lines.append(
            f"{theta}: less than one poisoned image is expected of class {few} in the whole training"
        )
    return lines


def _listed(names: np.ndarray) -> str:
    """The first few of some names."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5].tolist())) + more
