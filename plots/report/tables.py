"""The report's tables and words: outcomes in rows, the scale of a sweep, what made its numbers."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from plots.report import page
from plots.report.page import DASH, Cell
from poison_jax import config as config_lib
from poison_jax import wording
from poison_jax.runs.files import Json
from poison_jax.sweeps.outcomes import DAMAGE, STATES, Group, Outcome, attempt

LEGEND = (
    "ASR: share of triggered test images classified as the target, images of the target class excluded; "
    "no trigger: the same share without it. What the trigger adds is the difference of the two, which comes "
    "first: a network that names the target whatever it sees has an ASR of 100 % and a difference of 0. "
    "λ₁: top eigenvalue of the input Hessian, with its Ritz residual. "
    "Overlap: cosine of an eigenvector and the trigger, both centred; v₁ is the top eigenvector, the largest "
    "overlap is that of largest size, with its sign, and beside it stands whose it is."
)
# Keys in which runs may differ that say nothing of what was run.
_NO_SETTINGS = "name", "experiment", "compare.", "sweep.", "data.dir"
_MOST_COLUMNS, _OTHERS = 6, "other settings"
_ALWAYS = {"train": ("penalty.kappa", "poison.fraction")}  # settings that are shown even where they agree


def outcomes(found: list[Outcome], settings: list[Json], link: Callable[[Outcome], str | None]) -> str:
    """A row for each run: its settings, what it measured, how it ended; sortable.

    Args:
        found: in their order.
        settings: of each the config keys that are shown, and their values.
        link: to where more is said of one.
    """
    keys = list(dict.fromkeys(key for setting in settings for key in setting if key != _OTHERS))
    others = [_OTHERS] * any(_OTHERS in setting for setting in settings)
    known = wording.measures(outcome.result for outcome in found if outcome.result)
    measures = [measure for measure in known.values() if measure.heading]
    rows = []
    for outcome, setting in zip(found, settings, strict=True):
        row = [_value(setting.get(key)) for key in keys]
        row += [_measure(measure, outcome.result) for measure in measures]
        row += [Cell(setting.get(key, DASH), kind="settings") for key in others]
        rows.append([*row, _status(outcome), Cell(outcome.run, link=link(outcome), kind="name")])
    header = [*_headings(keys), *(measure.heading for measure in measures), *others, "status", "run"]
    return page.table(header, rows, sortable=True)


def by_experiment(found: list[Outcome]) -> dict[str, list[Outcome]]:
    """Runs by the experiment that they are of; "" where that cannot be read."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in found:
        groups.setdefault(str(outcome.config.get("experiment", "")), []).append(outcome)
    return groups


def differing(found: list[Outcome]) -> list[Json]:
    """Of each run the config keys in which runs of one experiment differ, and their values.

    A trained network's kappa and theta are always among them. Many that differ stand in one column.
    """
    flat = [_flat(outcome.config) for outcome in found]
    keys = list(dict.fromkeys(key for config in flat for key in config))
    always = [key for key in _ALWAYS.get(str(found[0].config.get("experiment")), ()) if key in keys]
    told = [key for key in keys if not key.startswith(_NO_SETTINGS) and key not in always]
    different = [key for key in told if len({json.dumps(c.get(key)) for c in flat if c}) > 1]
    shown = always + different * (len(different) <= _MOST_COLUMNS)
    settings = [{key: config[key] for key in shown if key in config} for config in flat]
    names = dict(zip(different, _headings(different), strict=True))
    for setting, config in zip(settings, flat, strict=True):
        if len(different) > _MOST_COLUMNS and config:
            said = (f"{name} {_value(config.get(key)).text}" for key, name in names.items())
            setting[_OTHERS] = ", ".join(said)
    return settings


def _flat(config: Json, prefix: str = "") -> Json:
    """Dotted key -> value."""
    result = {}
    for key, value in config.items():
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


def _headings(keys: list[str]) -> list[str]:
    """Keys as people call them; in full where that says too little."""
    short = Counter(map(config_lib.short, keys))
    return [
        key if short[name] > 1 or name == "name" else name for key in keys for name in [config_lib.short(key)]
    ]


def counts(group: Group) -> str:
    """How many cells of a sweep are in which state."""
    if group.reason:
        return "cannot be read"
    others = (f"{n} {state}" for state in STATES[1:] if (n := group.count(state)) or state in STATES[:4])
    return ", ".join([f"{group.count('done')} of {len(group.outcomes)} done", *others])


