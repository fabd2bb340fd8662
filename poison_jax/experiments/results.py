"""From a trained network to `result.json`: makes the stages that a config asks for and that are not kept."""

import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from poison_jax import arrays as arrays_lib
from poison_jax import console, metrics, models
from poison_jax.errors import UserError
from poison_jax.experiments import stages, views
from poison_jax.experiments.setup import Setup, trained_checkpoint
from poison_jax.runs import files, provenance, store
from poison_jax.runs.distributed import on_first
from poison_jax.train import TrainState


def measure(
    setup: Setup,
    run: store.Run,
    state: TrainState,
    epochs: list[stages.Findings],
    seconds: float,
    identities: dict[str, str],
    directions: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Makes the stages of a trained network that are not kept yet, and writes the result of all of them.

    Args:
        setup, run, state: of the trained network; the run is claimed.
        epochs: what was measured after each epoch.
        seconds: that training took.
        identities: of the stages asked for, see `views`.
        directions: other triggers that eigenvectors are compared with, by name, `[h, w]` or `[h, w, C]`.

    Raises:
        UserError: a stage without which there is no result cannot be made.
    """
    trained = stages.Trained(setup, state, epochs, directions or {})
    found, stage_files = {}, {}
    for name, identity in identities.items():
        kept = on_first(functools.partial(run.findings, name, identity))
        if kept is None:
            began = time.monotonic()
            try:
                arrays, findings = stages.STAGES[name](trained)
            except UserError as error:
                if name in stages.NEEDED:
                    raise
                console.warn(f"{name} left out: {error}")
                arrays, findings = {}, {f"{name}_left_out": str(error)}
            kept = {"findings": files.plain(findings), "seconds": time.monotonic() - began}
            on_first(functools.partial(run.save_stage, name, identity, arrays, **kept))
        found |= kept["findings"]
        seconds += kept["seconds"]
        stage_files[name] = on_first(functools.partial(run.stage_file, name, identity))
    learned = metrics.beats_chance(found["clean_accuracy"], setup.test_set.labels)
    result = found | {
        "stages": stage_files,
        "status": "ok" if learned else "failed training: clean accuracy is near chance",
        "parameters": models.parameter_count(state.variables),
        "wall_seconds": seconds,
        "seed": setup.config.seed,
        "convolutions": setup.convolutions,
        "config": setup.config.to_dict(),
        **provenance.here(),
    }
    on_first(lambda: run.finish(result, store.digest(identities)))


def look_again(run: store.Run, config: ml_collections.ConfigDict, *, triggers: Sequence[str] = ()) -> None:
    """The stages that a config asks for, of a run that is trained; `result.json` is theirs from then on.

    Args:
        run: of experiment=train, in whichever folder it lies by now.
        config: the run's, but for keys that do not determine the network.
        triggers: picture or `.npy` mask files, whose directions eigenvectors are compared with as well.

    Raises:
        UserError: there is no whole checkpoint of a trained network, or its data are not those.
    """
    if len({Path(file).name for file in triggers}) < len(triggers):
        raise UserError(f"two of {', '.join(triggers)} have one name: rename one of the files")
    setup, identities = Setup(config), views.identities(config)
    directions = {Path(file).name: setup.direction_of(file) for file in triggers}
    if directions:  # the spectrum is the one stage that compares with them
        others = arrays_lib.digest([np.asarray(direction) for direction in directions.values()])
        of = {"of": identities["spectrum"], "directions": [*directions, others]}
        identities["spectrum"] = store.digest(of)
    run.pin_inputs(setup.inputs_digest(), setup.logits_of_own())
    if (
        run.finished(store.digest(identities)) is not None
    ):  # claims the run itself, where something is damaged
        return
    with run.claim():
        state, note = trained_checkpoint(run, setup.first_state())
        measure(setup, run, state, note["metrics"], note["seconds"], identities, directions)
