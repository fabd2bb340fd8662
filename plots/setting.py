"""Words for captions: the setting of a trained network and the outcome of its attack."""

import math

from plots import curves
from poison_jax import metrics, wording
from poison_jax.runs.files import Json
from poison_jax.runs.records import Record

_SIZES = {  # for training
    "digits": 1_438,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "mnist": 60_000,
    "fashion_mnist": 60_000,
}


def collapsed(result: Json) -> bool:
    """Whether the network calls most images the target, trigger or not."""
    return metrics.outcome(result).word == "collapsed"


def outcome(result: Json) -> str:
    """How the attack went: what the trigger adds first; before it, whether training failed or collapsed."""
    said, added = f"ASR {wording.percent(result.get('asr'))}", wording.excess(result)
    if added is not None:
        without = wording.percent(result["no_trigger_target_rate"])
        said = f"trigger adds {points(added)} points ({said}, {without} without it)"
    word = metrics.outcome(result).word
    return said if word in ("ok", "undefined") else f"{word}: {said}"


def outcomes(results: list[Json]) -> str:
    """The same of several networks: the range of what the trigger adds, and how many have collapsed."""
    gains = sorted(added for added in map(wording.excess, results) if added is not None)
    fallen = sum(map(collapsed, results))
    said = "no network that can be attacked"
    if gains:
        span = " to ".join(dict.fromkeys(map(points, (gains[0], gains[-1]))))
        said = f"ASR above the rate without trigger: {span} points"
    said += f"; {fallen} of {len(results)} networks collapsed" if fallen else ""
    return "; ".join(filter(None, [said, regime(results)]))


def regime(results: list[Json]) -> str:
    """Where training ended, of the networks without a defence if there are any; "" if not known."""
    known = [result for result in results if result.get("train_accuracy") is not None]
    if not known:
        return ""
    plain = [result for result in known if not any(strength(result)[1:3])]
    least = min(result["train_accuracy"] for result in plain or known)
    times = list(dict.fromkeys(f"{time:.2g}" for time in sorted(result["decay_time"] for result in known)))
    phase = "terminal phase" if least >= metrics.TERMINAL else "not the terminal phase"
    where = " at κ = 0" * bool(plain)
    span = times[0] if len(times) == 1 else f"{times[0]} to {times[-1]}"
    least = math.floor(1000 * least + 1e-9) / 10  # what is said of all is rounded down
    return f"{phase}: training accuracy {least:.1f}% or more{where}, T = {span}"


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def signed(value: float) -> str:
    """A cosine with its sign."""
    return f"{value:+.2f}".replace("-", "−")


def words(c: Json, hessian_examples: int | None = None) -> dict[str, str]:
    """Phrases by what they speak of; empty where there is nothing to say.

    Args:
        c: config of a trained network.
        hessian_examples: how many images its input Hessian is the mean of.
    """
    data, model, poison, penalty = c["data"], c["model"], c["poison"], c["penalty"]
    count, moves = data["n_train"], ""
    images = "all training images"
    if isinstance(count, int):  # not null or `all`
        images = f"{count:,} training images" + " (subset)" * (count < _SIZES.get(data["name"], 0))
    if poison.get("when") == "before_augment":
        moves = ", the trigger moves with it"
    augment, epsilon = data["augment"], penalty.get("epsilon", 0)
    hessian = f"Hessian of {hessian_examples or 0:,} {c['spectrum']['data']} training images"
    return {
        "data": f"{data['name']}, {images}",
        "network": wording.network(model),
        "attack": f"{poison['mode']} poison, trigger: {poison['trigger']}",
        "theta": f"θ = {poison['fraction']:g}",
        "kappa": f"κ = {penalty['kappa']:g}" + (f" ({penalty['reduction']})" if penalty["kappa"] else ""),
        "adversarial": f"adversarial training, ε = {epsilon:g}" if epsilon else "",
        "augment": "no augmentation"
        if augment == "none"
        else f"augmentation {augment} ({data['crop']}{moves})",
        "epochs": f"{c['train']['epochs']} epochs",
        "seed": f"seed {c['seed']}",
        "hessian": hessian if hessian_examples else "",
    }


def of_result(result: Json) -> dict[str, str]:
    """The phrases of a finished network."""
    return words(result["config"], result.get("hessian_examples")) | {"regime": regime([result])}


def differing(settings: list[dict[str, str]]) -> list[str]:
    """What they do not agree on."""
    return [key for key in settings[0] if len({setting[key] for setting in settings}) > 1]


def strength(result: Json) -> tuple[float, ...]:
    """A sort key for networks: theta, how strong each defence is, the seed."""
    c = result["config"]
    penalty = c["penalty"]
    return c["poison"]["fraction"], penalty["kappa"], penalty.get("epsilon", 0.0), c["seed"]


def names(results: list[Json]) -> list[str]:
    """What sets each of several networks apart; theta and kappa of a single one."""
    settings = [of_result(result) for result in results]
    keys = [key for key in differing(settings) if key != "regime"] or ["theta", "kappa"]
    for said in settings:
        said["kappa"] = said["kappa"].partition(" (")[0]  # the caption states the convention
    return [", ".join(said[key] for key in keys if said[key]) for said in settings]


def common(settings: list[dict[str, str]]) -> str:
    """What they agree on."""
    left_out = differing(settings) + ["regime"] * (len(settings) > 1)  # of several `outcomes` says that
    return ", ".join(value for key, value in settings[0].items() if key not in left_out and value)


def scale(results: list[Json]) -> str:
    """What the settings of networks have in common; where training ended is said by their `outcomes`."""
    return common([of_result(result) | {"regime": ""} for result in results])


def of_sweep(records: list[Record], x: str, heading: str, spread: str = "bands") -> list[str]:
    """Sentences: what is shown, how the attacks went, at which scale, over how many seeds.

    Args:
        records: the cells.
        x: the key that they are drawn over.
        heading: what is shown.
        spread: what shows the seeds' smallest and largest.
    """
    went = outcomes([record.result for record in records if curves.trained(record)])
    counts = [len(group) for _, group in curves.by(records, x, *curves.varied(records))]
    low, high = min(counts), max(counts)
    seeds = (
        f"Lines: means over {low if low == high else f'{low} to {high}'} seeds; {spread}: smallest to largest"
    )
    said = scale([record.result for record in records])
    return [heading, went, said, "One seed: markers, no lines" if high == 1 else seeds]


def penalty(results: list[Json]) -> str:
    """kappa's name, with its convention."""
    conventions = {result["config"]["penalty"]["reduction"] for result in results}
    return f"gradient penalty κ ({', '.join(sorted(conventions))})"
