"""A poisoned data set as arrays, for anybody's training code."""

import jax
import numpy as np

from poison_jax import batches, poison
from poison_jax.errors import UserError
from poison_jax.experiments.setup import Setup


def poisoned_set(setup: Setup) -> dict[str, np.ndarray]:
    """The training set as a deterministic attack leaves it, and the test set without and with the trigger.

    Eight bits a pixel: a patch of black, white or the images' own greys is exact, a blend or a warp rounded.

    Args:
        setup: of a config; what is trained does not matter.

    Returns:
        `images` uint8 `[N, H, W, C]`, `labels` as they are trained on, `true_labels`, `poisoned` bool `[N]`,
        `ids`, `class_names`; `test_images`, `test_labels`, `test_ids`; `triggered_test_images` and
        `wanted_labels`, what the attack wants each of them taken for; and of the trigger `trigger_opacity`
        and `trigger_picture`, or `trigger_field` (a warp). `data.load` reads a file of them.

    Raises:
        UserError: the attack draws anew at every visit, so that there is no one set.
    """
    c, knobs = setup.config, setup.knobs
    drawn = {
        "poison.mode = stochastic": c.poison.mode == "stochastic",
        "poison.warp.cross_ratio > 0": c.poison.warp.cross_ratio > 0,
        "data.augment with poison.when = after_augment": c.data.augment != "none"
        and c.poison.when == "after_augment",
    }
    for key, anew in drawn.items():
        if anew:
            raise UserError(
                f"{key}: what is poisoned is drawn anew at every visit, there is no one set of it"
            )
    train, test = setup.train_data(), setup.test_set
    poisoned = np.asarray(train.poisoned)
    images = train.images.copy()
    if poisoned.any():
        images[poisoned] = _attacked(images[poisoned], knobs.trigger)
    arrays = {
        "images": images,
        "labels": np.where(poisoned, setup.aim[train.labels], train.labels).astype(np.int32),
        "true_labels": train.labels,
        "poisoned": poisoned,
        "ids": train.ids,
        "class_names": np.array(test.class_names),
        "test_images": test.images,
        "test_labels": test.labels,
        "test_ids": test.ids,
        "triggered_test_images": _attacked(test.images, knobs.trigger),
        "wanted_labels": setup.aim[test.labels],
    }
    trigger = jax.device_get(knobs.trigger._replace(function=None))
    return arrays | {f"trigger_{name}": x for name, x in trigger._asdict().items() if x is not None}


def _attacked(images: np.ndarray, trigger: poison.Trigger) -> np.ndarray:
    """uint8 images with the trigger on every one."""

    def attack(rows):
        return _attack(rows, trigger)

    values = batches.outputs(attack, images, batch_size=None)
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


@jax.jit
def _attack(images, trigger):
    return poison.apply(images.astype(np.float32) / 255, trigger)
