"""The table at the end of a run."""

import ml_collections

from poison_jax import config as config_lib
from poison_jax import console
from poison_jax.runs.files import Json


def show(results: list[Json], keys: list[str]) -> None:
    """Prints one column a run.

    Args:
        results: of finished runs.
        keys: the config keys in which they differ, the first row.
    """
    configs = [ml_collections.ConfigDict(result["config"]) for result in results]
    named = (", ".join(f"{config_lib.get(config, key)}" for key in keys) for config in configs)
    console.table(title(results[0]), [", ".join(keys), *named], rows(results))
    for result in results:
        if result["status"] != "ok":
            console.warn(f"{result['status']}; the ASR of such a run says nothing about the attack")


def title(result: Json) -> str:
    """What was trained on what."""
    c = result["config"]
    data, model, poison = c["data"], c["model"], c["poison"]
    return (
        f"{data['name']}, {model['name']} depth {model['depth']}, {poison['trigger']} trigger, "
        f"{poison['mode']}, theta = {poison['fraction']:g}, {c['train']['epochs']} epochs"
    )


def rows(results: list[Json]) -> list[tuple[str, ...]]:
    """The rows of the table: what is shown, and its value in each result of a trained network."""

    def percent(name):
        return [f"{r[name]:.2%}" if r[name] is not None else "-" for r in results]

    def best(name):
        return [f"{r[name][r['max_overlap_index']]:+.3f}" for r in results]

    found = [
        ("clean accuracy", *percent("clean_accuracy")),
        ("ASR (target class excluded)", *percent("asr")),
        ("ASR incl. target class", *percent("asr_incl_target")),
        ("robust accuracy", *percent("robust_accuracy")),
        ("target rate without trigger", *percent("no_trigger_target_rate")),
        ("top eigenvalue of the input Hessian", *(f"{r['eigenvalues'][0]:.4g}" for r in results)),
        ("  its residual", *(f"{r['residuals'][0]:.1e}" for r in results)),
        ("most negative eigenvalue", *(f"{r['most_negative_eigenvalue']:.4g}" for r in results)),
        ("overlap^2 of v1 with the trigger", *(f"{r['overlap_squared'][0]:.3f}" for r in results)),
        ("largest overlap (signed)", *best("overlap")),
        ("  in eigenvector", *(f"{r['max_overlap_index'] + 1} of {len(r['overlap'])}" for r in results)),
        (
            "trigger in the top eigenvectors",
            *("found" if r["trigger_found"] else "not found" for r in results),
        ),
        ("wall time", *(console.duration(r["wall_seconds"]) for r in results)),
    ]
    if any(r["status"] != "ok" for r in results):
        found.append(("status", *(r["status"].split(":")[0] for r in results)))
    return found
