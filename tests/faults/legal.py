"""Runs that are odd but legal, drawn by luck: whatever they combine, they must come to their result."""

from typing import Any

import numpy as np

from tests.faults.malformed import HERE, Example, Luck, tiny
from tests.faults.malformed_data import Files, images, npy, npz, picture

_NAMES = [
    "a$b$",
    "$x_{",
    "\\frac{",
    "<b>&amp;",
    "100%",
    "%s",
    "猫",
    "é è",
    "a.b",
    "",
    " ",
    "a\nb",
    "{0}",
    "^_^",
]
# Few of each, so that what is compiled for one run serves many. Channels (0: no axis), height, width.
_SHAPES = [(0, 8, 8), (3, 4, 9), (1, 11, 8), (0, 4, 4), (2, 5, 7), (4, 8, 8), (3, 11, 8)]
_COMPARISONS = [
    {"compare.key": "seed", "compare.arms": "(7, 8)"},
    {"compare.key": "seed", "compare.arms": "(3, 3)"},
    {"compare.key": "train.learning_rate", "compare.arms": "(0, 0.001)"},
    {"compare.key": "model.width,seed", "compare.arms": "((1, 5), (2, 6))"},
    {"compare.key": "penalty.reduction", "compare.arms": "('eq25',)"},
    {"compare.key": "name", "compare.arms": "('x', 'y.z')"},
]
_SWEEPS = [
    "(((('seed'), (1, 2)),),)",
    "((('train.learning_rate', (0, 0.001)),), (('seed', (0,)),))",
    "((),)",
]
# Of a result: what there need not be a number for.
UNDEFINED = (
    # Rates over no image: of all images none is attacked.
    "poisoned_train_accuracy",
    "asr",
    "robust_accuracy",
    "no_trigger_target_rate",
    "gap",  # of a single eigenvalue
    # Of a single class, or of one image of each.
    "nc1",
    "nc1_test",
    "nc2_angles",
    "nc2_norms",
    "nc3",
    "nc4",
    # A slope over fewer than three epochs.
    "near_clone_epochs_slope",
    "near_clone_epochs_slope_low",
    "near_clone_epochs_slope_high",
    # Over fewer than three triggered images that have a logarithm, or images that are all alike.
    "near_clone_slope",
    "near_clone_slope_low",
    "near_clone_slope_high",
    "near_clone_rank_correlation",
    "near_clone_rank_correlation_mean",
)


def draw(luck: Luck) -> Example:
    """A training; now and then a comparison, a small sweep, or a dry run."""
    if luck.randrange(25) == 0:
        sweep = {"experiment": "sweep", "sweep.grids": luck.choice(_SWEEPS), "analysis.features": 0}
        return Example("small sweeps", (*tiny(sweep), "--workdir=my runs"))
    settings, files, shape, count, classes = _data(luck)
    augment, size = _augment(luck, shape)
    poison, more = _poison(luck, shape, size, classes)
    settings |= augment | poison | _training(luck, count) | _looks(luck, size[0] * size[1] * shape[2])
    if settings.get("poison.warp.cross_ratio", 0) > 0:  # the noise mode's images are not in the poisoned data
        settings["spectrum.data"] = "clean"
    if luck.randrange(6) == 0:
        settings |= {"experiment": "compare"} | luck.choice(_COMPARISONS)
    workdir = luck.choice(["runs", "my runs", "läufe $x", "%s_{0}", "a/b/../c", "'q\"", "-w"])
    arguments = (*tiny(settings), f"--workdir={workdir}")
    if luck.randrange(25) == 0:
        return Example("dry runs", (*arguments, "--dry_run"), files | more)
    return Example("odd but legal runs", arguments, files | more)


def _choose(luck: Luck, choices: dict[str, list]) -> dict[str, Any]:
    """A value for each key."""
    return {key: luck.choice(values) for key, values in choices.items()}


