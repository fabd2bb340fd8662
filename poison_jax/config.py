"""The config: every key with its meaning and unit, and the checks that need no data.

A file in `configs/` edits `default()`. Keys are fixed names: commands written today keep working.
"""

import difflib
import math

import ml_collections
from ml_collections.config_dict import placeholder

from poison_jax.errors import UserError


def default() -> ml_collections.ConfigDict:
    """The paper's CIFAR-10 setting (Section 5.1), locked: a key that is not here is refused."""
    config = ml_collections.ConfigDict()
    config.experiment = (
        "train"  # train | compare (train for each of compare.arms) | krr_theory | mnist_linear
    )
    config.name = "run"  # run directories are <workdir>/<name>-<hash of the config>
    config.seed = 0  # of everything random: initial weights, batch order, augmentation, poison draws

    compare = config.compare = ml_collections.ConfigDict()
    compare.key = "penalty.kappa"  # the key in which the arms of experiment=compare differ
    compare.arms = (0.0,)  # its value in each arm

    data = config.data = ml_collections.ConfigDict()
    data.name = "cifar10"  # digits, mnist, fashion_mnist, cifar10, cifar100, or a path to your own
    data.dir = placeholder(str)  # of tensorflow-datasets; None: $TFDS_DATA_DIR, else its default
    data.n_train = placeholder(int)  # training images, the first in stored order; None: all
    data.n_test = placeholder(int)  # test images; None: all
    data.augment = "none"  # none | crop_flip (random crop, random horizontal flip)
    data.crop = "pad4"  # pad4 (pad by 4, crop to size: Listing 3) | crop28 (28x28 of 32x32: Section 5)

    model = config.model = ml_collections.ConfigDict()
    model.name = "preresnet"
    model.depth = 110  # 6n + 2 with basic blocks, 9n + 2 with bottleneck blocks
    model.block = "bottleneck"  # bottleneck (1,146,842 parameters at depth 110) | basic (1,730,522)
    model.width = 16  # channels of the first stage
    model.dtype = "float32"  # of the computation: float32 | bfloat16
    model.remat = False  # compute each block again in the gradient: slower, less memory (not on CPUs)

    poison = config.poison = ml_collections.ConfigDict()
    poison.trigger = "l"  # l (Listing 2) | square (lower right) | mask (from a file) | none
    poison.mask = ""  # trigger=mask: .npy file, bool [H, W] or [H, W, C]
    poison.mode = "stochastic"  # stochastic (a new draw at every visit) | deterministic (by index)
    poison.fraction = 0.01  # theta: probability that a non-target image is poisoned (per visit)
    poison.target = 0  # class that poisoned images are labelled as
    poison.margin = 3  # distance of the trigger from the edges, pixels
    poison.size = 2  # side of the trigger's box, pixels
    poison.value = 1.0  # what the pixels under the mask are set to, in [0, 1]
    poison.when = "after_augment"  # after_augment (Listing 3) | before_augment (the trigger moves)

    penalty = config.penalty = ml_collections.ConfigDict()
    penalty.kappa = 0.0  # strength; 0 trains without double backprop
    penalty.reduction = "listing"  # kappa times mean_i |grad_x L_i|^2 / B; per_example: times 1; eq25: 1/2
    penalty.batch_norm = "train"  # statistics in the penalty: train (Listing 1) | frozen (running)

    train = config.train = ml_collections.ConfigDict()
    train.epochs = 90
    train.batch_size = 128  # over all devices
    train.learning_rate = 0.1
    train.momentum = 0.9
    train.weight_decay = 5e-4  # added to the gradient of every parameter
    train.decay_factor = 0.1  # of the learning rate, at each decay
    train.decay_times = 2  # decays, evenly spaced: 2 means after every third of the epochs

    spectrum = config.spectrum = ml_collections.ConfigDict()
    spectrum.k = 5  # eigenpairs reported
    spectrum.num_iters = 10  # Lanczos steps; the paper's 10 are often too few: see the residuals
    spectrum.num_examples = 1024  # training images that the Hessian is averaged over, at most
    spectrum.data = "clean"  # clean (the stochastic defender) | poisoned (the deterministic one)
    spectrum.batch_size = 128  # images at once; memory grows with it, the result does not change
    krr = config.krr = ml_collections.ConfigDict()  # of experiment=krr_theory
    krr.data = ("mnist", "cifar10")  # data sets that the laws are measured on; () for none
    krr.num_points = 5000  # clean training points, the first in stored order
    krr.num_triggered = 100  # triggered test points x0, the first non-target ones
    krr.lengthscales = (0.5, 1.0, 2.0)  # of the Gaussian kernel, in units of the median distance
    krr.ridges = (0.01, 0.1, 1.0, 10.0)  # c = n lambda, the full diagonal term
    krr.lengthscale = 1.0  # of the approach to a clone and of the penalised fits
    krr.ridge = 0.1  # c of these
    krr.clones = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100)  # m: copies of the poison

    linear = config.linear = ml_collections.ConfigDict()  # of experiment=mnist_linear
    linear.fractions = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)  # theta, for poison.fraction
    linear.picture = 0.1  # theta of the weights in Figure 4, one of linear.fractions
    linear.seeds = (0, 1, 2)  # of who is poisoned and of the SGD's order
    linear.ridges = (400.0, 1600.0, 12800.0)  # c, added to the diagonal of X'X; the exact fit comes besides
    return config.lock()


