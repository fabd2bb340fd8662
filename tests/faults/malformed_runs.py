"""Run directories and stores that must be refused: damaged, or of another version."""

import json
from typing import Any

import numpy as np

from tests.faults.malformed import DEFAULTS, HERE, Example, Luck, binary, one_of
from tests.faults.malformed_data import garbage, npz

RUN = "runs/run"
EVERY_FILE = "*"  # in a path: all files under it
_CHECKPOINTS = f"{RUN}/checkpoints"
_TEXTS = [b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff", b"[" * 10**5, b'{"a": NaN}', b'{"a.b": 1}']
_VALUES = [None, [], {}, "x", -1, 1e300, "\x1b[31m", [[1]], 10**30, True]


def _text(luck: Luck) -> bytes:
    """What is no JSON object of ours."""
    return one_of(luck, binary, [*_TEXTS, b"{}"])


def _config(luck: Luck) -> bytes:
    """A run's `config.json` that no version has written."""
    config: dict[str, Any] = {}
    typed = ["model.depth", "model.width", "poison.target", "train.epochs", "seed", "data.name"]
    wrong = luck.choice([*typed, ""])
    for key, value in DEFAULTS.items():
        *groups, name = key.split(".")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = luck.choice(_VALUES[:-1]) if key == wrong else value
    if not wrong:
        name = luck.choice(["model", "train", "poison", "data", "colour", "model.colour"])
        config[name] = luck.choice([value for value in _VALUES if value != {}])
    return json.dumps(config).encode()


def _for_analyse(luck: Luck) -> Example:
    files, gone = luck.choice(
        [
            ({f"{RUN}/config.json": _config(luck)}, ()),
            ({f"{RUN}/config.json": one_of(luck, binary, _TEXTS)}, ()),
            ({}, ("config.json",)),
            ({}, ("checkpoints",)),
            ({_CHECKPOINTS: binary(luck, 9)}, ("checkpoints",)),
            ({_CHECKPOINTS: None}, ("checkpoints",)),
            ({f"{_CHECKPOINTS}/{EVERY_FILE}": binary(luck)}, ()),
            ({}, ("",)),
        ]
    )
    return Example("run directories for analyse", (f"{HERE}/{RUN}",), files, gone, "poison_jax.analyse")


_FIGURES_OF_RUNS = {
    "run": ("result.json", "attack.npz", "spectrum.npz"),
    "eigenvectors": ("result.json", "attack.npz", "spectrum.npz"),
    "features": ("config.json", "features.npz"),
    "near_clone": ("result.json", "near_clone.npz"),
    "epochs": ("result.json",),
    "frontier": ("result.json",),
    "krr_theory": ("config.json",),
    "mnist_linear": ("config.json",),
}
_MEMBERS = [{}, {"values": "x"}, {"vectors": np.zeros((0, 3))}, {"shape": np.zeros(2), "values": np.zeros(2)}]


def _for_plots(luck: Luck) -> Example:
    figure = luck.choice(sorted(_FIGURES_OF_RUNS))
    file = luck.choice(_FIGURES_OF_RUNS[figure])
    content = _text(luck)
    if file.endswith(".npz"):
        content = one_of(luck, garbage, [npz(**members) for members in _MEMBERS])
    path = f"{RUN}/{file}"
    files, gone = luck.choice([({}, (file,)), ({path: None}, (file,)), ({}, ("",)), ({path: content}, ())])
    return Example("run directories for plots", (figure, f"{HERE}/{RUN}"), files, gone, "plots")


def _results(luck: Luck) -> Example:
    """Results that lack what a picture may need, or have it in another form."""
    keys = ["config", "overlap", "residuals", "asr", "clean_accuracy", "trigger_found", "status"]
    result = {key: luck.choice(_VALUES) for key in luck.sample(keys, luck.randrange(len(keys)))}
    figure = luck.choice(["run", "eigenvectors", "epochs", "frontier", "features", "near_clone"])
    files = {f"{RUN}/result.json": json.dumps(result).encode()}
    arguments = (figure, f"{HERE}/{RUN}")
    return Example("results of other forms", arguments, files, (), "plots", may_succeed=True)


_LINE = {"format": 1, "run": "r", "overrides": {}, "result": {}, "arrays": {}}
_LINES = [
    {"result": {"config": {"experiment": "train"}}},
    {"arrays": {"a": {"shape": [10**12], "dtype": "float64", "values": []}}},
    {"arrays": {"a": {"shape": [1], "dtype": "object", "values": [1]}}},
    *({key: value} for key in _LINE for value in _VALUES),
]
_SWEEP = {"format": 1, "name": "fig06", "config": {}, "cells": []}
_CELLS = [[{}], [{"run": 5, "overrides": {}}], [{"run": "r", "overrides": 5}], [5], "x", [["run"]]]
_FIGURES = (*(f"fig{i:02d}" for i in range(5, 14)), "table1", "table2", "table3")


def _line(luck: Luck) -> bytes:
    """A line of results."""
    key = luck.choice(sorted(_LINE))
    without = {name: value for name, value in _LINE.items() if name != key}
    line = json.dumps(luck.choice([without, _LINE | luck.choice(_LINES)])).encode()
    return luck.choice([line, line, _text(luck).strip() or b"x"])


def _sweep(luck: Luck) -> bytes:
    """A file of a sweep."""
    some = {key: luck.choice([*_VALUES, 1]) for key in luck.sample(sorted(_SWEEP), luck.randrange(5))}
    contents = [{"format": 1} | some, _SWEEP | {"cells": luck.choice(_CELLS)}]
    return luck.choice([_text(luck), json.dumps(luck.choice(contents)).encode()])


def _stores(luck: Luck) -> Example:
    """A store or folder of results whose one sweep is damaged, for what reads it: a figure or a module."""
    reader = luck.choice(["poison_jax.records", "poison_jax.report", "claims", *_FIGURES])
    name = reader if reader in _FIGURES else "fig06"
    program, figure = ("plots", (reader,)) if reader in (*_FIGURES, "claims") else (reader, ())
    if luck.random() < 0.5:
        files = {f"lines/{name}.jsonl": _line(luck)}
    else:
        files = {f"lines/sweeps/{name}.json": _sweep(luck)}
    report = program == "poison_jax.report"
    arguments = ("--runs", f"{HERE}/lines", "--out", f"{HERE}/{'page.html' if report else 'out'}")
    kind = "stores and lines of results"
    return Example(kind, (*figure, *arguments), files, (), program, may_succeed=report)


BAD = {
    "run directories for analyse": _for_analyse,
    "run directories for plots": _for_plots,
    "results of other forms": _results,
    "stores and lines of results": _stores,
}
