"""Our side: the functions that a run calls, on inputs that both sides share."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from poison_jax import batches, models, poison, spectrum, train
from poison_jax.mesh import make_mesh, replicate

DEPTH, CLASSES, BATCH, KAPPA = 20, 10, 128, 3000.0
IMAGE_SHAPE = (32, 32, 3)
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
EIGENPAIRS, LANCZOS_STEPS = 5, 20
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@functools.cache  # one object for each network: methods of equal ones are compiled again
def _network(depth: int, **options) -> models.Model:
    return models.preresnet(depth, CLASSES, **options)


class Training:
    """`train.train_step` on four batches of random uint8 images, poisoned as in the experiments.

    Args:
        penalised: whether with the penalty.
        depth: of the network; its width and so on are in `network`, as `models.preresnet` takes them.
        batch: images a step.
        devices: over how many of the first devices; all of them by default.
    """

    def __init__(
        self,
        *,
        penalised: bool,
        depth: int = DEPTH,
        batch: int = BATCH,
        devices: int | None = None,
        **network,
    ):
        mesh = make_mesh(jax.devices()[:devices])
        self.program = train.Program(
            _network(depth, **network),
            mesh,
            penalised=penalised,
            remat=network.get("remat", False),
            reduction="listing",
            learning_rate=LEARNING_RATE,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
        )
        rng, count = np.random.default_rng(0), 4 * batch
        images = rng.integers(0, 256, (count, *IMAGE_SHAPE), np.uint8)
        labels = rng.integers(0, CLASSES, count, np.int32)
        nobody = np.zeros(count, bool)
        data = train.TrainData(images, labels, np.arange(count, dtype=np.int32), nobody, nobody)
        knobs = train.Knobs(
            key=jax.random.key(1),
            kappa=np.float32(KAPPA),
            epsilon=np.float32(0),
            fraction=np.float32(0.1),
            hide=np.float32(0),
            target=np.int32(0),
            cross_ratio=np.float32(0),
            labels=poison.label_map("all_to_one", CLASSES, target=0),
            trigger=poison.Trigger(poison.l_trigger(*IMAGE_SHAPE[:2]), np.float32(1)),
            mean=np.array(MEAN, np.float32),
            std=np.array(STD, np.float32),
        )
        order = np.arange(count, dtype=np.int32).reshape(4, batch)
        self.state = train.init_state(jax.random.key(0), IMAGE_SHAPE, self.program)
        self.arguments = jax.tree.map(lambda leaf: replicate(leaf, mesh), (data, order, knobs))

    def first_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """What the network sees in the first step: normalised images, labels trained on."""
        data, order, knobs = self.arguments
        key = jax.random.fold_in(knobs.key, 0)
        images, labels, _ = train.make_batch(data, order[0], key, knobs, self.program)
        return np.array(images), np.array(labels)

    def step(self) -> None:
        self.state, self.metrics = train.train_step(self.state, *self.arguments, program=self.program)
        jax.block_until_ready(self.state)

    def first_step(self) -> tuple[float, dict]:
        """Takes it; returns its objective, and its gradient as the optimiser got it."""
        before = jax.device_get(self.state.params)
        self.step()
        momentum = jax.device_get(optax.tree_utils.tree_get(self.state.opt_state, "trace"))
        gradient = jax.tree.map(lambda trace, p: trace - WEIGHT_DECAY * p, momentum, before)
        return float(self.metrics.objective), gradient


def inference(model: models.Model, variables: dict, images: np.ndarray) -> Callable[[], jax.Array]:
    """`batches.logits` of a batch that is on the device already."""
    variables, images = jax.device_put((variables, images))
    return lambda: batches.logits(model.apply, variables, images).block_until_ready()


class Hessian(NamedTuple):
    """`spectrum.input_hessian`, as the experiments call it."""

    model: models.Model
    variables: dict
    images: np.ndarray
    labels: np.ndarray
    k: int = EIGENPAIRS
    num_iters: int = LANCZOS_STEPS
    batch: int = BATCH

    @property
    def products(self) -> int:
        """Hessian products of a call: the residuals take k + 1."""
        return self.num_iters + self.k + 1

    def start(self) -> np.ndarray:
        """The start vector that `input_hessian` draws, `[H, W, C]`."""
        vector = jax.random.normal(jax.random.key(2), (self.images[0].size,), jnp.float32)
        return np.asarray(vector).reshape(self.images[0].shape)

    def eigenvalues(self) -> np.ndarray:
        return spectrum.input_hessian(
            self.model.apply,
            self.variables,
            self.images,
            self.labels,
            k=self.k,
            num_iters=self.num_iters,
            key=jax.random.key(2),
            batch_size=self.batch,
        ).values


def trained_a_little() -> tuple[models.Model, dict]:
    """A network with running statistics of its own: PreResNet-20 after twenty plain steps."""
    training = Training(penalised=False)
    for _ in range(20):
        training.step()
    return training.program.model, jax.device_get(training.state.variables)


def random_inputs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images normalised as CIFAR's are, and labels."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (count, *IMAGE_SHAPE)).astype(np.float32) / 255
    images = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return images, rng.integers(0, CLASSES, count, np.int32)
