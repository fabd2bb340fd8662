"""Strategies for run directories and stores that must be refused: damaged, or of another version."""

import json
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.faults.malformed import DEFAULTS, HERE, Example, evenly
from tests.faults.malformed_data import GARBAGE, npz

RUN = "runs/run"
_texts = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [b"", b"{", b"[]", b"null", b"5", b'"x"', b"{}", b"\xff", b"[" * 10**5, b'{"a": NaN}', b'{"a.b": 1}']
    ),
)
_values = st.sampled_from([None, [], {}, "x", -1, 1e300, "\x1b[31m", [[1]], 10**30, True])


@st.composite
def _config(draw) -> bytes:
    """A run's `config.json` that no version has written."""
    config: dict[str, Any] = {}
    for key, value in DEFAULTS.items():
        group, _, name = key.rpartition(".")
        place = config
        for part in filter(None, group.split(".")):
            place = place.setdefault(part, {})
        place[name] = value
    way = draw(st.sampled_from(["type", "group", "key", "dotted"]))
    if way == "type":
        key = draw(
            st.sampled_from(
                ["model.depth", "model.width", "poison.target", "train.epochs", "seed", "data.name"]
            )
        )
        *parts, last = key.split(".")
        place = config
        for part in parts:
            place = place[part]
        place[last] = draw(_values.filter(lambda v: v is not True))
    elif way == "group":
        config[draw(st.sampled_from(["model", "train", "poison", "data"]))] = draw(
            _values.filter(lambda v: v != {})
        )
    else:
        name = {"key": "colour", "dotted": "model.colour"}[way]
        config[name] = draw(_values)
    return json.dumps(config).encode()


_CHECKPOINTS = f"{RUN}/checkpoints"
EVERY_FILE = "*"  # in a path: all files under it


@st.composite
def _for_analyse(draw) -> Example:
    way = draw(st.sampled_from(["config", "json", "gone", "file", "empty", "content", "no run"]))
    files: dict[str, bytes | None] = {}
    gone: tuple[str, ...] = ()
    if way == "config":
        files = {f"{RUN}/config.json": draw(_config())}
    elif way == "json":
        files = {f"{RUN}/config.json": draw(_texts.filter(lambda text: text != b"{}"))}
    elif way == "gone":
        gone = (draw(st.sampled_from(["config.json", "checkpoints"])),)
    elif way == "file":
        gone, files = ("checkpoints",), {_CHECKPOINTS: draw(st.binary(max_size=9))}
    elif way == "empty":
        gone, files = ("checkpoints",), {_CHECKPOINTS: None}
    elif way == "no run":
        gone = ("",)
    else:
        files = {f"{_CHECKPOINTS}/{EVERY_FILE}": draw(st.binary(max_size=30))}
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
_bad_members = st.sampled_from(
    [
        npz(),
        npz(values=np.array("x")),
        npz(vectors=np.zeros((0, 3))),
        npz(shape=np.zeros(2), values=np.zeros(2)),
    ]
)


@st.composite
def _for_plots(draw) -> Example:
    figure = draw(st.sampled_from(sorted(_FIGURES_OF_RUNS)))
    file = draw(st.sampled_from(_FIGURES_OF_RUNS[figure]))
    files: dict[str, bytes | None] = {}
    gone: tuple[str, ...] = ()
    way = draw(st.sampled_from(["gone", "content", "no run", "folder"]))
    if way == "gone":
        gone = (file,)
    elif way == "folder":
        gone, files = (file,), {f"{RUN}/{file}": None}
    elif way == "no run":
        gone = ("",)
    else:
        content = st.one_of(GARBAGE, _bad_members) if file.endswith(".npz") else _texts
        files = {f"{RUN}/{file}": draw(content)}
    return Example("run directories for plots", (figure, f"{HERE}/{RUN}"), files, gone, "plots")


@st.composite
def _results(draw) -> Example:
    """Results that lack what a picture may need, or have it in another form."""
    result = draw(
        st.dictionaries(
            st.sampled_from(
                ["config", "overlap", "residuals", "asr", "clean_accuracy", "trigger_found", "status"]
            ),
            _values,
        )
    )
    figure = draw(st.sampled_from(["run", "eigenvectors", "epochs", "frontier", "features", "near_clone"]))
    files = {f"{RUN}/result.json": json.dumps(result).encode()}
    arguments = (figure, f"{HERE}/{RUN}")
    return Example("results of other forms", arguments, files, (), "plots", may_succeed=True)


_LINE = {"format": 1, "run": "r", "overrides": {}, "result": {}, "arrays": {}}
_lines = st.one_of(
    _texts.filter(lambda text: text.strip()),
    st.tuples(st.sampled_from(sorted(_LINE)), _values).map(
        lambda one: json.dumps(_LINE | {one[0]: one[1]}).encode()
    ),
    st.sampled_from(sorted(_LINE)).map(
        lambda key: json.dumps({k: v for k, v in _LINE.items() if k != key}).encode()
    ),
    st.sampled_from(
        [
            json.dumps(_LINE | {"result": {"config": {"experiment": "train"}}}).encode(),
            json.dumps(
                _LINE | {"arrays": {"a": {"shape": [10**12], "dtype": "float64", "values": []}}}
            ).encode(),
            json.dumps(_LINE | {"arrays": {"a": {"shape": [1], "dtype": "object", "values": [1]}}}).encode(),
        ]
    ),
)
_FIGURES = (*(f"fig{i:02d}" for i in range(5, 14)), "table1", "table2", "table3")


def _of_lines(reader: str, content: bytes | None, *, store: bool) -> Example:
    """A store or folder of results whose one sweep is damaged, for what reads it: a figure or a module."""
    name = reader if reader in _FIGURES else "fig06"
    program, figure = ("plots", (reader,)) if reader in (*_FIGURES, "claims") else (reader, ())
    path = f"lines/sweeps/{name}.json" if store else f"lines/{name}.jsonl"
    out = "page.html" if program == "poison_jax.report" else "out"
    arguments = ("--runs", f"{HERE}/lines", "--out", f"{HERE}/{out}")
    return Example(
        "stores and lines of results",
        (*figure, *arguments),
        {path: content},
        (),
        program,
        may_succeed=program == "poison_jax.report",
    )


_SWEEPS = st.one_of(
    _texts,
    st.dictionaries(
        st.sampled_from(["format", "name", "config", "cells"]), st.one_of(_values, st.just(1))
    ).map(lambda sweep: json.dumps({"format": 1} | sweep).encode()),
    st.sampled_from(
        [
            json.dumps({"format": 1, "name": "fig06", "config": {}, "cells": cells}).encode()
            for cells in (
                [{}],
                [{"run": 5, "overrides": {}}],
                [{"run": "r", "overrides": 5}],
                [5],
                "x",
                [["run"]],
            )
        ]
    ),
)
_readers = st.sampled_from(["poison_jax.records", "poison_jax.report", "claims", *_FIGURES])

_stores = evenly(
    st.tuples(_readers, _lines, st.just(False)), st.tuples(_readers, _SWEEPS, st.just(True))
).map(lambda one: _of_lines(one[0], one[1], store=one[2]))

BAD = {
    "run directories for analyse": _for_analyse(),
    "run directories for plots": _for_plots(),
    "results of other forms": _results(),
    "stores and lines of results": _stores,
}
