"""Strategies for runs that are odd but legal: whatever they combine, they must come to their result."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.faults.malformed import HERE, Example, flags
from tests.faults.malformed_data import images, npy, npz, picture

_NAMES = (
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
    "café" * 9,
)


def _array(draw, count: int, shape: tuple[int, ...]) -> np.ndarray:
    kind = draw(st.sampled_from(["random", "random", "black", "white", "same", "stripes"]))
    array = images(count, *shape, seed=draw(st.integers(0, 9)))
    if kind in ("black", "white"):
        array[:] = 255 * (kind == "white")
    elif kind == "same":
        array[:] = array[:1]
    elif kind == "stripes":
        array[:, ::2] = 0
    return array


@st.composite
def _data(draw) -> tuple[dict[str, Any], dict[str, bytes | None], dict[str, Any]]:
    """Settings, files, and what is true of the data: shape, training images, classes."""
    if draw(st.booleans()):
        n_train = draw(st.sampled_from([1, 2, 37, 64]))
        settings = {"data.n_train": n_train, "data.n_test": draw(st.sampled_from([1, 31]))}
        return settings, {}, {"shape": (8, 8, 1), "count": n_train, "classes": 10}
    # Few of each, so that what is compiled for one run serves many.
    channels, height, width = draw(
        st.sampled_from([(0, 8, 8), (3, 4, 9), (1, 11, 8), (0, 4, 4), (2, 5, 7), (4, 8, 8), (3, 11, 8)])
    )
    shape = (height, width, *([channels] if channels else []))
    classes, count = draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([11, 40]))
    of = {"shape": (height, width, channels or 1), "classes": classes}
    settings = {"data.n_train": None, "data.n_test": None}
    names = draw(st.lists(st.sampled_from(_NAMES), min_size=classes, max_size=classes, unique=True))
    if channels in (0, 3) and draw(st.booleans()):
        names = [name.strip().replace("\n", "-") or f"x{i}" for i, name in enumerate(names)]
        array = _array(draw, 8 * classes, shape)
        files: dict[str, bytes | None] = {
            f"my data/{names[i % classes]}/{i}.png": picture(array[i]) for i in range(8 * classes)
        }
        settings["data.name"] = f"{HERE}/my data"
        return settings, files, of | {"count": 8 * classes - 8 * classes // 5}
    arrays: dict[str, Any] = {"images": _array(draw, count, shape), "labels": np.arange(count) % classes}
    arrays["labels"] = arrays["labels"].astype(draw(st.sampled_from(["i8", "u1", "i2", "u8"])))
    if draw(st.booleans()):
        arrays["class_names"] = np.array(names)
    if draw(st.booleans()):
        arrays["ids"] = draw(
            st.sampled_from([np.zeros(count, int), np.arange(count)[::-1], np.arange(count) + 2**31 - 50])
        )
    training = count - max(count // 5, classes)  # of each class at least one is held out
    if draw(st.booleans()):
        tests, training = draw(st.sampled_from([1, 3, 10])), count
        arrays |= {"test_images": _array(draw, tests, shape), "test_labels": np.zeros(tests, int)}
    settings["data.name"] = f"{HERE}/mine.npz"
    return settings, {"mine.npz": npz(**arrays)}, of | {"count": training}


def _augment(draw, shape: tuple[int, ...]) -> tuple[dict[str, Any], tuple[int, int]]:
    """Settings, and the size of the network's input."""
    settings = {"data.augment": draw(st.sampled_from(["none", "crop_flip"]))}
    settings["data.crop"] = draw(st.sampled_from(["pad4", "crop28"] if min(shape[:2]) >= 8 else ["pad4"]))
    less = 4 if settings == {"data.augment": "crop_flip", "data.crop": "crop28"} else 0
    return settings, (shape[0] - less, shape[1] - less)


