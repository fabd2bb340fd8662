"""A config made concrete: data, network, trigger and program, checked against each other."""

import functools

import jax
import ml_collections
import numpy as np

from poison_jax import augment, data, evaluate, models, poison, train
from poison_jax import config as config_lib
from poison_jax.arrays import digest
from poison_jax.errors import UserError


class Setup:
    """All that a run needs before it starts; making one trains nothing and writes nothing.

    Attributes:
        config: the config of a single run.
        train_set, test_set: `data.Dataset`.
        mesh: all devices.
        input_shape: `(h, w, C)` of the network's input.
        input_mask: the trigger as the network's input shows it, bool `[h, w]` or `[h, w, C]`.
        model, program, knobs: as `train` takes them; the mask in `knobs` is that of the stamped image.
        steps_per_epoch: full batches.
        key: of the run.

    Raises:
        UserError: what only the data or the devices can show to be wrong.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        c = self.config = config
        models.check_architecture(c.model.depth, c.model.block, c.model.width)
        self.train_set = data.take(_load(c.data.name, "train", c.data.dir), c.data.n_train)
        self.test_set = data.take(_load(c.data.name, "test", c.data.dir), c.data.n_test)
        self.mesh = train.make_mesh()
        height, width, channels = self.train_set.images.shape[1:]
        h, w = (augment.output_size(size, c.data.augment, c.data.crop) for size in (height, width))
        self.input_shape = (h, w, channels)
        self._check()

        stamped = (height, width) if c.poison.when == "before_augment" else (h, w)
        mask = poison.trigger_mask(
            c.poison.trigger,
            *stamped,
            channels,
            margin=c.poison.margin,
            size=c.poison.size,
            path=c.poison.mask,
        )
        self.input_mask = mask if stamped == (h, w) else mask[2:-2, 2:-2]
        if mask.any() and not self.input_mask.any():
            raise UserError("the trigger lies outside the central window of evaluation: raise poison.margin")
        self.model = models.preresnet(
            c.model.depth,
            self.train_set.num_classes,
            block=c.model.block,
            width=c.model.width,
            dtype=c.model.dtype,
            remat=c.model.remat,
        )
        self.steps_per_epoch = len(self.train_set.labels) // c.train.batch_size
        self.program = train.Program(
            self.model,
            self.mesh,
            augment=c.data.augment,
            crop=c.data.crop,
            when=c.poison.when,
            mode=c.poison.mode,
            penalised=c.penalty.kappa > 0,
            reduction=c.penalty.reduction,
            batch_norm=c.penalty.batch_norm,
            learning_rate=c.train.learning_rate,
            momentum=c.train.momentum,
            weight_decay=c.train.weight_decay,
            decay_factor=c.train.decay_factor,
            decay_steps=train.decay_steps(c.train.epochs, self.steps_per_epoch, c.train.decay_times),
        )
        self.key = jax.random.key(c.seed)
        mean, std = data.normalisation(c.data.name, self.train_set.images)
        knobs = train.Knobs(
            key=jax.random.fold_in(self.key, 1),
            kappa=np.float32(c.penalty.kappa),
            fraction=np.float32(c.poison.fraction),
            target=np.int32(c.poison.target),
            mask=mask,
            value=np.float32(c.poison.value),
            mean=mean,
            std=std,
        )
        self.knobs = train.replicate(knobs, self.mesh)

    def train_data(self) -> train.TrainData:
        """The training set as the step takes it, on the host."""
        images, labels, ids, *_ = self.train_set
        poisoned = np.zeros(len(labels), bool)  # stochastic: drawn in the step
        if self.config.poison.mode == "deterministic":
            poisoned = self.poisoned(np.arange(len(labels)))
        return train.TrainData(images, labels, ids, poisoned)

    def poisoned(self, rows: np.ndarray) -> np.ndarray:
        """Who of the training set's `rows` is: by index, or in one draw of the stochastic attack."""
        c, labels = self.config.poison, self.train_set.labels[rows]
        if c.mode == "deterministic":
            return poison.select_deterministic(self.train_set.ids[rows], labels, c.fraction, c.target)
        key = jax.random.fold_in(self.key, 4)
        return np.asarray(poison.select_stochastic(key, labels, c.fraction, c.target))

    def inputs_digest(self) -> str:
        """SHA-256 of the images, labels, ids and trigger that the run reads."""
        return digest([*self.train_set[:3], *self.test_set[:3], self.input_mask])

    def _check(self) -> None:
        c, count = self.config, len(self.train_set.labels)
        if self.test_set.images.shape[1:] != self.train_set.images.shape[1:]:
            raise UserError(f"{c.data.name}: training and test images differ in shape")
        classes = self.train_set.num_classes
        if c.poison.target >= classes:
            raise UserError(
                f"poison.target = {c.poison.target}: {c.data.name} has classes 0 to {classes - 1}"
            )
        if count < c.train.batch_size:
            raise UserError(f"train.batch_size = {c.train.batch_size} exceeds the {count} training images")
        for key in ("train.batch_size", "spectrum.batch_size"):
            value, devices = config_lib.get(c, key), self.mesh.size
            if value % devices:
                raise UserError(f"{key} = {value} is not a multiple of the {devices} devices")
        if min(self.input_shape[:2]) < 4:
            raise UserError(f"network inputs of {self.input_shape} are too small: use 4x4 pixels at least")
        dimension = int(np.prod(self.input_shape))
        if c.spectrum.num_iters > dimension:
            raise UserError(
                f"spectrum.num_iters = {c.spectrum.num_iters} exceeds the input's dimension {dimension}"
            )

    def views(self, images: np.ndarray, *, normalised: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Network inputs for uint8 `[B, H, W, C]`, clean and triggered; in [0, 1] if not `normalised`."""
        knobs = self.knobs
        if not normalised:
            knobs = knobs._replace(mean=np.zeros_like(knobs.mean), std=np.ones_like(knobs.std))
        return jax.device_get(evaluate.views(images, knobs, self.program))


@functools.lru_cache(maxsize=2)
def _load(name: str, split: str, data_dir: str | None) -> data.Dataset:
    """Once for all runs of a process."""
    return data.load(name, split, data_dir=data_dir)