def resize(config: ml_collections.ConfigDict, size: str) -> ml_collections.ConfigDict:
    """The CIFAR experiments' sizes: `""` is the paper's own, `small` takes minutes on two CPU cores."""
    if size == "small":
        config.data.n_train, config.data.n_test = 10_000, 2_000
        config.model.depth, config.model.block = 20, "basic"
        config.train.epochs = 10
        config.poison.fraction = 0.05
        config.compare.arms = (0.0, 100.0)
        config.spectrum.num_iters, config.spectrum.num_examples = 20, 512
    elif size:
        raise UserError(f"unknown size {size!r}: leave it out, or use small")
    return config


# Keys and groups whose value does not change what an experiment computes: not part of a run's identity.
_NOT_IDENTITY = {
    "train": ("data.dir", "model.remat", "krr", "linear"),
    "krr_theory": ("data", "model", "penalty", "train", "spectrum", "linear", "compare"),
    "mnist_linear": ("seed", "data.dir", "model", "poison.fraction", "penalty", "spectrum", "krr", "compare"),
}


def not_identity(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The keys and groups that are not part of the identity of a config's run."""
    return _NOT_IDENTITY.get(config.experiment, _NOT_IDENTITY["train"])


_CHOICES = {
    "experiment": ("train", "compare", "krr_theory", "mnist_linear"),
    "data.augment": ("none", "crop_flip"),
    "data.crop": ("pad4", "crop28"),
    "model.name": ("preresnet",),
    "model.dtype": ("float32", "bfloat16"),
    "poison.trigger": ("l", "square", "mask", "none"),
    "poison.mode": ("stochastic", "deterministic"),
    "poison.when": ("after_augment", "before_augment"),
    "penalty.reduction": ("listing", "per_example", "eq25"),
    "penalty.batch_norm": ("train", "frozen"),
    "spectrum.data": ("clean", "poisoned"),
}
_AT_LEAST = {
    "seed": 0,
    "data.n_train": 1,
    "data.n_test": 1,
    "poison.target": 0,
    "poison.margin": 0,
    "poison.size": 1,
    "penalty.kappa": 0,
    "train.epochs": 1,
    "train.batch_size": 1,
    "train.learning_rate": 0,
    "train.momentum": 0,
    "train.weight_decay": 0,
    "train.decay_factor": 0,
    "train.decay_times": 0,
    "spectrum.k": 1,
    "spectrum.num_iters": 1,
    "spectrum.num_examples": 1,
    "spectrum.batch_size": 1,
    "krr.num_points": 2,
    "krr.num_triggered": 1,
    "krr.lengthscale": 1e-3,
    "krr.ridge": 1e-9,
    "linear.picture": 0,
}
_OPTIONAL = ("data.n_train", "data.n_test")
_AT_MOST = {
    "seed": 2**32 - 1,
    "poison.fraction": 1,
    "poison.value": 1,
    "train.momentum": 1,
    "linear.picture": 1,
}
# Key -> type and bounds of each of its values.
_LISTS = {
    "krr.lengthscales": (float, 1e-3, math.inf),
    "krr.ridges": (float, 1e-9, math.inf),
    "krr.clones": (int, 1, math.inf),
    "linear.fractions": (float, 0, 1),
    "linear.seeds": (int, 0, 9999),
    "linear.ridges": (float, 1e-9, math.inf),
}


def check(config: ml_collections.ConfigDict) -> None:
    """Raises `UserError` for the first value that cannot be meant; needs neither data nor device."""
    for key, allowed in _CHOICES.items():
        if get(config, key) not in allowed:
            raise UserError(f"{key} = {get(config, key)!r}: use one of {', '.join(allowed)}")
    for key in _AT_LEAST | _AT_MOST | {"poison.fraction": 0, "poison.value": 0}:
        value, low, high = get(config, key), _AT_LEAST.get(key, 0), _AT_MOST.get(key, math.inf)
        if value is None and key in _OPTIONAL:
            continue
        if not isinstance(value, int | float) or not (low <= value <= high and math.isfinite(value)):
            bounds = f"in [{low}, {high}]" if high < math.inf else f"finite and at least {low}"
            raise UserError(f"{key} = {value}: must be {bounds}")
    for key, (kind, low, high) in _LISTS.items():
        values = get(config, key)
        meant = [
            isinstance(v, kind | int) and not isinstance(v, bool) and low <= v <= high and math.isfinite(v)
            for v in values
        ]
        if not values or not all(meant) or len(set(values)) < len(values):
            bounds = f"in [{low:g}, {high:g}]" if high < math.inf else f"finite and at least {low:g}"
            raise UserError(f"{key} = {tuple(values)}: name different {kind.__name__}s, each {bounds}")
    if not config.name or any(not (c.isalnum() or c in "-_.") for c in config.name) or config.name[0] == ".":
        raise UserError(f"name = {config.name!r}: use letters, digits, '-', '_' and '.'")
    if config.spectrum.k > config.spectrum.num_iters:
        raise UserError(
            f"spectrum.k = {config.spectrum.k} exceeds spectrum.num_iters = {config.spectrum.num_iters}: "
            "raise the latter"
        )
    if config.poison.trigger == "none" and config.poison.fraction > 0:
        raise UserError("poison.trigger = none with poison.fraction > 0: set the fraction to 0")
    if (config.poison.trigger == "mask") != bool(config.poison.mask):
        raise UserError("poison.mask names the file of poison.trigger = mask: set both or neither")
    if config.experiment == "compare":
        for arm in arms(config):
            check(arm)


def arms(config: ml_collections.ConfigDict) -> list[ml_collections.ConfigDict]:
    """The single runs of a config: one for each of `compare.arms`, or just itself.

    What they hold does not depend on how they were asked for, so that a run is done once.
    """
    comparing, key = config.experiment == "compare", config.compare.key
    values = config.compare.arms if comparing else (None,)
    if comparing:
        known = [
            name
            for name in flatten(config)
            if not name.startswith(("experiment", "compare.", *_NOT_IDENTITY["train"]))
        ]
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1) or ["penalty.kappa"]
            raise UserError(
                f"compare.key = {key!r} is not a key that arms can differ in: did you mean {near[0]!r}?"
            )
    if not values:
        raise UserError("compare.arms is empty: name at least one value")
    result = []
    for value in values:
        arm = ml_collections.ConfigDict(config).copy_and_resolve_references()
        arm.experiment, arm.compare = "train", default().compare
        if comparing:
            try:
                arm.update_from_flattened_dict({key: value})
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"compare.arms: {value!r} is no value of compare.key = {key!r}: {error}"
                ) from None
        result.append(arm.lock())
    return result


def flatten(config: ml_collections.ConfigDict) -> dict:
    """Dotted keys and their values."""
    result = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            result |= {f"{name}.{key}": item for key, item in flatten(value).items()}
        else:
            result[name] = value
    return result


def get(config: ml_collections.ConfigDict, key: str):
    """The value under a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config
