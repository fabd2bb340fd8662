"""Checks of a config against the training and the test set, for networks and for the regression."""

import ml_collections

from poison_jax import data
from poison_jax.errors import UserError


def check_sets(config: ml_collections.ConfigDict, train_set: data.Dataset, test_set: data.Dataset) -> None:
    """Refuses a config that does not suit its data.

    Raises:
        UserError: sets that differ in the images' shape, a target that is no class, a batch of more images
            than there are.
    """
    name, target, batch = config.data.name, config.poison.target, config.train.batch_size
    if test_set.images.shape[1:] != train_set.images.shape[1:]:
        raise UserError(f"{name}: training and test images differ in shape")
    if target >= train_set.num_classes:
        raise UserError(f"poison.target = {target}: {name} has classes 0 to {train_set.num_classes - 1}")
    if (count := len(train_set.labels)) < batch:
        raise UserError(f"train.batch_size = {batch} exceeds the {count} training images")
