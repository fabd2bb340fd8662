"""The cells of a sweep."""

import itertools
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_stores import sweep

from poison_jax import config as config_lib
from poison_jax.errors import UserError
from poison_jax.sweeps import grid

THETA, KAPPA = ("poison.fraction", (0.01, 0.05, 0.3)), ("penalty.kappa", (0.0, 10.0))


def places(cells):
    return [tuple(cell.overrides.values()) for cell in cells]


def test_all_combinations_are_runs_like_any_other():
    cells = grid.cells(sweep((THETA, KAPPA)))
    assert sorted(places(cells)) == sorted(itertools.product(THETA[1], KAPPA[1]))
    for cell in cells:
        assert cell.config.experiment == "train"
        assert (cell.config.poison.fraction, cell.config.penalty.kappa) == tuple(cell.overrides.values())
    alone = config_lib.default()
    alone.experiment, alone.poison.fraction = "train", 0.3
    (same,) = grid.cells(alone)
    assert same.run in {cell.run for cell in cells}


def test_ends_first_then_the_gaps_and_seed_by_seed():
    cells = grid.cells(sweep((("seed", (0, 1)), ("poison.fraction", (0.1, 0.2, 0.3, 0.4, 0.5)))))
    assert places(cells)[:5] == [(0, 0.1), (0, 0.5), (0, 0.3), (0, 0.2), (0, 0.4)]
    assert [seed for seed, _ in places(cells)] == [0] * 5 + [1] * 5