def _poison(draw, shape, size, classes) -> tuple[dict[str, Any], dict[str, bytes | None]]:
    trigger = draw(st.sampled_from(["l", "square", "mask", "blend", "warp", "none"]))
    when = draw(st.sampled_from(["after_augment", "before_augment"]))
    h, w = shape[:2] if when == "before_augment" else size
    shrinks = when == "before_augment" and size != shape[:2]
    settings: dict[str, Any] = {"poison.trigger": trigger, "poison.when": when, "poison.margin": 0}
    files: dict[str, bytes | None] = {}
    fraction = 0 if trigger == "none" else draw(st.sampled_from([0, 1e-9, 0.1, 0.5, 1]))
    target = draw(st.integers(0, classes - 1))
    labels = ["all_to_one", "all_to_all", "clean_label"] + ["source_specific"] * (classes > 1)
    settings |= {
        "poison.fraction": fraction,
        "poison.target": target,
        "poison.labels": draw(st.sampled_from(labels)),
    }
    if settings["poison.labels"] == "source_specific":
        settings["poison.source"] = (target + 1) % classes
    settings["poison.mode"] = draw(st.sampled_from(["stochastic", "deterministic"]))
    if trigger in ("l", "square"):
        margin = draw(st.integers(2 if shrinks else 0, min(h, w) - 1 - (2 if shrinks else 0)))
        settings["poison.margin"] = margin
        settings["poison.size"] = draw(st.integers(1, min(h, w) - margin))
        settings["poison.value"] = draw(st.sampled_from([0, 0.5, 1]))
    elif trigger == "mask":
        mask = np.ones(
            draw(st.sampled_from([(h, w), (h, w, shape[2])])), draw(st.sampled_from(["?", "u1", "f4"]))
        )
        mask[0] = 0
        files["a mask.npy"], settings["poison.mask"] = npy(mask), f"{HERE}/a mask.npy"
    elif trigger == "blend":
        settings["poison.alpha"] = draw(st.sampled_from([1e-6, 0.5, 1]))
        if shape[2] in (1, 3) and draw(st.booleans()):
            side = draw(st.sampled_from([(h, w), (min(h, 3), min(w, 2))]))
            files["picture.png"] = picture(images(1, *side, draw(st.sampled_from([3, 4])))[0] | 1)
            settings["poison.picture"] = f"{HERE}/picture.png"
    elif trigger == "warp":
        ratio = draw(st.sampled_from([0, 0, 2, 0.5])) if fraction <= 0.1 else 0
        settings |= {"poison.warp.cross_ratio": ratio, "poison.warp.k": draw(st.sampled_from([1, 2, 4, 9]))}
        settings["poison.warp.strength"] = draw(st.sampled_from([0, 0.02, 0.5, 2]))
        settings["poison.warp.unit"] = draw(st.sampled_from(["s", "fraction"]))
        settings["poison.warp.grid_rescale"] = draw(st.sampled_from([0.5, 1, 1.5]))
    return settings, files


