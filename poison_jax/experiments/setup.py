"""A config made concrete: data, network, trigger and program, checked against each other."""

import enum
import functools

import jax
import ml_collections
import numpy as np

from poison_jax import augment, console, data, environment, evaluate, foreign, kernels, models, poison, train
from poison_jax import config as config_lib
from poison_jax.arrays import digest
from poison_jax.config.keys import imported
from poison_jax.errors import Damaged, UserError
from poison_jax.experiments.checks import check_sets
from poison_jax.mesh import make_mesh, replicate
from poison_jax.runs import checkpoint, provenance, store
from poison_jax.runs.distributed import on_first


class Stream(enum.IntEnum):
    """The random streams of a run: each is `fold_in(key of the run, its number)`."""

    INIT = 0  # weights
    STEPS = 1  # batch order, augmentation, poison draws: folded further, by epoch, step and image
    # 2 was used by an earlier version: a stream never gets the number of another.
    LANCZOS = 3  # start vector
    SELECTION = 4  # one draw of the stochastic attack, for whoever looks at poisoned data
    TRIGGER = 5  # a trigger's own randomness: the warp's field, a random pattern


DIRECTION_IMAGES = 512  # training images whose mean change is the direction of a picture


class Setup:
    """All that a run needs before it starts; making one trains nothing and writes nothing.

    Attributes:
        config: the config of a single run.
        train_set, test_set: `data.Dataset`.
        mesh: all devices.
        input_shape: `(h, w, C)` of the network's input.
        input_mask: the pixels that a stamped trigger sets in the network's input, bool `[h, w]` or
            `[h, w, C]`; None where it sets none (blend, warp, a function).
        model, program, knobs: as `train` takes them; the trigger in `knobs` is for the attacked image.
        looked_at: `model`, in float32 where it computes in bfloat16, in which residuals would be rounding.
        steps_per_epoch: full batches.
        key: of the run.

    Raises:
        UserError: what only the data or the devices can show to be wrong.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        c = self.config = config
        own_model = c.model.name != "preresnet"
        if not own_model:
            models.check_architecture(c.model.depth, c.model.block, c.model.width)
        if c.model.dtype == "float64" and not jax.config.jax_enable_x64:
            raise UserError("model.dtype = float64: set JAX_ENABLE_X64=1 in the environment")
        real = np.float64 if c.model.dtype == "float64" else np.float32
        files = data.fingerprint(c.data.name)
        self.train_set = data.take(_load(c.data.name, "train", c.data.dir, files), c.data.n_train)
        # All test images are part of what a run is tied to; how many are looked at is a stage's.
        self._test_images = _load(c.data.name, "test", c.data.dir, files)
        self.test_set = data.take(self._test_images, c.data.n_test)
        self.mesh = make_mesh()
        height, width, channels = self.train_set.images.shape[1:]
        h, w = (augment.output_size(size, c.data.augment, c.data.crop) for size in (height, width))
        self.input_shape = (h, w, channels)
        self._check()

        self.key = environment.key(c.seed)
        attacked = (height, width) if c.poison.when == "before_augment" else (h, w)
        trigger = _trigger(c.poison, *attacked, channels, self.stream(Stream.TRIGGER), real)
        self.input_mask = None
        if c.poison.trigger not in ("blend", "warp") and trigger.function is None:
            self.input_mask = self._seen(trigger.opacity)
            if trigger.opacity.any() and not self.input_mask.any():
                raise UserError(
                    "the trigger lies outside the central window of evaluation: raise poison.margin"
                )
        classes = self.train_set.num_classes
        labels = poison.label_map(c.poison.labels, classes, target=c.poison.target, source=c.poison.source)
        if own_model:
            if c.model.name == "foreign":
                options = {"convolutions": c.model.convolutions}
                make = functools.partial(foreign.architecture(c.model.architecture), **options)
            else:
                make = imported(c.model.name)
            self.model = self.looked_at = models.own(make, classes, self.input_shape)
            if c.analysis.collapse and not models.knows_features(self.model, self.input_shape):
                raise UserError(
                    f"analysis.collapse = {c.analysis.collapse}: {c.model.name} does not return its features "
                    "(models.Features) or has no Dense layer called fc, set it to 0"
                )
        else:
            shape = {key: c.model[key] for key in ("block", "width", "convolutions")}
            made = functools.partial(models.preresnet, c.model.depth, classes, remat=c.train.remat, **shape)
            self.model = self.looked_at = made(dtype=c.model.dtype)
            if c.model.dtype == "bfloat16":
                self.looked_at = made(dtype="float32")
        self.steps_per_epoch = len(self.train_set.labels) // c.train.batch_size
        self.program = train.Program(
            self.model,
            self.mesh,
            augment=c.data.augment,
            crop=c.data.crop,
            when=c.poison.when,
            mode=c.poison.mode,
            penalised=c.penalty.kappa > 0,
            adversarial_steps=c.penalty.steps if c.penalty.epsilon > 0 else 0,
            hiding=c.poison.hide > 0,
            noise=c.poison.warp.cross_ratio > 0,
            reduction=c.penalty.reduction,
            batch_norm=c.penalty.batch_norm,
            deterministic=c.train.deterministic,
            remat=c.train.remat,
            precision=c.model.precision,
            learning_rate=c.train.learning_rate,
            momentum=c.train.momentum,
            weight_decay=c.train.weight_decay,
            decay_factor=c.train.decay_factor,
            decay_steps=train.decay_steps(c.train.epochs, self.steps_per_epoch, c.train.decay_times),
        )
        if c.data.normalise:
            mean, std = map(real, data.stated_normalisation(c.data.normalise, channels))
        else:
            mean, std = data.normalisation(c.data.name, self.train_set.images, real)
        knobs = train.Knobs(
            key=self.stream(Stream.STEPS),
            kappa=real(c.penalty.kappa),
            epsilon=real(c.penalty.epsilon),
            fraction=real(c.poison.fraction),
            hide=real(c.poison.hide),
            target=np.int32(c.poison.target),
            cross_ratio=real(c.poison.warp.cross_ratio),
            labels=labels,
            trigger=trigger,
            mean=mean,
            std=std,
        )
        self.knobs = replicate(knobs, self.mesh)
        self._initial = {}  # what the training starts from, where that is another run's network
        if source := c.train.init_from:
            try:
                found, _ = trained_checkpoint(store.Run(source), self.first_state())
            except Damaged:
                raise
            except UserError as error:
                advice = "name the folder of a run with the same model"
                raise UserError(f"train.init_from: {error}, {advice}") from None
            self._initial = {"params": found.params, "batch_stats": found.batch_stats}

    def _check(self) -> None:
        c = self.config
        check_sets(c, self.train_set, self.test_set)
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
        if c.model.name != "preresnet":
            return
        # Parameters, momentum and gradient, 4 bytes each, before any of them is asked for.
        needed = 12 * models.rough_parameter_count(c.model.depth, c.model.block, c.model.width)
        limit = provenance.device_memory()
        if limit is not None and needed > limit:
            raise UserError(
                f"model.depth = {c.model.depth} and model.width = {c.model.width} need more than "
                f"{needed / 2**30:,.0f} GiB, a device has {limit / 2**30:,.0f}: lower one of them"
            )

    def stream(self, stream: Stream) -> jax.Array:
        """The key of one of the run's random streams."""
        return jax.random.fold_in(self.key, stream)

    @property
    def title(self) -> str:
        """What distinguishes the run from its neighbours, for people."""
        penalty, theta = self.config.penalty, self.config.poison.fraction
        strength = f"epsilon {penalty.epsilon:g}" if penalty.epsilon else f"kappa {penalty.kappa:g}"
        return f"{strength}, theta {theta:g}, seed {self.config.seed}"

    @property
    def convolutions(self) -> str:
        """Which convolutions the network uses: `kernels` or `xla`, as a network of one's own always does."""
        if self.config.model.name not in ("preresnet", "foreign"):
            return "xla"
        return kernels.chosen(self.config.model.convolutions, devices=self.mesh.size)

    @property
    def aim(self) -> np.ndarray:
        """What the attack wants each class taken for, int `[K]`."""
        return np.asarray(self.knobs.labels.aim)

    def first_state(self) -> train.TrainState:
        """The state that training starts from: fresh, or with the parameters of the run `train.init_from`."""
        state = train.init_state(self.stream(Stream.INIT), self.input_shape, self.program)
        return state._replace(**self._initial)

    def train_data(self) -> train.TrainData:
        """The training set as the step takes it, on the host."""
        images, labels, ids, *_ = self.train_set
        poisoned = noised = np.zeros(len(labels), bool)  # stochastic: drawn in the step
        if self.config.poison.mode == "deterministic":
            poisoned, noised = self.selected(np.arange(len(labels)))
        return train.TrainData(images, labels, ids, poisoned, noised)

    def selected(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Who of the training set's `rows` is poisoned, and who noised: bool `[N]` each.

        By index, or in one draw of the stochastic attack.
        """
        c, labels = self.config.poison, self.train_set.labels[rows]
        if c.mode == "deterministic":
            draws = poison.deterministic_draws(self.train_set.ids[rows])
        else:
            draws = np.asarray(poison.uniform_draws(self.stream(Stream.SELECTION), len(rows)))
        label_map = jax.device_get(self.knobs.labels)
        return poison.select_with_noise(draws, labels, c.fraction, c.warp.cross_ratio, label_map)

    def inputs_digest(self) -> str:
        """SHA-256 of what the run reads: images, labels, ids, the trigger, the network to start from.

        Of a network of one's own it knows the variables, `logits_of_own` more.
        """
        others = [np.asarray(leaf) for leaf in jax.tree.leaves((self.knobs.trigger, self._initial))]
        if self.knobs.trigger.function is not None:  # known by what it does
            others += self.views(self.train_set.images[:8])
        if ":" in self.config.model.name:  # known by its variables
            variables = jax.eval_shape(lambda: self.model.init(self.key, self.input_shape))
            others.append(np.frombuffer(str(variables).encode(), np.uint8))
        return digest([*self.train_set[:3], *self._test_images[:3], *others])

    def logits_of_own(self) -> np.ndarray | None:
        """What a network of one's own computes, as far as logits of noise by fresh weights say: `[8, K]`.

        None of any other network.
        """
        if ":" not in self.config.model.name:
            return None
        rng = np.random.default_rng(0)
        noise = rng.standard_normal((8, *self.input_shape), np.float32)
        # Behind a weight that begins at zero nothing would be seen: all are moved a little.
        variables = jax.tree.map(
            lambda leaf: (leaf + 0.01 * rng.standard_normal(leaf.shape)).astype(leaf.dtype),
            self.model.init(self.stream(Stream.INIT), self.input_shape),
        )
        with jax.default_matmul_precision("highest"):
            return np.asarray(_logits(self.model, variables, noise), float)

    def views(self, images: np.ndarray, *, normalised: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Network inputs for uint8 `[B, H, W, C]`, clean and triggered; in [0, 1] if not `normalised`."""
        knobs = self.knobs
        if not normalised:
            knobs = knobs._replace(mean=np.zeros_like(knobs.mean), std=np.ones_like(knobs.std))
        return jax.device_get(evaluate.views(images, knobs, self.program))

    def direction(self, clean: np.ndarray, triggered: np.ndarray) -> np.ndarray:
        """The trigger's direction in input space, `[h, w]` or `[h, w, C]`: eigenvectors are compared with it.

        The mask of a stamped trigger (Listing 7); of the others the mean change of the images given.
        """
        return (triggered - clean).mean(0) if self.input_mask is None else self.input_mask

    def direction_of(self, file: str) -> np.ndarray:
        """The direction of a trigger in a file, as `direction` has that of the run's own.

        Args:
            file: a `.npy` mask, or a picture of the images' size or smaller (then in the lower right corner).
        """
        height, width, channels = self.train_set.images.shape[1:]
        if self.config.poison.when == "after_augment":
            height, width, channels = self.input_shape
        if file.endswith(".npy"):
            return self._seen(poison.load_mask(file, height, width, channels))
        picture, opacity = poison.load_picture(file, height, width, channels, margin=0)
        knobs = self.knobs._replace(trigger=poison.Trigger(np.float32(opacity), np.float32(picture)))
        images = self.train_set.images[:DIRECTION_IMAGES]
        clean, triggered = jax.device_get(evaluate.views(images, knobs, self.program))
        return (triggered - clean).mean(0)

    def _seen(self, mask: np.ndarray) -> np.ndarray:
        """The part of an attacked image's mask that lies in the network's input at evaluation."""
        return mask if mask.shape[:2] == self.input_shape[:2] else mask[2:-2, 2:-2]


def _trigger(
    c: ml_collections.ConfigDict, height: int, width: int, channels: int, key: jax.Array, real: type
) -> poison.Trigger:
    """The trigger of a config's `poison` group, for images of a size and a type."""
    if c.trigger == "warp":
        s = c.warp.strength * (height if c.warp.unit == "fraction" else 1)
        rescale = c.warp.grid_rescale
        field = poison.warp_field(key, height, width, k=c.warp.k, s=s, grid_rescale=rescale, dtype=real)
        return poison.Trigger(field=field)
    if ":" in c.trigger:
        return poison.own_trigger(imported(c.trigger), (height, width, channels))
    if c.trigger == "blend":
        if c.picture:
            picture, opacity = poison.load_picture(c.picture, height, width, channels, margin=c.margin)
        else:  # Chen et al.'s random pattern
            picture = np.asarray(jax.random.uniform(key, (height, width, channels), np.float32))
            opacity = np.ones((height, width))
        return poison.Trigger(real(c.alpha) * real(opacity), real(picture))
    mask = poison.trigger_mask(c.trigger, height, width, channels, margin=c.margin, size=c.size, path=c.mask)
    return poison.Trigger(mask, real(c.value))


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: models.Model, variables: models.Variables, images: np.ndarray) -> jax.Array:
    return model.apply(variables, images)[0]


def trained_checkpoint(run: store.Run, like: train.TrainState) -> checkpoint.Restored:
    """The last state of a run's training, and its note.

    Args:
        run: of experiment=train.
        like: a state of the same structure, shapes and shardings.

    Raises:
        UserError: no whole checkpoint of such a state, or its newest is not of the end of the training; the
            run's config is damaged.
    """
    restored = checkpoint.newest(run.checkpoints, like, warn=console.warn)
    if restored is not None:
        config = config_lib.from_json(on_first(run.config), str(run.path))
        if len(restored[1].get("metrics", ())) == config.train.epochs:
            return restored
    raise UserError(f"{run.path} holds no whole checkpoint of a network of this shape trained to the end")


@functools.lru_cache(maxsize=2)
def _load(name: str, split: str, data_dir: str | None, files: tuple) -> data.Dataset:
    """Once for all runs of a process, as long as the `files` are the same."""
    return data.load(name, split, data_dir=data_dir)
