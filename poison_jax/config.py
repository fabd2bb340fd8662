"""The config: every key with its meaning and unit, and the checks that need no data.

A file in `configs/` edits `default()`. Keys are fixed names: commands written today keep working.
"""

import difflib
import functools
from collections.abc import Iterable
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from poison_jax.errors import UserError

LABEL_MAPS = ("all_to_one", "all_to_all", "source_specific", "clean_label")  # as in `poison.label_map`


def default() -> ml_collections.ConfigDict:
    """The paper's CIFAR-10 setting (Section 5.1), locked: a key that is not here is refused."""
    config = ml_collections.ConfigDict()
    config.experiment = (
        "train"  # train | compare (train for each of compare.arms) | krr_theory | mnist_linear | sweep
    )
    config.name = "run"  # run directories are <workdir>/<name>-<hash of the config>
    config.seed = 0  # of everything random: initial weights, batch order, augmentation, poison draws

    compare = config.compare = ml_collections.ConfigDict()
    compare.key = "penalty.kappa"  # the key in which the arms of experiment=compare differ; or several, 'a,b'
    compare.arms = (0.0,)  # its value in each arm; of several keys, a tuple of values: ((0.0, 0.5), ...)

    sweep = config.sweep = ml_collections.ConfigDict()  # of experiment=sweep
    sweep.name = "sweep"  # <workdir>/sweeps/<name>.json says what its cells are
    sweep.of = "train"  # the experiment of a cell: train | krr_theory | mnist_linear
    sweep.grids = ((),)  # each a tuple of axes (key, values): all combinations, of all grids, are the cells
    sweep.engine = "local"  # local (processes of this machine) | ray (tasks of a Ray cluster)
    sweep.workers = 1  # engine=local: processes, each with its share of the cores, or a GPU of its own
    sweep.gpus = 0.0  # engine=ray: GPUs that a cell takes
    sweep.cpus = 1.0  # engine=ray: cores that a cell takes
    sweep.attempts = 3  # a cell whose process dies this often has failed

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
    model.dtype = "float32"  # of the computation: float32 | bfloat16 | float64 (with JAX_ENABLE_X64=1)
    model.remat = False  # compute each block again in the gradient: slower, less memory (not on CPUs)

    poison = config.poison = ml_collections.ConfigDict()
    poison.trigger = (
        "l"  # l (Listing 2) | square (lower right) | mask | blend (both from a file) | warp | none
    )
    poison.mask = ""  # trigger=mask: .npy file, bool [H, W] or [H, W, C]
    poison.picture = (
        ""  # trigger=blend: image file, of the data's size or smaller (lower right); "": random pixels
    )
    poison.alpha = 1.0  # trigger=blend: opacity of the picture, in (0, 1]; 1 sets the pixels
    poison.mode = "stochastic"  # stochastic (a new draw at every visit) | deterministic (by index)
    poison.fraction = 0.01  # theta: probability that a non-target image is poisoned (per visit)
    poison.target = 0  # class that poisoned images are labelled as
    poison.labels = "all_to_one"  # all_to_one | all_to_all (y + 1) | source_specific | clean_label
    poison.source = 1  # labels=source_specific: the class whose images are poisoned
    poison.margin = 3  # distance of the trigger from the edges, pixels
    poison.size = 2  # side of the trigger's box, pixels
    poison.value = 1.0  # what the pixels under the mask are set to, in [0, 1]
    poison.when = "after_augment"  # after_augment (Listing 3) | before_augment (the trigger moves)

    warp = poison.warp = ml_collections.ConfigDict()  # of trigger=warp (WaNet)
    warp.k = 4  # points of noise along each side of the image
    warp.strength = 0.5  # of the displacement, in warp.unit
    warp.unit = "s"  # s (WaNet's: displacement s / H of a grid that spans 2) | fraction (s = strength * H)
    warp.grid_rescale = 1.0  # factor on the grid
    warp.cross_ratio = (
        0.0  # noise mode: images warped at random, labels kept, for each one poisoned (WaNet: 2)
    )

    penalty = config.penalty = ml_collections.ConfigDict()
    penalty.kappa = 0.0  # strength; 0 trains without double backprop
    penalty.reduction = "listing"  # kappa times mean_i |grad_x L_i|^2 / B; per_example: times 1; eq25: 1/2
    penalty.batch_norm = "train"  # statistics in the penalty: train (Listing 1) | frozen (running)
    penalty.epsilon = 0.0  # instead of kappa: L2 radius of adversarial training, in normalised pixels
    penalty.steps = 1  # of the adversarial perturbation: 1 is FGSM, more are PGD

    train = config.train = ml_collections.ConfigDict()
    train.epochs = 90
    train.batch_size = 128  # over all devices
    train.learning_rate = 0.1
    train.momentum = 0.9
    train.weight_decay = 5e-4  # added to the gradient of every parameter
    train.decay_factor = 0.1  # of the learning rate, at each decay
    train.decay_times = 2  # decays, evenly spaced: 2 means after every third of the epochs
    train.together = 1  # arms trained at once on the same device, at most: the same numbers up to rounding

    spectrum = config.spectrum = ml_collections.ConfigDict()
    spectrum.k = 5  # eigenpairs reported
    spectrum.num_iters = 10  # Lanczos steps; the paper's 10 are often too few: see the residuals
    spectrum.num_examples = 1024  # training images that the Hessian is averaged over, at most
    spectrum.data = "clean"  # clean (the stochastic defender) | poisoned (the deterministic one)
    spectrum.batch_size = 128  # images at once; memory grows with it, the result does not change
    spectrum.per_class = False  # the top eigenpairs of each class's Hessian, too

    analysis = config.analysis = ml_collections.ConfigDict()  # in images; 0: not at all
    analysis.features = 1000  # test images whose features are looked at in the end (Figures 1 to 3, Table 3)
    analysis.near_clone = 0  # triggered test images at which the theory is laid against the network
    analysis.collapse = 0  # training images for NC1 to NC4 after every epoch
    analysis.fisher = (
        0  # training images for the input Fisher (eq. 29): after every epoch, and its eigenvectors
    )

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
    "train": ("data.dir", "model.remat", "train.together", "krr", "linear", "sweep"),
    "krr_theory": (
        "data",
        "model",
        "penalty",
        "train",
        "spectrum",
        "analysis",
        "linear",
        "compare",
        "sweep",
    ),
    "mnist_linear": (
        "seed",
        "data.dir",
        "model",
        "poison.fraction",
        "penalty",
        "train.together",
        "spectrum",
        "analysis",
        "krr",
        "compare",
        "sweep",
    ),
}


