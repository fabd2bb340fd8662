"""Stores of sweeps whose cells are done in no time, for the tests of whatever reads or looks after them."""

import numpy as np

from poison_jax import config as config_lib
from poison_jax.runs import files, records, store
from poison_jax.sweeps import grid
from poison_jax.sweeps.board import Board

INPUT = (4, 5, 3)


def sweep(*grids, **changes):
    """A config of a sweep; `group__key=value` changes it."""
    config = config_lib.default()
    config.experiment, config.sweep.grids = "sweep", grids
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def begin(workdir, config):
    """Its cells, in a store that knows of them, none of them done."""
    cells = grid.cells(config)
    workdir.mkdir(exist_ok=True)
    records.write_sweep(workdir, grid.described(config, cells))
    return cells


def board_of(workdir, cells, **others):
    """The board of a sweep `toy` of cells `{"run": ..., "overrides": ...}`, whose folders are there."""
    records.write_sweep(workdir, records.Sweep("toy", **{"config": {"seed": 0}, "cells": cells} | others))
    for cell in cells:
        (workdir / cell["run"]).mkdir(exist_ok=True)
    return Board(workdir, "toy")


def finish(workdir, cell, **result):
    """Has a cell done: a network's with the arrays of `INPUT` shape, a regression's with two numbers."""
    config = cell.config
    run = store.open_run(workdir, config.name, config.to_dict(), config_lib.identity(config))
    result = {"config": config.to_dict(), "wall_seconds": 60.0, "device": "none"} | result
    if config.experiment == "mnist_linear":
        run.save_arrays("measures", asr=np.array([[0.5, np.nan]]), methods=np.array(["exact", "ridge 1"]))
        run.finish(result)
        return run
    stages = {}
    for name, arrays in network_arrays(config.spectrum.num_examples).items():
        run.save_stage(name, cell.view if name == "spectrum" else "one", arrays, {}, 1.0)
        stages[name] = run.stage_file(name, cell.view if name == "spectrum" else "one")
    run.finish(result | {"stages": stages}, cell.view)
    return run


def network_arrays(seed):
    """Of the stages of a network; the eigenvectors are those of a seed."""
    rng, of_seed = np.random.default_rng(0), np.random.default_rng(seed)
    table = {name: np.arange(3.0) for name in (*records.COLUMNS, "class_names", "target")}
    table |= {"class_names": np.array(["a", "bb", "ü"]), "target": np.array(2)}
    return {
        "spectrum": {"vectors": of_seed.standard_normal((2, 60)), "shape": np.array(INPUT)},
        "attack": {"mask": rng.uniform(-1, 1, INPUT)},
        "features": table | {"distance_ratio": np.array([np.nan, 1 / 3, 12345.6])},
    }


def write_lines(found, file):
    """Records as JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(records.line(record) + "\n" for record in found))


def renamed(file, **changes):
    """Has a file's lines be as an older version wrote them: other names, no views, keys that are gone."""
    lines = []
    for i, text in enumerate(file.read_text().splitlines()):
        content = files.loads(text.encode(), "") | {"run": f"old-{i}"} | changes
        del content["view"]
        content["result"]["config"]["train"]["together"] = 4
        lines.append(files.dumps(content) + "\n")
    file.write_text("".join(lines))
