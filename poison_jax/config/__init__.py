"""The config: its default, its checks that need no data, what it identifies, and the runs it asks for.

A file in `configs/` edits `default()`. Keys are declared in `config.table`; their names are fixed: commands
written today keep working.
"""

import difflib
import textwrap
from collections.abc import Iterable
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from poison_jax.config.keys import RUNS
from poison_jax.config.table import FIRST_DEFAULTS, GONE, GROUPS, KEYS
from poison_jax.errors import UserError

_LONGEST_NAME = 200  # bytes: what is appended to it must fit in a file's name


def default() -> ml_collections.ConfigDict:
    """The paper's CIFAR-10 setting (Section 5.1), locked: a key that is not declared is refused."""
    config = ml_collections.ConfigDict()
    for name, key in KEYS.items():
        *groups, last = name.split(".")
        group = config
        for part in groups:
            if part not in group:
                group[part] = ml_collections.ConfigDict()
            group = group[part]
        if key.all_is_none:
            group[last] = placeholder(object)  # an integer, None or 'all': on the command line, too
        else:
            group[last] = placeholder(str) if key.default is None else key.default
    return config.lock()


def describe() -> str:
    """Every key with its default, meaning, unit, choices and bounds, as text of at most 100 columns."""
    lines = []
    for group in GROUPS:
        lines.append(f"{group.name or 'config'}: {group.meaning}")
        for name in group.keys:
            full = f"{group.name}.{name}".lstrip(".")
            key = KEYS[full]
            said = "all" if key.all_is_none else "''" if key.default == "" else key.default
            text = "; ".join(filter(None, (key.meaning, key.allowed())))
            lines.append(f"  --config.{full}={said}")
            lines += textwrap.wrap(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
        lines.append("")
    return "\n".join(lines)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises `UserError` for the first value that cannot be meant; needs neither data nor device."""
    found = flatten(config)
    for name, key in KEYS.items():
        if name not in found:
            raise UserError(f"the config has no key {name!r}: begin with poison_jax.config.default()")
        key.check(name, found[name])
    for name in ("name", "sweep.name"):
        value = get(config, name)
        if not value or any(not (c.isalnum() or c in "-_.") for c in value) or value[0] == ".":
            raise UserError(f"{name} = {value!r}: use letters, digits, '-', '_' and '.'")
        if len(value.encode()) > _LONGEST_NAME:
            raise UserError(
                f"{name} = {value!r}: a file's name cannot be that long, use {_LONGEST_NAME} bytes"
            )
    _check_together(config)
    if config.experiment == "compare":
        for arm in arms(config):
            check(arm)


def _check_together(config: ml_collections.ConfigDict) -> None:
    """Raises `UserError` for values that are legal alone and not together."""
    k, num_iters = config.spectrum.k, config.spectrum.num_iters
    if k > num_iters:
        raise UserError(f"spectrum.k = {k} exceeds spectrum.num_iters = {num_iters}: raise the latter")
    if config.penalty.kappa > 0 and config.penalty.epsilon > 0:
        raise UserError(
            "penalty.kappa and penalty.epsilon are both above 0: choose the penalty or the adversary"
        )
    if (config.model.name == "foreign") != bool(config.model.architecture):
        raise UserError("model.architecture says which of model.name = foreign: set both or neither")
    if config.model.name == "foreign" and config.train.remat:
        raise UserError("train.remat is about blocks, which foreign architectures have not: leave it out")
    c, ratio = config.poison, config.poison.warp.cross_ratio
    if c.trigger == "none" and c.fraction > 0:
        raise UserError("poison.trigger = none with poison.fraction > 0: set the fraction to 0")
    if (c.trigger == "mask") != bool(c.mask):
        raise UserError("poison.mask names the file of poison.trigger = mask: set both or neither")
    if c.picture and c.trigger != "blend":
        raise UserError("poison.picture is for poison.trigger = blend: set both or leave it out")
    if c.alpha == 0:
        raise UserError(f"poison.alpha = {c.alpha}: the picture would not be seen, choose a number in (0, 1]")
    if c.labels == "source_specific" and c.source == c.target:
        raise UserError(f"poison.source and poison.target are both {c.target}: choose two classes")
    if c.hide > 0 and c.labels == "all_to_all":
        raise UserError("poison.hide is about one target, poison.labels = all_to_all has many: set it to 0")
    if ratio > 0:
        named = f"poison.warp.cross_ratio = {ratio}"
        if c.trigger != "warp":
            raise UserError(f"{named} is for poison.trigger = warp: set it to 0")
        if c.fraction * (1 + ratio) > 1:
            raise UserError(
                f"poison.fraction = {c.fraction} and {named}: more than all images, lower one of them"
            )
        if config.spectrum.data == "poisoned":
            raise UserError(
                f"spectrum.data = poisoned lacks the images of the noise mode ({named}): use clean"
            )


def identity(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What a run is: the keys that determine its trained parameters and differ from the first defaults.

    Experiments that train no network have the keys that determine their numbers. How data are found, how a
    gradient is computed and what is looked at afterwards are left out, and so is every key at the default
    that it had when it was added: a key added later changes no identity.

    Args:
        config: of one run (`arms` makes them of a comparison).

    Returns:
        Dotted keys and values, of types and spellings that do not depend on how they were written (1 or 1.0).

    Raises:
        ValueError: the config is several runs.

    >>> config = default()
    >>> config.penalty.kappa, config.spectrum.k = 100, 3
    >>> identity(config)
    {'penalty.kappa': 100.0}
    """
    if config.experiment not in RUNS:
        raise ValueError(f"experiment={config.experiment} is several runs")
    return _changed(config, [name for name, key in KEYS.items() if config.experiment in key.determines])


def arms(config: ml_collections.ConfigDict) -> list[ml_collections.ConfigDict]:
    """The single runs of a config: one for each of `compare.arms`, or just itself.

    What they hold does not depend on how they were asked for, so that a run is done once.
    """
    if config.experiment != "compare":
        return [single(config, "train").lock()]
    key, values = config.compare.key, config.compare.arms
    check_axis(key, "compare.key")
    if not values:
        raise UserError("compare.arms is empty: name at least one value")
    made = [single(config, "train") for _ in values]
    for arm, value in zip(made, values, strict=True):
        assign(arm, key, value, f"compare.arms of compare.key = {key!r}")
    return [arm.lock() for arm in made]


def single(config: ml_collections.ConfigDict, experiment: str) -> ml_collections.ConfigDict:
    """A copy that is one run of an experiment, with no word of the comparison or sweep that asks for it."""
    copy, fresh = config.copy_and_resolve_references(), default()
    copy.experiment, copy.compare, copy.sweep = experiment, fresh.compare, fresh.sweep
    _name_all(copy)
    return copy


def check_axis(key: str, where: str) -> None:
    """Raises `UserError` where a key, or one of several `'a,b'`, is none that runs can differ in."""
    known = [
        name
        for name, declared in KEYS.items()
        if name != "experiment" and (name == "name" or declared.stages or "train" in declared.determines)
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
    _name_all(config)
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
        if key in GONE:
            continue
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
    """Takes what was named on the command line out of what runs differ in: it is meant for all of them.

    Keys that change together with a named one go on without it. A count given as `all` becomes None, its
    value in a run's config.
    """
    _name_all(config)
    named = set(keys) & set(axes(config)) - {"experiment"}
    if not named:
        return
    if config.experiment == "compare":
        if left := _without(named, (config.compare.key, config.compare.arms)):
            config.compare.key, config.compare.arms = left
        else:
            config.experiment = "train"
    else:
        config.sweep.grids = tuple(
            tuple(filter(None, (_without(named, axis) for axis in grid))) for grid in config.sweep.grids
        )


def _without(named: set[str], axis: tuple[str, Iterable]) -> tuple[str, tuple] | None:
    """An axis without the keys that are named; None if there is no other.

    >>> _without({"seed"}, ("seed,poison.target", ((100, 1), (101, 4), (102, 1))))
    ('poison.target', (1, 4))
    """
    key, values = axis
    names = split_axis(str(key))
    left = [i for i, name in enumerate(names) if name not in named]
    if len(left) == len(names) or not left:
        return axis if left else None
    try:
        rows = [dict(zip(names, value, strict=True)) for value in values]
    except (TypeError, ValueError):
        raise UserError(f"{key}: {values!r} are no values: write one of each key, in brackets") from None
    kept = [names[i] for i in left]
    found = dict.fromkeys(tuple(row[name] for name in kept) for row in rows)
    return ",".join(kept), tuple(value if len(kept) > 1 else value[0] for value in found)


def _name_all(config: ml_collections.ConfigDict) -> None:
    """Replaces `all`, as people write it, by None, as a run's config has it."""
    for name, key in KEYS.items():
        if key.all_is_none and get(config, name) == "all":
            config.update_from_flattened_dict({name: None})


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


def stage_identity(config: ml_collections.ConfigDict, stage: str) -> dict[str, Any]:
    """As `identity`, of what is looked at in a trained network: the keys that this stage reads."""
    return _changed(config, [name for name, key in KEYS.items() if stage in key.stages])


def _changed(config: ml_collections.ConfigDict, names: list[str]) -> dict[str, Any]:
    """Of these keys those that differ from the default that they were added with."""
    found = {name: KEYS[name].plain(get(config, name)) for name in names}
    return {
        name: value for name, value in found.items() if value != FIRST_DEFAULTS.get(name, KEYS[name].default)
    }
