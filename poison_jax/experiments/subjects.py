"""Trained runs as subjects of an audit: networks, their normalisation, clean test images."""

from collections.abc import Sequence

import ml_collections
import numpy as np

from poison_jax import config as config_lib
from poison_jax.errors import UserError
from poison_jax.experiments.setup import Setup, trained_checkpoint
from poison_jax.runs import store
from poison_jax.subject import Subject


def of_runs(runs: Sequence[store.Run], *, count: int = 512) -> tuple[list[Subject], np.ndarray, np.ndarray]:
    """The networks of trained runs of one recipe, and clean test images as they take them.

    Args:
        runs: of experiment=train, one at least; they differ in seed and poison alone.
        count: test images, at most: the first ones.

    Returns:
        The subjects; images float32 `[N, H, W, C]` in [0, 1]; labels int32 `[N]`.

    Raises:
        UserError: a run of another recipe, or without a whole checkpoint of a trained network.
    """
    configs = [config_lib.from_json(run.config(), str(run.path)) for run in runs]
    names = [recipe(config) for config in configs]
    for run, name in zip(runs, names, strict=True):
        if name != names[0]:
            raise UserError(f"{run.path} was trained by another recipe than {runs[0].path}")
    setup = Setup(configs[0])
    model, knobs, test_set = setup.looked_at, setup.knobs, setup.test_set
    subjects = []
    for run in runs:
        state, _ = trained_checkpoint(run, setup.first_state())
        subjects.append(
            Subject(
                model.apply,
                state.variables,
                normalisation=(np.asarray(knobs.mean), np.asarray(knobs.std)),
                classes=tuple(map(str, test_set.class_names)),
                recipe=names[0],
            )
        )
    images, _ = setup.views(test_set.images[:count], normalised=False)
    return subjects, np.clip(images, 0, 1), test_set.labels[:count]


def recipe(config: ml_collections.ConfigDict) -> str:
    """Names how a network is trained, whatever its seed and poison: references must share it."""
    identity = config_lib.identity(config).items()
    return store.digest({k: v for k, v in identity if k != "seed" and not k.startswith("poison.")})


def clean(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same recipe without poison, and with nothing looked at but what every run needs.

    Whatever the attack, and whatever its experiment is called, these are the same runs.
    """
    made, default = config_lib.single(config, "train"), config_lib.default()
    made.name, made.poison = "reference", default.poison
    made.poison.trigger, made.poison.fraction = "none", 0.0
    made.analysis, made.spectrum = default.analysis, default.spectrum
    made.analysis.features = 0
    made.spectrum.k, made.spectrum.num_iters, made.spectrum.num_examples = 1, 2, 64
    return made