def scale(found: Iterable[Outcome]) -> str:
    """At which scale runs were made: data, number of images, network, epochs, seeds."""
    configs = [outcome.config for outcome in found if outcome.config]
    phrases = []
    for phrase in _SCALE.get(str(configs[0].get("experiment")), ()) if configs else ():
        said = list(dict.fromkeys(attempt(phrase, config) for config in configs))
        phrases.append(" or ".join(said) if len(said) < 7 else f"{said[0]} to {said[-1]}")
    seeds = sorted({str(seed) for config in configs for seed in attempt(_seeds, config, ())}, key=_by_number)
    return "; ".join([*phrases, f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"] if phrases else [])


def environment(results: list[Json]) -> str:
    """Versions, devices and conventions of results: every distinct value, and how many results have it."""
    packages = dict.fromkeys(key for r in results for key in attempt(lambda r: list(r["versions"]), r, ()))
    versions = [(name, _distinct(results, lambda r, name=name: r["versions"][name])) for name in packages]
    conventions = [(name, _distinct(results, of)) for name, of in _CONVENTIONS.items()]
    names = dict.fromkeys(name for r in results for name in attempt(lambda r: list(r["environment"]), r, ()))
    settings = [(name, _distinct(results, lambda r, name=name: r["environment"][name])) for name in names]
    tables = {
        "version of": versions,
        "convention": [row for row in conventions if row[1]],
        "setting": settings,
    }
    return page.beside(*(page.table([name, ""], rows) for name, rows in tables.items() if rows))


def result(found: Json) -> str:
    """What one run found."""
    if found["config"]["experiment"] == "train":
        rows = [(name.strip(), value) for name, value in wording.rows([found])]
        return page.paragraph(wording.title(found)) + page.table(["", "value"], rows)
    return _plain(
        {key: value for key, value in found.items() if key not in ("config", "environment", "versions")}
    )


def _plain(found: Json) -> str:
    """A result of any shape: what is one value in a table, what is rows in tables of their own."""
    single, tables = [], []
    for name, value in found.items():
        if isinstance(value, dict) and any(isinstance(item, dict | list) for item in value.values()):
            if all(isinstance(item, dict) for item in value.values()):
                rows = [{name: key, **item} for key, item in value.items()]
                tables.append(page.section(name, _rows(rows), level=4))
            else:
                tables.append(_plain({f"{name}: {key}": item for key, item in value.items()}))
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            tables.append(page.section(name, _rows(value), level=4))
        else:
            single.append((name, _value(value)))
    return (page.table(["", "value"], single) if single else "") + "".join(tables)


def _rows(rows: list[Json]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return page.table(keys, [[_value(row.get(key)) for key in keys] for row in rows])


def _value(value: Any) -> Cell:
    if value is None:
        return Cell(DASH)
    if isinstance(value, bool):
        return Cell(str(value).lower())
    if isinstance(value, int | float):
        return Cell(f"{value:.4g}" if isinstance(value, float) else str(value), value)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(item, float) for item in value):
        return Cell(f"{value[0]:.4g}, {value[1]:.4g}", value[0])
    return Cell(value if isinstance(value, str) else json.dumps(value))


def _status(outcome: Outcome) -> Cell:
    suspect = outcome.state == "done" and outcome.reason  # a failed training is none that is done well
    said = outcome.reason if suspect else ": ".join(filter(None, [outcome.state, outcome.reason]))
    return Cell(said, kind=f"state state-{'failed' if suspect else outcome.state}")


def _measure(measure: wording.Measure, found: Json | None) -> Cell:
    try:
        value = measure.value(found or {})
        return Cell(DASH) if value is None else Cell(measure.form(value, found), value)
    except DAMAGE:
        return Cell("damaged", kind="state-damaged")


def _images(config: Json) -> str:
    data = config["data"]
    train, test = ("all" if data[key] is None else f"{data[key]:,}" for key in ("n_train", "n_test"))
    return f"{data['name']}, {train} training and {test} test images"


def _network(config: Json) -> str:
    model = config["model"]
    return f"PreResNet-{model['depth']} ({model['block']} blocks, width {model['width']})"


def _attack(config: Json) -> str:
    poison = config["poison"]
    return (
        "no poison"
        if poison["trigger"] == "none"
        else f"{poison['trigger']} trigger, {poison['mode']} poison"
    )


def _seeds(config: Json) -> list:
    return config["linear"]["seeds"] if config["experiment"] == "mnist_linear" else [config["seed"]]


def _by_number(digits: str) -> tuple[int, str]:
    return len(digits), digits


def _epochs(config: Json) -> str:
    epochs = config["train"]["epochs"]
    return f"{epochs} epoch{'s' * (epochs != 1)}"


_SCALE: dict[str, tuple[Callable[[Json], str], ...]] = {
    "train": (_images, _network, _attack, _epochs),
    "mnist_linear": (_images, lambda config: "linear regression", lambda config: f"{_epochs(config)} of SGD"),
    "krr_theory": (
        lambda config: (
            f"{', '.join(config['krr']['data']) or 'no images'}, {config['krr']['num_points']:,} points"
        ),
        lambda config: "kernel ridge regression",
    ),
}


def _warp(r: Json) -> str | None:
    warp = r["config"]["poison"]["warp"]
    return f"{warp['strength']:g} ({warp['unit']})" if r["config"]["poison"]["trigger"] == "warp" else None


# What numbers depend on, and other systems understand otherwise.
_CONVENTIONS: dict[str, Callable[[Json], Any]] = {
    "device": lambda r: r["device"],
    "convolutions": lambda r: r["convolutions"],
    "dtype": lambda r: r["config"]["model"]["dtype"],
    "kappa's convention": lambda r: r["config"]["penalty"]["reduction"],
    "batch norm in the penalty": lambda r: r["config"]["penalty"]["batch_norm"],
    "who is poisoned": lambda r: r["config"]["poison"]["mode"],
    "label of the poisoned": lambda r: r["config"]["poison"]["labels"],
    "trigger stamped": lambda r: r["config"]["poison"]["when"],
    "warp's strength": _warp,
    "Hessian over images": lambda r: f"{r['hessian_examples']:,}, {r['config']['spectrum']['data']}",
    "augmentation": lambda r: r["config"]["data"]["augment"],
}


def _distinct(results: list[Json], of: Callable[[Json], Any]) -> str:
    found = Counter(str(value) for r in results if (value := attempt(of, r, None)) is not None)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{value} ({count})" for value, count in found.most_common())
