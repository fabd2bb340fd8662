"""A trained network's result in words: what each measure is called, and how its value is written.

One list for the table at the end of a run, a sweep's table, the report and the figures' titles. A result is
the content of `result.json`; what an older one lacks is a dash.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ml_collections

from poison_jax import config as config_lib
from poison_jax import console, metrics

Json = dict[str, Any]
DASH = "–"  # where there is no value


class Measure(NamedTuple):
    """One number of a result."""

    label: str  # in full
    heading: str  # of a column; "" where it is too much for one
    value: Callable[[Json], float | None]  # None where it is not defined
    form: Callable[[float, Json], str]

    def text(self, result: Json) -> str:
        """The value in words, a dash where there is none.

        Raises:
            ValueError: the result is not what it should be (or TypeError, AttributeError, LookupError).
        """
        value = self.value(result)
        return DASH if value is None else self.form(value, result)


def measures(results: Iterable[Json]) -> dict[str, Measure]:
    """The measures that at least one of some results has, in the order in which they are shown."""
    results = list(results)
    return {
        name: measure
        for name, measure in MEASURES.items()
        if any(_has(measure, result) for result in results)
    }


def rows(results: list[Json]) -> list[tuple[str, ...]]:
    """A row for each measure: what it is called, and its value in each result of a trained network."""
    found = [
        (measure.label, *(measure.text(result) for result in results))
        for measure in measures(results).values()
    ]
    concerns = [concern(result) for result in results]
    if any(concerns):
        found.append(("status", *(said.partition(":")[0] or "ok" for said in concerns)))
    return found


def show(results: list[Json], keys: list[str]) -> None:
    """Prints one column a run, and a warning for each that says nothing about the attack.

    Args:
        results: of finished runs.
        keys: the config keys in which they differ, the first row.
    """
    configs = [ml_collections.ConfigDict(result["config"]) for result in results]
    named = [", ".join(f"{config_lib.get(config, key)}" for key in keys) for config in configs]
    console.table(title(results[0]), [", ".join(keys), *named], rows(results))
    for name, result in zip(named, results, strict=True):
        if problem := concern(result):
            about = f"{', '.join(keys)} = {name}: " if len(results) > 1 else ""
            console.warn(f"{about}{problem}; the ASR of such a run says nothing about the attack")


def title(result: Json) -> str:
    """What was trained on what."""
    c = result["config"]
    data, poison = c["data"], c["poison"]
    return (
        f"{data['name']}, {network(c['model'])}, {poison['trigger']} trigger, "
        f"{poison['mode']}, theta = {poison['fraction']:g}, {c['train']['epochs']} epochs"
    )


def network(model: Json) -> str:
    """What the network of a config's group `model` is called."""
    if model["name"] == "preresnet":
        return f"PreResNet-{model['depth']} ({model['block']}, width {model['width']})"
    name = model.get("architecture") or model["name"]
    return "a network of described layers" if {";", "\n"} & set(name) else name


def excess(result: Json) -> float | None:
    """ASR minus the rate at which untriggered images get the target; None where either is not defined.

    What a trigger adds: a network that names the target whatever it sees has an ASR of 1 and an excess of 0.
    """
    above = metrics.outcome(result).asr_above_base
    return None if math.isnan(above) else above


def collapse(result: Json) -> str:
    """What is to be said of a network that names the target without the trigger too, "" of any other."""
    if metrics.outcome(result).word != "collapsed":
        return ""
    untriggered = percent(result["no_trigger_target_rate"])
    return f"collapsed: {untriggered} of the images get the target without the trigger too"


def concern(result: Json) -> str:
    """Why a result says nothing about the attack: its training failed, or it collapsed; else ""."""
    status = str(result.get("status", "ok"))
    return collapse(result) if status == "ok" else status


