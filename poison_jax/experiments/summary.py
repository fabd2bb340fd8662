"""The table at the end of a run."""

import ml_collections

from poison_jax import config as config_lib
from poison_jax import console, wording
from poison_jax.runs.files import Json


def show(results: list[Json], keys: list[str]) -> None:
    """Prints one column a run, and a warning for each that says nothing about the attack.

    Args:
        results: of finished runs.
        keys: the config keys in which they differ, the first row.
    """
    configs = [ml_collections.ConfigDict(result["config"]) for result in results]
    named = [", ".join(f"{config_lib.get(config, key)}" for key in keys) for config in configs]
    console.table(title(results[0]), [", ".join(keys), *named], wording.rows(results))
    for name, result in zip(named, results, strict=True):
        if problem := wording.concern(result):
            about = f"{', '.join(keys)} = {name}: " if len(results) > 1 else ""
            console.warn(f"{about}{problem}; the ASR of such a run says nothing about the attack")


def title(result: Json) -> str:
    """What was trained on what."""
    c = result["config"]
    data, model, poison = c["data"], c["model"], c["poison"]
    return (
        f"{data['name']}, {model['name']} depth {model['depth']}, {poison['trigger']} trigger, "
        f"{poison['mode']}, theta = {poison['fraction']:g}, {c['train']['epochs']} epochs"
    )
