"""What a trained network is, in words: the scale that a figure's title names."""

import textwrap

from plots import foreign
from poison_jax.runs.store import Json

_SIZES = {"cifar10": 50_000, "cifar100": 50_000, "mnist": 60_000, "fashion_mnist": 60_000}  # for training


def words(result: Json) -> dict[str, str]:
    """Phrases by what they speak of; empty where there is nothing to say."""
    c = result["config"]
    model, poison, penalty = c["model"], c["poison"], c["penalty"]
    epsilon = penalty.get("epsilon", 0)
    return {
        "data": f"{foreign.literal(c['data']['name'])}, {_images(c['data'])}",
        "network": f"PreResNet-{model['depth']} ({model['block']}, width {model['width']})",
        "attack": f"{poison['mode']} poison, trigger: {poison['trigger']}",
        "theta": f"θ = {poison['fraction']:g}",
        "kappa": f"κ = {penalty['kappa']:g}" + (f" ({penalty['reduction']})" if penalty["kappa"] else ""),
        "adversarial": f"adversarial training, ε = {epsilon:g}" if epsilon else "",
        "augment": _augmentation(c["data"], poison),
        "epochs": f"{c['train']['epochs']} epochs",
        "seed": f"seed {c['seed']}",
        "hessian": f"Hessian of {result['hessian_examples']:,} {c['spectrum']['data']} training images",
    }


def differing(settings: list[dict[str, str]]) -> list[str]:
    """What they do not agree on."""
    return [key for key in settings[0] if len({setting[key] for setting in settings}) > 1]


def common(results: list[Json], width: int) -> str:
    """What they agree on, in lines of at most `width` letters that do not part a phrase."""
    settings = [words(result) for result in results]
    left_out = differing(settings)
    phrases = [value for key, value in settings[0].items() if key not in left_out and value]
    whole = ", ".join(value.replace(" ", "\N{NO-BREAK SPACE}") for value in phrases)
    return textwrap.fill(whole, width).replace("\N{NO-BREAK SPACE}", " ")


def penalty(results: list[Json]) -> str:
    """kappa's name, with its convention."""
    conventions = {result["config"]["penalty"]["reduction"] for result in results}
    return f"gradient penalty κ ({', '.join(sorted(conventions))})"


def _images(data):
    count = data["n_train"]
    if count is None:
        return "all training images"
    return f"{count:,} training images" + " (subset)" * (count < _SIZES.get(data["name"], 0))


def _augmentation(data, poison):
    if data["augment"] == "none":
        return "no augmentation"
    moves = ", the trigger moves with it" if poison.get("when") == "before_augment" else ""
    return f"augmentation {data['augment']} ({data['crop']}{moves})"