def headline(result: Json) -> str:
    """The outcome of a trained network in one sentence, the attack's excess first."""
    said = [] if (problem := concern(result)) == "" else [problem]
    if excess(result) is not None:
        asr, untriggered = percent(result["asr"]), percent(result["no_trigger_target_rate"])
        gain = 100 * excess(result)
        said.append(
            f"ASR {gain:.1f} percentage points above the rate without the trigger ({asr} with it, "
            f"{untriggered} without)"
        )
    said.append(f"clean accuracy {percent(result.get('clean_accuracy'))}")
    if "trigger_found" in result:
        found = "found" if result["trigger_found"] else "not found"
        largest = MEASURES["largest_overlap"].text(result)
        said.append(
            f"trigger {found} in the top {len(result['overlap'])} eigenvectors of the input Hessian "
            f"(largest overlap {largest}, v{result['max_overlap_index'] + 1})"
        )
    return "; ".join(said)


def percent(value: float | None) -> str:
    """A share of 1 in per cent.

    >>> percent(0.0625), percent(None)
    ('6.2%', '–')
    """
    return DASH if value is None else f"{value:.1%}"


def _share(key: str, label: str, heading: str) -> Measure:
    return Measure(label, heading, lambda r: r.get(key), lambda value, _: percent(value))


def _number(label: str, heading: str, value: Callable[[Json], float | None], form: str) -> Measure:
    return Measure(label, heading, value, lambda number, _: format(number, form))


def _first(key: str) -> Callable[[Json], float | None]:
    return lambda r: None if r.get(key) is None else r[key][0]


def _best(r: Json) -> int | None:
    """Index of the eigenvector of largest overlap, from 1."""
    return None if r.get("max_overlap_index") is None else r["max_overlap_index"] + 1


MEASURES = {
    "excess": Measure(
        "ASR above the rate without trigger", "ASR − no trigger", excess, lambda value, _: f"{value:+.1%}"
    ),
    "asr": _share("asr", "  ASR (target class excluded)", "ASR"),
    "untriggered": _share("no_trigger_target_rate", "  target rate without trigger", "no trigger"),
    "clean_accuracy": _share("clean_accuracy", "clean accuracy", "clean accuracy"),
    "train_accuracy": Measure(
        "training accuracy",
        "train acc.",
        lambda r: r.get("train_accuracy"),
        lambda value, r: f"{percent(value)}{'' if r.get('regime') == 'terminal' else ', not terminal'}",
    ),
    "poisoned_train_accuracy": _share(
        "poisoned_train_accuracy", "  training images taken for the target with the trigger", ""
    ),
    "decay_time": _number("decay time T = Σ lr × weight decay", "T", lambda r: r.get("decay_time"), ".3g"),
    "poison_visits": _number("poison visits", "", lambda r: r.get("poison_visits"), ",.0f"),
    "nc1": _number("NC1 of training images", "NC1", lambda r: r.get("nc1"), ".3g"),
    "nc1_test": _number("NC1 of test images", "", lambda r: r.get("nc1_test"), ".3g"),
    "asr_incl_target": _share("asr_incl_target", "ASR incl. target class", ""),
    "robust_accuracy": _share("robust_accuracy", "robust accuracy", ""),
    "eigenvalue": _number("top eigenvalue of the input Hessian", "λ₁", _first("eigenvalues"), ".4g"),
    "residual": _number("  its residual", "residual", _first("residuals"), ".1e"),
    "most_negative": _number(
        "most negative eigenvalue", "", lambda r: r.get("most_negative_eigenvalue"), ".4g"
    ),
    "overlap": _number("overlap² of v₁ with the trigger", "overlap² of v₁", _first("overlap_squared"), ".3f"),
    "largest_overlap": _number(
        "largest overlap (signed)",
        "largest overlap",
        lambda r: None if (place := _best(r)) is None else r["overlap"][place - 1],
        "+.3f",
    ),
    "place": Measure("  in eigenvector", "in", _best, lambda value, r: f"v{value} of {len(r['overlap'])}"),
    "found": Measure(
        "trigger in the top eigenvectors",
        "",
        lambda r: r.get("trigger_found"),
        lambda value, _: "found" if value else "not found",
    ),
    "wall_time": Measure(
        "wall time", "time", lambda r: r.get("wall_seconds"), lambda value, _: console.duration(value)
    ),
}


def _has(measure: Measure, result: Json) -> bool:
    try:
        return measure.value(result) is not None
    except Exception:  # damaged: said where it is shown
        return True
