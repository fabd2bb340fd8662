"""The outcome of a run or a sweep in a sentence or two, and its state in fewer words."""

from collections import Counter

from poison_jax import wording
from poison_jax.runs.files import Json
from poison_jax.sweeps.outcomes import STATES, Group, Outcome, attempt

_RANGES = "excess", "clean_accuracy", "overlap"  # the measures that a sweep's sentence is about


def of_result(found: Json) -> str:
    """What came out, in one sentence; "" of an experiment that is not known here."""
    sentences = {"train": wording.headline, "krr_theory": _statements, "mnist_linear": _regressions}
    return attempt(sentences.get(found["config"]["experiment"], lambda r: ""), found, "")


def _statements(r: Json) -> str:
    names = ("exact", "approximate", "misprint", "fails")
    verdicts = ", ".join(f"{r.get(name, 0)} {name}" for name in names)
    return f"{r['statements']} statements checked: {verdicts}"


def _regressions(r: Json) -> str:
    """The means over the seeds, of each method."""
    means = {name: {key: pair[0] for key, pair in pairs.items()} for name, pairs in r["methods"].items()}
    gains = (f"{name} {wording.MEASURES['excess'].text(mean)}" for name, mean in means.items())
    return f"{wording.MEASURES['excess'].label} at θ = {r['theta']:g}: {', '.join(gains)}"


def of_sweep(group: Group) -> str:
    """How a sweep came out, in a few sentences: of trained networks the ranges of what they measure."""
    finished = [outcome for outcome in group.outcomes if outcome.result]
    said = [f"{len(finished)} of {len(group.outcomes)} cells finished."]
    if len(finished) == 1 and (only := of_result(finished[0].result)):
        return f"{said[0]} {only}."
    sound = [outcome.result for outcome in finished if not outcome.reason]
    known = wording.measures(sound)
    ranges = {known[name].label.strip(): span(known[name], sound) for name in _RANGES if name in known}
    if stated := [f"{label} {values}" for label, values in ranges.items() if values != wording.DASH]:
        said.append(f"{'; '.join(stated)}.")
    if "found" in known:
        count = sum(bool(result.get("trigger_found")) for result in sound)
        said.append(f"Trigger found in the top eigenvectors of {count} of {len(sound)}.")
    if concerns := Counter(outcome.reason.partition(":")[0] for outcome in finished if outcome.reason):
        counted = ", ".join(f"{count} {concern}" for concern, count in concerns.items())
        said.append(f"Left out, since they say nothing about the attack: {counted}.")
    return " ".join(said)


def span(measure: wording.Measure, results: list[Json]) -> str:
    """A measure's smallest and largest value; a dash where there is none, or one is damaged."""

    def said(results):
        known = sorted((value, i) for i, r in enumerate(results) if (value := measure.value(r)) is not None)
        return " to ".join(dict.fromkeys(measure.text(results[i]) for _, i in (known[0], known[-1])))

    return attempt(said, results, wording.DASH)


def remark(outcome: Outcome) -> str:
    """A run's state in the fewest words, and what its trigger added."""
    state = outcome.reason.partition(":")[0] if outcome.result and outcome.reason else outcome.state
    excess = wording.MEASURES["excess"]
    gain = attempt(excess.text, outcome.result or {}, wording.DASH)
    return state if gain == wording.DASH else f"{state}, {excess.heading} {gain}"


def counts(group: Group) -> str:
    """How many cells of a sweep are in which state."""
    if group.reason:
        return "cannot be read"
    others = (f"{n} {state}" for state in STATES[1:] if (n := group.count(state)))
    return ", ".join([f"{group.count('done')} of {len(group.outcomes)} done", *others])