def _training(draw, count: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "train.epochs": draw(st.integers(1, 2)),
        "train.batch_size": draw(
            st.sampled_from(sorted({count, max(1, count // 2), max(1, count - 1), max(1, count // 3)}))
        ),
        "train.learning_rate": draw(st.sampled_from([0, 1e-4, 0.01])),
        "train.momentum": draw(st.sampled_from([0, 0.9, 1])),
        "train.weight_decay": draw(st.sampled_from([0, 5e-4, 0.1])),
        "train.decay_factor": draw(st.sampled_from([0, 0.1, 1, 2])),
        "train.decay_times": draw(st.sampled_from([0, 1, 2, 9])),
        "seed": draw(st.sampled_from([0, 1, 2**32 - 1])),
        "penalty.reduction": draw(st.sampled_from(["listing", "per_example", "eq25"])),
        "penalty.batch_norm": draw(st.sampled_from(["train", "frozen"])),
    }
    defence = draw(st.sampled_from(["none", "kappa", "epsilon"]))
    if defence == "kappa":
        settings["penalty.kappa"] = draw(st.sampled_from([1e-30, 1e-6, 1, 1000]))
    elif defence == "epsilon":
        settings["penalty.epsilon"] = draw(st.sampled_from([1e-6, 0.1, 5]))
        settings["penalty.steps"] = draw(st.integers(1, 3))
    return settings


def _analysis(draw, dimension: int) -> dict[str, Any]:
    num_iters = draw(st.sampled_from(sorted({1, 2, min(5, dimension), min(dimension, 16)})))
    return {
        "spectrum.num_iters": num_iters,
        "spectrum.k": draw(st.sampled_from(sorted({1, num_iters, min(2, num_iters)}))),
        "spectrum.num_examples": draw(st.sampled_from([1, 7, 1024])),
        "spectrum.batch_size": draw(st.sampled_from([1 if dimension < 20 else 8, 5, 64])),
        "spectrum.data": draw(st.sampled_from(["clean", "poisoned"])),
        "spectrum.per_class": draw(st.sampled_from([False, False, True])),
        "analysis.features": draw(st.sampled_from([0, 0, 0, 1, 1000])),
        "analysis.near_clone": draw(st.sampled_from([0, 0, 1, 3])),
        "analysis.collapse": draw(st.sampled_from([0, 0, 1, 20])),
        "analysis.fisher": draw(st.sampled_from([0, 0, 1, 20])),
    }


@st.composite
def _single(draw) -> Example:
    """One training, all of its settings drawn."""
    settings, files, of = draw(_data())
    augment, size = _augment(draw, of["shape"])
    poison, more = _poison(draw, of["shape"], size, of["classes"])
    settings |= augment | poison | _training(draw, of["count"])
    settings |= _analysis(draw, size[0] * size[1] * of["shape"][2])
    if settings.get("poison.warp.cross_ratio", 0) > 0:  # the noise mode's images are not in the poisoned data
        settings["spectrum.data"] = "clean"
    settings |= {
        "model.width": draw(st.sampled_from([1, 3])),
        "model.dtype": draw(st.sampled_from(["float32", "float32", "bfloat16"])),
        "model.convolutions": draw(st.sampled_from(["auto", "xla"])),
        "name": draw(st.sampled_from(["run", "é.1", "-x-", "猫_", "a..b"])),
    }
    if draw(st.integers(0, 5)) == 0:
        settings["experiment"] = "compare"
        settings |= draw(st.sampled_from(_COMPARISONS))
    workdir = draw(st.sampled_from(["runs", "my runs", "läufe $x", "%s_{0}", "a/b/../c", "'q\"", "-w"]))
    arguments = (*flags(settings), f"--workdir={workdir}")
    return Example("odd but legal runs", arguments, files | more)


_COMPARISONS = (
    {"compare.key": "seed", "compare.arms": "(7, 8)"},
    {"compare.key": "seed", "compare.arms": "(3, 3)"},
    {"compare.key": "train.learning_rate", "compare.arms": "(0, 0.001)"},
    {"compare.key": "model.width,seed", "compare.arms": "((1, 5), (2, 6))"},
    {"compare.key": "penalty.reduction", "compare.arms": "('eq25',)"},
    {"compare.key": "name", "compare.arms": "('x', 'y.z')"},
)
_SWEEPS = (
    "(((('seed'), (1, 2)),),)",
    "((('train.learning_rate', (0, 0.001)),), (('seed', (0,)),))",
    "((),)",
)
_sweep = st.sampled_from(_SWEEPS).map(
    lambda grids: Example(
        "small sweeps",
        (*flags({"experiment": "sweep", "sweep.grids": grids, "analysis.features": 0}), "--workdir=my runs"),
    )
)
_dry = _single().map(
    lambda example: example._replace(kind="dry runs", arguments=(*example.arguments, "--dry_run"))
)

runs = st.integers(0, 24).flatmap(lambda i: {13: _dry, 24: _sweep}.get(i, _single()))

# Of a result: what there need not be a number for.
UNDEFINED = (
    # Rates over no image: of all test images none is attacked.
    "asr",
    "robust_accuracy",
    "no_trigger_target_rate",
    "gap",  # of a single eigenvalue
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