def not_identity(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The keys and groups that are not part of the identity of a config's run."""
    return _NOT_IDENTITY.get(config.experiment, _NOT_IDENTITY["train"])


_CHOICES = {
    "experiment": ("train", "compare", "krr_theory", "mnist_linear", "sweep"),
    "sweep.of": ("train", "krr_theory", "mnist_linear"),
    "sweep.engine": ("local", "ray"),
    "data.augment": ("none", "crop_flip"),
    "data.crop": ("pad4", "crop28"),
    "model.name": ("preresnet",),
    "model.dtype": ("float32", "bfloat16", "float64"),
    "poison.trigger": ("l", "square", "mask", "blend", "warp", "none"),
    "poison.labels": LABEL_MAPS,
    "poison.warp.unit": ("s", "fraction"),
    "poison.mode": ("stochastic", "deterministic"),
    "poison.when": ("after_augment", "before_augment"),
    "penalty.reduction": ("listing", "per_example", "eq25"),
    "penalty.batch_norm": ("train", "frozen"),
    "spectrum.data": ("clean", "poisoned"),
}
_AT_LEAST = {
    "seed": 0,
    "sweep.workers": 1,
    "sweep.gpus": 0,
    "sweep.cpus": 0,
    "sweep.attempts": 1,
    "data.n_train": 1,
    "data.n_test": 1,
    "poison.target": 0,
    "poison.margin": 0,
    "poison.size": 1,
    "poison.source": 0,
    "poison.warp.k": 1,
    "poison.warp.strength": 0,
    "poison.warp.grid_rescale": 1e-3,
    "poison.warp.cross_ratio": 0,
    "penalty.kappa": 0,
    "penalty.epsilon": 0,
    "penalty.steps": 1,
    "train.epochs": 1,
    "train.batch_size": 1,
    "train.learning_rate": 0,
    "train.momentum": 0,
    "train.weight_decay": 0,
    "train.decay_factor": 0,
    "train.decay_times": 0,
    "train.together": 1,
    "spectrum.k": 1,
    "spectrum.num_iters": 1,
    "spectrum.num_examples": 1,
    "spectrum.batch_size": 1,
    "analysis.features": 0,
    "analysis.near_clone": 0,
    "analysis.collapse": 0,
    "analysis.fisher": 0,
    "krr.num_points": 2,
    "krr.num_triggered": 1,
    "krr.lengthscale": 1e-3,
    "krr.ridge": 1e-9,
    "linear.picture": 0,
}
_LONGEST_NAME = 200  # bytes: what is appended to it must fit in a file's name
_LARGEST = 3e38  # that a 32-bit number can hold
_OPTIONAL = ("data.n_train", "data.n_test")
_AT_MOST = {
    "seed": 2**32 - 1,
    "poison.warp.k": 1000,
    "penalty.steps": 1000,
    "train.epochs": 1_000_000,
    "train.decay_times": 1000,
    "sweep.workers": 1000,
    "poison.fraction": 1,
    "poison.value": 1,
    "poison.alpha": 1,
    "train.momentum": 1,
    "linear.picture": 1,
}
# Key -> type and bounds of each of its values.
_LISTS = {
    "krr.lengthscales": (float, 1e-3, _LARGEST),
    "krr.ridges": (float, 1e-9, _LARGEST),
    "krr.clones": (int, 1, 10**9),
    "linear.fractions": (float, 0, 1),
    "linear.seeds": (int, 0, 9999),
    "linear.ridges": (float, 1e-9, _LARGEST),
}


def check(config: ml_collections.ConfigDict) -> None:
    """Raises `UserError` for the first value that cannot be meant; needs neither data nor device."""
    _check_form(config)
    for key, allowed in _CHOICES.items():
        if get(config, key) not in allowed:
            raise UserError(f"{key} = {get(config, key)!r}: use one of {', '.join(allowed)}")
    for key in _AT_LEAST | _AT_MOST:
        value, low, high = get(config, key), _AT_LEAST.get(key, 0), _AT_MOST.get(key, _LARGEST)
        if value is None and key in _OPTIONAL:
            continue
        if not isinstance(value, int | float) or not (low <= value <= high):
            bounds = f"in [{low}, {high}]" if key in _AT_MOST else f"finite and at least {low}"
            raise UserError(f"{key} = {value}: must be {bounds}")
    for key, (kind, low, high) in _LISTS.items():
        values = get(config, key)
        meant = [isinstance(v, kind | int) and not isinstance(v, bool) and low <= v <= high for v in values]
        if not values or not all(meant) or len(set(values)) < len(values):
            bounds = f"in [{low:g}, {high:g}]" if high < _LARGEST else f"finite and at least {low:g}"
            raise UserError(f"{key} = {tuple(values)}: name different {kind.__name__}s, each {bounds}")
    for key in ("name", "sweep.name"):
        name = get(config, key)
        if not name or any(not (c.isalnum() or c in "-_.") for c in name) or name[0] == ".":
            raise UserError(f"{key} = {name!r}: use letters, digits, '-', '_' and '.'")
        if len(name.encode()) > _LONGEST_NAME:
            raise UserError(f"{key} = {name!r}: a file's name cannot be that long, use {_LONGEST_NAME} bytes")
    if not all(isinstance(name, str) for name in config.krr.data):
        raise UserError(f"krr.data = {tuple(config.krr.data)}: name data sets, or () for none")
    if config.spectrum.k > config.spectrum.num_iters:
        raise UserError(
            f"spectrum.k = {config.spectrum.k} exceeds spectrum.num_iters = {config.spectrum.num_iters}: "
            "raise the latter"
        )
    _check_poison(config.poison)
    if config.penalty.kappa > 0 and config.penalty.epsilon > 0:
        raise UserError(
            "penalty.kappa and penalty.epsilon are both above 0: choose the penalty or the adversary"
        )
    if config.experiment == "compare":
        for arm in arms(config):
            check(arm)


def _check_form(config: ml_collections.ConfigDict) -> None:
    """A config file or a stored config may lack keys, or hold anything under them."""
    found = flatten(config)
    for key, meant in _defaults().items():
        if key not in found:
            raise UserError(f"the config has no key {key!r}: begin with poison_jax.config.default()")
        kind = {float: int | float, tuple: tuple | list}.get(type(meant), type(meant))
        fits = isinstance(found[key], kind) and isinstance(found[key], bool) == isinstance(meant, bool)
        if meant is not None and not fits:
            raise UserError(f"{key} = {found[key]!r}: must be of type {type(meant).__name__}")


@functools.cache
def _defaults() -> dict[str, Any]:
    return flatten(default())


def _check_poison(poison: ml_collections.ConfigDict) -> None:
    if poison.trigger == "none" and poison.fraction > 0:
        raise UserError("poison.trigger = none with poison.fraction > 0: set the fraction to 0")
    if (poison.trigger == "mask") != bool(poison.mask):
        raise UserError("poison.mask names the file of poison.trigger = mask: set both or neither")
    if poison.picture and poison.trigger != "blend":
        raise UserError("poison.picture is for poison.trigger = blend: set both or leave it out")
    if poison.alpha == 0:
        raise UserError(
            f"poison.alpha = {poison.alpha}: the picture would not be seen, choose a number in (0, 1]"
        )
    if poison.warp.cross_ratio > 0 and poison.trigger != "warp":
        raise UserError(
            f"poison.warp.cross_ratio = {poison.warp.cross_ratio} is for poison.trigger = warp: set it to 0"
        )
    if poison.warp.cross_ratio > 0 and poison.fraction * (1 + poison.warp.cross_ratio) > 1:
        raise UserError(
            f"poison.fraction = {poison.fraction} and poison.warp.cross_ratio = {poison.warp.cross_ratio}: "
            "together more than all images; lower one of them"
        )
    if poison.labels == "source_specific" and poison.source == poison.target:
        raise UserError(f"poison.source and poison.target are both {poison.target}: choose two classes")


def arms(config: ml_collections.ConfigDict) -> list[ml_collections.ConfigDict]:
    """The single runs of a config: one for each of `compare.arms`, or just itself.

    What they hold does not depend on how they were asked for, so that a run is done once.
    """
    comparing = config.experiment == "compare"
    if comparing:
        check_axis(config.compare.key, "compare.key")
    if comparing and not config.compare.arms:
        raise UserError("compare.arms is empty: name at least one value")
    result = []
    for value in config.compare.arms if comparing else (None,):
        arm = single(config, "train")
        if comparing:
            assign(arm, config.compare.key, value, f"compare.arms of compare.key = {config.compare.key!r}")
        result.append(arm.lock())
    return result


def single(config: ml_collections.ConfigDict, experiment: str) -> ml_collections.ConfigDict:
    """A copy that is one run of an experiment, with no word of the comparison or sweep that asks for it."""
    copy, fresh = ml_collections.ConfigDict(config).copy_and_resolve_references(), default()
    copy.experiment, copy.compare, copy.sweep = experiment, fresh.compare, fresh.sweep
    return copy


def check_axis(key: str, where: str) -> None:
    """Raises `UserError` where a key, or one of several `'a,b'`, is none that runs can differ in."""
    known = [
        name
        for name in flatten(default())
        if not name.startswith(("experiment", "compare.", *_NOT_IDENTITY["train"]))
    ]
    for name in split_axis(key):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or ["penalty.kappa"]
            raise UserError(
                f"{where} = {name!r} is not a key that runs can differ in: did you mean {near[0]!r}?"
            )


def split_axis(key: str) -> list[str]:
    """The keys of an axis; several are `'a,b'`."""
    return [name.strip() for name in key.split(",")]


def assign(config: ml_collections.ConfigDict, key: str, value: Any, where: str) -> dict[str, Any]:
    """Sets a key of an axis, or several of them, to a value, or a tuple of values; returns them by key.

    Raises:
        UserError: the value is none of the key's; says that it stands in `where`.
    """
    names = split_axis(key)
    try:
        values = dict(zip(names, (value,) if len(names) == 1 else value, strict=True))
        config.update_from_flattened_dict(values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {value!r} is no value of {key!r}: {error}") from None
    return {name: get(config, name) for name in names}


def from_json(stored: dict, where: str) -> ml_collections.ConfigDict:
    """The config that a run's `config.json` holds; keys that it lacks, being older, have their defaults.

    Raises:
        UserError: it holds a key that this version does not know, or a value of another type.
    """
    config = default()
    try:
        found = flatten(ml_collections.ConfigDict(stored))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: what it holds is no config: {error}") from None
    for key, value in found.items():
        try:
            config.update_from_flattened_dict({key: tuple(value) if isinstance(value, list) else value})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}: config key {key!r} is not of this version: {error}") from None
    return config


def axes(config: ml_collections.ConfigDict) -> list[str]:
    """The keys in which the runs of a comparison or a sweep differ."""
    if config.experiment == "sweep":
        named = [axis[0] for grid in config.sweep.grids for axis in grid]
        return list(dict.fromkeys(name for key in named for name in split_axis(str(key))))
    return split_axis(config.compare.key) if config.experiment == "compare" else []


def pin(config: ml_collections.ConfigDict, keys: Iterable[str]) -> None:
    """Takes what was named on the command line out of what runs differ in: it is meant for all of them."""
    named = set(keys) & set(axes(config)) - {"experiment"}
    if named and config.experiment == "compare":
        config.experiment = "train"
    elif named:
        config.sweep.grids = tuple(
            tuple(axis for axis in grid if not named & set(split_axis(axis[0])))
            for grid in config.sweep.grids
        )


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


def short(key: str) -> str:
    """A dotted key as people call it.

    >>> short("poison.fraction"), short("train.epochs")
    ('theta', 'epochs')
    """
    return {"poison.fraction": "theta"}.get(key, key.rpartition(".")[2])


def identity(config):
    found = flatten(config)
    for key in not_identity(config) + ("spectrum", "analysis", "data.n_test", "compare"):
        found = {k: v for k, v in found.items() if k != key and not k.startswith(key + ".")}
    return found


def changed(config, keys):
    return {
        k: v for k, v in flatten(config).items() if k in keys or k.startswith(tuple(f"{x}." for x in keys))
    }