@given(st.integers(1, 200))
def test_refinement_halves_the_gaps(count):
    levels = grid.refinement(count)
    assert levels[0] == levels[-1] == 0
    for level in range(max(levels) + 1):
        there = [i for i, own in enumerate(levels) if own <= level]
        gaps = [after - before for before, after in itertools.pairwise(there)]
        assert all(gap <= -(-(count - 1) // 2**level) for gap in gaps)


def test_a_cell_of_two_grids_is_one():
    assert len(grid.cells(sweep((THETA, KAPPA), (THETA, ("penalty.kappa", (0.0,)))))) == 6


def test_cells_that_only_look_otherwise_are_views_of_one_run():
    """Each network is trained once, and each cell has a name of its own."""
    cells = grid.cells(sweep((KAPPA, ("spectrum.num_examples", (10, 20, 40)))))
    assert (len(cells), len({cell.run for cell in cells}), len({cell.view for cell in cells})) == (6, 2, 3)
    assert {cell.key for cell in cells} == {f"{cell.run}@{cell.view}" for cell in cells}
    assert len({cell.key for cell in cells}) == 6
    (regression,) = grid.cells(sweep((), sweep__of="mnist_linear"))  # a grid without axes is one cell
    assert regression.config.experiment == "mnist_linear"
    assert regression.key == regression.run


def test_a_sweep_says_which_view_a_cell_is():
    config = sweep((("spectrum.k", (1, 2)),), sweep__name="toy")
    cells = grid.cells(config)
    described = grid.described(config, cells)
    assert [(c["run"], c["view"], c["overrides"]) for c in described.cells] == [
        (cell.run, cell.view, cell.overrides) for cell in cells
    ]
    assert described.config["experiment"] == "train"


def test_keys_that_change_together():
    axis = ("data.augment,data.crop", (("none", "pad4"), ("crop_flip", "crop28")))
    cells = grid.cells(sweep((axis,)))
    assert [(c.config.data.augment, c.config.data.crop) for c in cells] == list(axis[1])
    assert str(cells[1]) == "augment crop_flip, crop crop28"


def test_a_cells_config_is_its_own():
    first, second = grid.cells(sweep((("seed", (0, 1)),)))
    config = first.config.unlock()
    config.seed = config.train.epochs = 7
    assert (first.config.seed, first.config.train.epochs, second.config.seed) == (0, 90, 1)
    assert first.config.is_locked


def test_kinds_are_alike_in_data_and_cost():
    """Theta, seed and the strength of a penalty are traced; whether there is one is not."""
    axes = ("seed", (0, 1)), THETA, ("penalty.kappa", (0.0, 1.0, 10.0)), ("train.epochs", (1, 2))
    kinds = grid.kinds(grid.cells(sweep(axes)))
    assert {(len(kind), kind[0].config.penalty.kappa > 0, kind[0].config.train.epochs) for kind in kinds} == {
        (6, False, 1),
        (6, False, 2),
        (12, True, 1),
        (12, True, 2),
    }
    comparison = config_lib.default()
    comparison.experiment, comparison.compare.arms = "compare", (0.0, 1.0)
    assert len(grid.kinds(grid.cells(comparison))) == 2


def test_what_the_command_line_names_is_no_axis():
    config = sweep((THETA, KAPPA), (THETA,))
    config.penalty.kappa = 5.0
    config_lib.pin(config, ["penalty.kappa", "seed"])
    assert places(grid.cells(config)) == [(0.01,), (0.3,), (0.05,)]
    assert {cell.config.penalty.kappa for cell in grid.cells(config)} == {5.0}


def test_keys_that_change_with_one_that_the_command_line_names_still_do():
    attacked = ("seed, poison.target", ((100, 1), (101, 4), (102, 1)))
    config = sweep((attacked, THETA), (("seed", (1, 2)),))
    config.seed = 7
    config_lib.pin(config, ["seed"])
    found = [(cell.config.seed, cell.config.poison.target) for cell in grid.cells(config)]
    assert sorted(found) == [(7, 0), *[(7, 1)] * 3, *[(7, 4)] * 3]
    comparison = config_lib.default()
    comparison.experiment, comparison.compare.key = "compare", "train.epochs,train.weight_decay"
    comparison.compare.arms, comparison.train.epochs = ((1, 0.1), (2, 0.2)), 9
    config_lib.pin(comparison, ["train.epochs"])
    found = [(arm.train.epochs, arm.train.weight_decay) for arm in config_lib.arms(comparison)]
    assert found == [(9, 0.1), (9, 0.2)]
    broken = sweep((("seed,poison.target", (3, 4)),))
    with pytest.raises(UserError, match="write one of each key"):
        config_lib.pin(broken, ["seed"])


@pytest.mark.parametrize(
    ("grids", "words"),
    [
        ((), "sweep.grids is empty"),
        (((("poison.fracton", (0.1,)),),), "did you mean 'poison.fraction'"),
        (((("data.dir", ("a",)),),), "'data.dir' is not a key"),
        (((("penalty.kappa", ()),),), "penalty.kappa has no values"),
        (((("penalty.kappa", "12"),),), "penalty.kappa has no values"),
        (((("penalty.kappa", 3.0),),), "is no axis"),
        ((("penalty.kappa",),), "is no axis"),
        (((("penalty.kappa", ("much",)),),), "'much' is no value of 'penalty.kappa'"),
        (((("penalty.kappa,penalty.epsilon", (1.0,)),),), "is no value"),
        (((("penalty.kappa", (-1.0,)),),), "penalty.kappa = -1"),
    ],
    ids=str,
)
def test_bad_grids(grids, words):
    with pytest.raises(UserError, match=words):
        grid.cells(sweep(*grids))


SWEEPS = sorted((Path(__file__).parents[2] / "configs" / "sweeps").glob("[ft]*[0-9].py"))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_the_papers_sweeps(file):
    """Both sizes of each are legal, are named after the artefact, and have no cell in common."""
    get = runpy.run_path(str(file))["get_config"]
    paper, small = grid.cells(get()), grid.cells(get("small"))
    assert get().sweep.name == file.stem
    assert get("small").sweep.name == f"{file.stem}-small"
    assert not {cell.key for cell in paper} & {cell.key for cell in small}
    assert len(small) <= len(paper)
    with pytest.raises(UserError, match="tiny"):
        get("tiny")


@pytest.mark.parametrize(
    ("part", "whole"), [("fig08", "fig06 fig07"), ("table2", "fig09"), ("table3", "fig06")]
)
@pytest.mark.parametrize("size", ["", "small"])
def test_figures_share_cells(part, whole, size):
    def keys(name):
        (file,) = [file for file in SWEEPS if file.stem == name]
        return {cell.key for cell in grid.cells(runpy.run_path(str(file))["get_config"](size))}

    assert keys(part) <= set().union(*map(keys, whole.split()))
