"""The cells of a sweep: all combinations of some config keys' values, each a run like any other."""

import itertools
from typing import Any, NamedTuple

import ml_collections

from poison_jax import config as config_lib
from poison_jax.errors import UserError
from poison_jax.experiments import views
from poison_jax.runs import records, store


class Cell(NamedTuple):
    """One run of a sweep."""

    overrides: dict[str, Any]  # dotted key -> value: its place in the grid
    base: ml_collections.ConfigDict  # its config, but for what it overrides: one for the cells of all grids
    run: str  # name of its directory
    view: str = ""  # what is looked at in it; see `runs.store`

    @property
    def key(self) -> str:
        """The name of the cell: several of a sweep may look at one run."""
        return records.key(self.run, self.view)

    @property
    def config(self) -> ml_collections.ConfigDict:
        """A config of its own, made when asked for: those of 10,000 cells would take a gigabyte."""
        config = self.base.copy_and_resolve_references()
        config.update_from_flattened_dict(self.overrides)
        return config.lock()

    def __str__(self) -> str:
        return ", ".join(f"{config_lib.short(key)} {_text(value)}" for key, value in self.overrides.items())


def cells(config: ml_collections.ConfigDict) -> list[Cell]:
    """The runs of a config in the order in which they are done: a sweep's cells, a comparison's arms, itself.

    Seed by seed; of a seed, the ends of every axis first, then what halves the gaps: a figure over the
    cells so far is readable early. A cell that stands in several grids is one; those that only look at
    their network otherwise, by `spectrum.*` or `analysis.*`, are cells of one run.

    Raises:
        UserError: an axis that is none, an empty grid, a cell that cannot be meant.
    """
    if config.experiment not in ("train", "compare", "sweep"):
        raise UserError(f"experiment={config.experiment} is one run, that trains no network: it has no cells")
    if config.experiment != "sweep":
        named = config_lib.axes(config) or ["penalty.kappa"]
        return [
            Cell({key: config_lib.get(arm, key) for key in named}, arm, *name(arm))
            for arm in config_lib.arms(config)
        ]
    if not config.sweep.grids:
        raise UserError("sweep.grids is empty: name at least one grid")
    found: dict[str, tuple[Any, Cell]] = {}
    base = config_lib.single(config, config.sweep.of).lock()
    for grid in config.sweep.grids:
        axes, cell = [_axis(axis) for axis in grid], base.copy_and_resolve_references()
        for place in itertools.product(*(range(len(values)) for _, values in axes)):
            overrides: dict[str, Any] = {}  # the same keys for all cells of a grid
            for (key, values), i in zip(axes, place, strict=True):
                overrides |= config_lib.assign(cell, key, values[i], "sweep.grids")
            config_lib.check(cell)
            made = Cell(overrides, base, *name(cell))
            found.setdefault(made.key, (_priority(axes, place), made))
    return [cell for _, cell in sorted(found.values(), key=lambda item: item[0])]


def described(config: ml_collections.ConfigDict, cells: list[Cell]) -> records.Sweep:
    """What a store keeps of a sweep.

    Args:
        config: of experiment=sweep.
        cells: its own.
    """
    base = config_lib.single(config, config.sweep.of).to_dict()
    places = [{"run": cell.run, "view": cell.view, "overrides": cell.overrides} for cell in cells]
    return records.Sweep(config.sweep.name, base, places, config.sweep.attempts)


def kinds(cells: list[Cell]) -> list[list[Cell]]:
    """Cells that read the same data and cost the same, in groups.

    They differ in seed, theta, and the strength of the penalty or the adversary, where there is one.
    """
    found: dict[tuple, list[Cell]] = {}
    for cell in cells:
        costs = {
            key: value > 0 if key in ("penalty.kappa", "penalty.epsilon") else value
            for key, value in cell.overrides.items()
            if key not in ("seed", "poison.fraction")
        }
        found.setdefault((id(cell.base), repr(costs)), []).append(cell)
    return list(found.values())


def refinement(count: int) -> list[int]:
    """For each of `count` places in a row, when it is wanted: the ends first, then what halves the gaps.

    >>> refinement(5), refinement(4), refinement(1)
    ([0, 2, 1, 2, 0], [0, 1, 2, 0], [0])
    """
    levels, gaps, level = [0] * count, [(0, count - 1)], 1
    while gaps := [(low, high) for low, high in gaps if high - low > 1]:
        middles = [(low + high) // 2 for low, high in gaps]
        for middle in middles:
            levels[middle] = level
        gaps = [half for (low, high), m in zip(gaps, middles, strict=True) for half in ((low, m), (m, high))]
        level += 1
    return levels


def name(config: ml_collections.ConfigDict) -> tuple[str, str]:
    """The name of a single run's directory, and of what is looked at in it."""
    return store.run_name(config.name, config_lib.identity(config)), views.view(config)


def _axis(axis: Any) -> tuple[str, tuple]:
    try:
        key, values = axis
        values = tuple(values)
    except (TypeError, ValueError):
        raise UserError(f"sweep.grids: {axis!r} is no axis: write ('penalty.kappa', (0.0, 100.0))") from None
    config_lib.check_axis(str(key), "sweep.grids")
    if isinstance(axis[1], str) or not values:
        raise UserError(f"sweep.grids: {key} has no values: write ('{key}', (value, ...))")
    return key, values


def _priority(axes: list[tuple[str, tuple]], place: tuple[int, ...]) -> tuple:
    seed, level = 0, 0
    for (key, values), i in zip(axes, place, strict=True):
        if key == "seed":
            seed = i
        else:
            level = max(level, refinement(len(values))[i])
    return seed, level


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