def _array(luck: Luck, count: int, shape: tuple[int, ...]) -> np.ndarray:
    array = images(count, *shape, seed=luck.randrange(10))
    kind = luck.choice(["random", "random", "black", "white", "same", "stripes"])
    if kind in ("black", "white"):
        array[:] = 255 * (kind == "white")
    elif kind == "same":
        array[:] = array[:1]
    elif kind == "stripes":
        array[:, ::2] = 0
    return array


def _data(luck: Luck) -> tuple[dict[str, Any], Files, tuple[int, int, int], int, int]:
    """Settings, files, the images' shape `(H, W, C)`, the numbers of training images and of classes."""
    if luck.random() < 0.5:
        settings = _choose(luck, {"data.n_train": [1, 2, 37, 64], "data.n_test": [1, 31]})
        return settings, {}, (8, 8, 1), settings["data.n_train"], 10
    channels, height, width = luck.choice(_SHAPES)
    stored = (height, width, *([channels] if channels else []))
    shape = (height, width, channels or 1)
    classes, count = luck.choice([1, 2, 5]), luck.choice([11, 40])
    names = luck.sample([*_NAMES, "café" * 9], classes)
    settings: dict[str, Any] = {"data.n_train": None, "data.n_test": None}
    if channels in (0, 3) and luck.random() < 0.5:
        folders = [name.strip().replace("\n", "-") or f"x{i}" for i, name in enumerate(names)]
        array = _array(luck, 8 * classes, stored)
        files: Files = {f"my data/{folders[i % classes]}/{i}.png": picture(x) for i, x in enumerate(array)}
        settings["data.name"] = f"{HERE}/my data"
        return settings, files, shape, 8 * classes - 8 * classes // 5, classes
    labels = (np.arange(count) % classes).astype(luck.choice(["i8", "u1", "i2", "u8"]))
    arrays: dict[str, Any] = {"images": _array(luck, count, stored), "labels": labels}
    if luck.random() < 0.5:
        arrays["class_names"] = np.array(names)
    if luck.random() < 0.5:
        ids = np.arange(count)
        arrays["ids"] = luck.choice([0 * ids, ids[::-1], ids + 2**31 - 50])
    training = count - max(count // 5, classes)  # of each class at least one is held out
    if luck.random() < 0.5:
        tests, training = luck.choice([1, 3, 10]), count
        arrays |= {"test_images": _array(luck, tests, stored), "test_labels": np.zeros(tests, int)}
    settings["data.name"] = f"{HERE}/mine.npz"
    return settings, {"mine.npz": npz(**arrays)}, shape, training, classes


def _augment(luck: Luck, shape: tuple[int, int, int]) -> tuple[dict[str, Any], tuple[int, int]]:
    """Settings, and the size of the network's input."""
    crops = ["pad4", "crop28"] if min(shape[:2]) >= 8 else ["pad4"]
    settings = _choose(luck, {"data.augment": ["none", "crop_flip"], "data.crop": crops})
    less = 4 if settings == {"data.augment": "crop_flip", "data.crop": "crop28"} else 0
    return settings, (shape[0] - less, shape[1] - less)


def _poison(luck: Luck, shape, size, classes: int) -> tuple[dict[str, Any], Files]:
    trigger = luck.choice(["l", "square", "mask", "blend", "warp", "none"])
    when = luck.choice(["after_augment", "before_augment"])
    h, w = shape[:2] if when == "before_augment" else size
    shrinks = when == "before_augment" and size != shape[:2]
    fraction = 0 if trigger == "none" else luck.choice([0, 1e-9, 0.1, 0.5, 1])
    target = luck.randrange(classes)
    labels = ["all_to_one", "all_to_all", "clean_label"] + ["source_specific"] * (classes > 1)
    settings: dict[str, Any] = {
        "poison.trigger": trigger,
        "poison.when": when,
        "poison.margin": 0,
        "poison.fraction": fraction,
        "poison.target": target,
        "poison.labels": luck.choice(labels),
        "poison.mode": luck.choice(["stochastic", "deterministic"]),
    }
    files: Files = {}
    if settings["poison.labels"] == "source_specific":
        settings["poison.source"] = (target + 1) % classes
    if trigger in ("l", "square"):
        margin = luck.randint(2 if shrinks else 0, min(h, w) - 1 - (2 if shrinks else 0))
        settings["poison.margin"] = margin
        settings["poison.size"] = luck.randint(1, min(h, w) - margin)
        settings["poison.value"] = luck.choice([0, 0.5, 1])
    elif trigger == "mask":
        mask = np.ones(luck.choice([(h, w), (h, w, shape[2])]), luck.choice(["?", "u1", "f4"]))
        mask[0] = 0
        files["a mask.npy"], settings["poison.mask"] = npy(mask), f"{HERE}/a mask.npy"
    elif trigger == "blend":
        settings["poison.alpha"] = luck.choice([1e-6, 0.5, 1])
        if shape[2] in (1, 3) and luck.random() < 0.5:
            side = luck.choice([(h, w), (min(h, 3), min(w, 2))])
            files["picture.png"] = picture(images(1, *side, luck.choice([3, 4]))[0] | 1)
            settings["poison.picture"] = f"{HERE}/picture.png"
    elif trigger == "warp":
        settings |= {
            "poison.warp.cross_ratio": luck.choice([0, 0, 2, 0.5]) if fraction <= 0.1 else 0,
            "poison.warp.k": luck.choice([1, 2, 4, 9]),
            "poison.warp.strength": luck.choice([0, 0.02, 0.5, 2]),
            "poison.warp.unit": luck.choice(["s", "fraction"]),
            "poison.warp.grid_rescale": luck.choice([0.5, 1, 1.5]),
        }
    return settings, files


def _training(luck: Luck, count: int) -> dict[str, Any]:
    choices = {
        "train.epochs": [1, 2],
        "train.batch_size": [count, max(1, count // 2), max(1, count - 1), max(1, count // 3)],
        "train.learning_rate": [0, 1e-4, 0.01],
        "train.momentum": [0, 0.9, 1],
        "train.weight_decay": [0, 5e-4, 0.1],
        "train.decay_factor": [0, 0.1, 1, 2],
        "train.decay_times": [0, 1, 2, 9],
        "train.remat": [False, True],
        "seed": [0, 1, 2**32 - 1],
        "penalty.reduction": ["listing", "per_example", "eq25"],
        "penalty.batch_norm": ["train", "frozen"],
        "model.width": [1, 3],
        "model.dtype": ["float32", "float32", "bfloat16"],
        "model.convolutions": ["auto", "xla"],
        "name": ["run", "é.1", "-x-", "猫_", "a..b"],
    }
    defence = luck.choice(["none", "kappa", "epsilon"])
    if defence == "kappa":
        choices["penalty.kappa"] = [1e-30, 1e-6, 1, 1000]
    elif defence == "epsilon":
        choices |= {"penalty.epsilon": [1e-6, 0.1, 5], "penalty.steps": [1, 2, 3]}
    return _choose(luck, choices)


def _looks(luck: Luck, dimension: int) -> dict[str, Any]:
    """What is looked at in the trained network, whose input has so many dimensions."""
    num_iters = luck.choice(sorted({1, 2, min(5, dimension), min(dimension, 16)}))
    choices = {
        "spectrum.num_iters": [num_iters],
        "spectrum.k": sorted({1, num_iters, min(2, num_iters)}),
        "spectrum.num_examples": [1, 7, 1024],
        "spectrum.batch_size": [1 if dimension < 20 else 8, 5, 64],
        "spectrum.data": ["clean", "poisoned"],
        "spectrum.per_class": [False, False, True],
        "analysis.features": [0, 0, 0, 1, 1000],
        "analysis.near_clone": [0, 0, 1, 3],
        "analysis.collapse": [0, 0, 1, 20],
        "analysis.fisher": [0, 0, 1, 20],
    }
    return _choose(luck, choices)
