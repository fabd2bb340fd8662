"""Small networks and data that several test files share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import config as config_lib
from poison_jax import console, models, poison, train
from poison_jax.errors import UserError
from poison_jax.experiments.setup import Setup
from poison_jax.mesh import make_mesh, replicate
from poison_jax.runs import checkpoint


def network(*, dtype="float32", num_classes=3, shape=(6, 6, 1), width=2, seed=0):
    """A PreResNet-8 whose running statistics are not the initial ones."""
    model = models.preresnet(8, num_classes, width=width, dtype=dtype)
    variables = model.init(jax.random.key(seed), shape)
    keys = iter(jax.random.split(jax.random.key(seed + 1), 1000))
    stats = jax.tree.map(
        lambda s: jax.random.uniform(next(keys), s.shape, s.dtype, 0.5, 1.5), variables["batch_stats"]
    )
    return model, {"params": variables["params"], "batch_stats": stats}


def batch(count, *, dtype=np.float32, num_classes=3, shape=(6, 6, 1), seed=0):
    """Standard normal images and random labels."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *shape)).astype(dtype), rng.integers(0, num_classes, count)


def training(
    *,
    kappa=0.0,
    epsilon=0.0,
    devices=1,
    count=64,
    dtype="float32",
    model=None,
    seed=0,
    fraction=0.3,
    hide=0.0,
    cross_ratio=0.0,
    labels_as="all_to_one",
    trigger=None,
    **program,
):
    """State, data, knobs and program of a small training run on random 8x8 images, of `Small` by default."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    labels = rng.integers(0, 4, count).astype(np.int32)
    ids = np.arange(count, dtype=np.int32)
    mesh = make_mesh(jax.devices()[:devices])
    model = model or models.Model(Small(4, dtype))
    program = {"penalised": kappa > 0, "hiding": hide > 0, "reduction": "listing", **program}
    program = train.Program(model, mesh, **program)
    real = np.float64 if dtype == "float64" else np.float32
    knobs = train.Knobs(
        key=jax.random.key(seed),
        kappa=real(kappa),
        fraction=real(fraction),
        epsilon=real(epsilon),
        hide=real(hide),
        target=np.int32(0),
        cross_ratio=real(cross_ratio),
        labels=poison.label_map(labels_as, 4, target=0, source=1),
        trigger=trigger or poison.Trigger(poison.l_trigger(8, 8, margin=0), real(1)),
        mean=np.full(1, 0.5, real),
        std=np.full(1, 0.25, real),
    )
    poisoned, noised = poison.select_with_noise(
        poison.deterministic_draws(ids), labels, fraction, cross_ratio, knobs.labels
    )
    data = train.TrainData(images, labels, ids, poisoned, noised)
    state = train.init_state(jax.random.key(7), (8, 8, 1), program)
    data, knobs = replicate((data, knobs), mesh)
    return state, data, knobs, program


def steps(state, data, knobs, program, count, batch_size=16):
    """The state after steps on the first batches in order, and `Metrics` of arrays, a number a step."""
    order = jnp.arange(len(data.labels)).reshape(-1, batch_size)
    order, measured = replicate(order, program.mesh), []
    for _ in range(count):
        state, metrics = train.train_step(state, data, order, knobs, program=program)
        measured.append(jax.device_get(metrics))
    return state, jax.tree.map(lambda *values: np.stack(values), *measured)


def tiny(**changes):
    """A run of seconds; `group__key=value` changes it."""
    config = config_lib.default()
    settings = {
        "data.name": "digits",
        "data.n_train": 128,
        "data.n_test": 64,
        "model.depth": 8,
        "model.block": "basic",
        "model.width": 4,
        "poison.margin": 0,
        "poison.fraction": 0.3,
        "train.epochs": 2,
        "train.batch_size": 32,
        "spectrum.k": 3,
        "spectrum.num_iters": 6,
        "spectrum.num_examples": 40,
        "spectrum.batch_size": 16,
    }
    config.update_from_flattened_dict(settings)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


class Small(nn.Module):
    """A network that compiles at once, for whatever is not about the network: `toys:Small`."""

    classes: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images, train):
        stored = jnp.promote_types(self.dtype, jnp.float32)
        types = {"dtype": self.dtype, "param_dtype": stored}
        x = nn.relu(nn.Conv(4, (3, 3), **types)(images))
        x = models.BatchNorm(use_running_average=not train, **types)(x)
        pre_fc = x.astype(stored).mean((1, 2))
        logits = nn.Dense(self.classes, name="fc", dtype=stored, param_dtype=stored)(pre_fc)
        return logits, models.Features(pre_fc, x)


def small(**changes):
    """As `tiny`, with that network."""
    return tiny(model__name="toys:Small", **changes)


def restored(run):
    """The `Setup` of a run and its last state."""
    made = Setup(config_lib.from_json(run.config(), run.path))
    found = checkpoint.newest(run.checkpoints, made.first_state(), warn=console.warn)
    if found is None:
        raise UserError(f"{run.checkpoints} holds no whole checkpoint")
    state, _ = found
    return made, state
