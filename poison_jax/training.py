"""The experiments that train networks: a config -> trained, attacked, its input Hessian looked at, stored."""

import contextlib
import time

import jax
import ml_collections
import numpy as np

from poison_jax import (
    analysis,
    console,
    convolution,
    distributed,
    evaluate,
    metrics,
    models,
    provenance,
    shared,
    store,
    summary,
    train,
)
from poison_jax import config as config_lib
from poison_jax.errors import Interrupted
from poison_jax.setup import Setup
from poison_jax.signals import StopSignals
from poison_jax.tensorboard import scalar_writer


def run(
    config: ml_collections.ConfigDict, workdir: str = "runs", *, tensorboard: bool = False
) -> list[store.Run]:
    """Runs a config (every arm of a comparison), prints the summary, returns the finished runs.

    What is already done is not done again; what was interrupted goes on where it stopped. Of several
    processes the first writes and returns the runs, the others none.

    Args:
        config: see `poison_jax.config`.
        workdir: where run directories are kept.
        tensorboard: write the metrics for TensorBoard too.

    Raises:
        UserError: what only the data or the devices can show to be wrong, before any compute.
        Interrupted: asked to stop; what was done is kept.
    """
    started = time.monotonic()
    arms = config_lib.arms(config)
    if reason := convolution.why_not():
        console.warn(f"convolutions take two to three times as long as they need to: {reason}")
    # Every arm's input and directory are checked before the first one trains.
    setups = distributed.together(lambda: [Setup(arm) for arm in arms])
    runs = [shared.open_run(workdir, arm.name, arm.to_dict(), config_lib.not_identity(arm)) for arm in arms]
    for setup, run in zip(setups, runs, strict=True):
        run.pin_inputs(setup.inputs_digest())
    for i, (setup, run) in enumerate(zip(setups, runs, strict=True)):
        _run_arm(setup, run, f"{i + 1}/{len(arms)} " if len(arms) > 1 else "", tensorboard)
    if not distributed.is_first():
        return []
    finished = [store.Run(run.path) for run in runs]
    console.say("")
    summary.show(finished, config_lib.compared_keys(config) if len(arms) > 1 else ["penalty.kappa"])
    console.say(f"total {console.duration(time.monotonic() - started)} on {provenance.device()}")
    return finished


def _run_arm(setup: Setup, run: shared.Run, label: str, tensorboard: bool) -> None:
    config = setup.config
    penalty, theta = config.penalty, config.poison.fraction
    strength = f"epsilon {penalty.epsilon:g}" if penalty.epsilon else f"kappa {penalty.kappa:g}"
    title = f"{label}{strength}, theta {theta:g}, seed {config.seed}"
    if run.result() is not None:
        console.say(f"{title}: already done in {run.path}")
        return
    with run.claim():
        console.say(f"{title}: {run.path}")
        state, seconds = _train(setup, run, tensorboard)
        began = time.monotonic()
        logits, result = _evaluate(setup, state)
        analysis.examples(setup, run, *logits)
        result |= analysis.input_hessian(setup, run, state)
        result |= analysis.pre_fc_features(setup, run, state)
        result |= analysis.theory(setup, run, state)
        trained = metrics.beats_chance(result["clean_accuracy"], setup.test_set.labels)
        result |= {
            "status": "ok" if trained else "failed training: clean accuracy is near chance",
            "parameters": models.parameter_count(state.variables),
            "wall_seconds": seconds + time.monotonic() - began,
            "seed": config.seed,
            "convolutions": "kernels" if convolution.available() and setup.mesh.size == 1 else "xla",
            "config": config.to_dict(),
            **provenance.here(),
        }
        run.finish(result)


def _train(setup: Setup, run: shared.Run, tensorboard: bool) -> tuple[train.TrainState, float]:
    """Trains or goes on training; returns the final state and the seconds it took in all."""
    c = setup.config
    checkpoints = shared.Checkpoints(run.checkpoints, warn=console.warn)
    state = train.init_state(jax.random.fold_in(setup.key, 0), setup.input_shape, setup.program)
    seconds = 0.0
    restored = checkpoints.restore(state)
    if restored is not None:
        state, note = restored
        seconds = note["seconds"]
        console.say(f"  resumed at epoch {int(state.step) / setup.steps_per_epoch:.2f} of {c.train.epochs}")
    first_step = int(state.step)
    first_epoch = first_step // setup.steps_per_epoch + 1
    run.keep_metrics(first_epoch - 1)
    scalars = shared.held_by_first(
        lambda: scalar_writer(run.path, first_epoch) if tensorboard else contextlib.nullcontext()
    )

    began = time.monotonic()
    train_data = train.replicate(setup.train_data(), setup.mesh)
    if first_step < c.train.epochs * setup.steps_per_epoch:
        _say_memory(setup, state, train_data)

    def elapsed() -> float:
        return seconds + time.monotonic() - began

    def on_epoch(epoch: int, state: train.TrainState, means: dict[str, float]) -> None:
        _, report = _evaluate(setup, state)
        row = {
            "epoch": epoch,
            "step": int(state.step),
            **means,
            **report,
            **analysis.after_epoch(setup, state),
        }
        run.append_metrics(row)
        if write_scalars:
            write_scalars(row)
        checkpoints.save(int(state.step), state, {"seconds": elapsed()})
        done = int(state.step) - first_step
        left = (time.monotonic() - began) / done * (c.train.epochs * setup.steps_per_epoch - int(state.step))
        console.say(
            f"  epoch {epoch:3d}/{c.train.epochs}  loss {means['loss']:.4f}  penalty {means['penalty']:.4f}  "
            f"clean accuracy {report['clean_accuracy']:6.2%}  ASR {report['asr']:6.2%}  "
            f"{console.duration(elapsed())}, {console.duration(left)} left"
        )

    total = c.train.epochs * setup.steps_per_epoch
    bar = console.progress("  training", total, first_step)
    with StopSignals() as stop, scalars as write_scalars, bar as advance:
        try:
            state = train.fit(
                state,
                train_data,
                setup.knobs,
                setup.program,
                epochs=c.train.epochs,
                batch_size=c.train.batch_size,
                on_epoch=on_epoch,
                on_step=advance,
                should_stop=lambda: distributed.agreed(stop.asked),
            )
        except train.Stopped as stopped:
            step = int(stopped.state.step)
            if step % setup.steps_per_epoch:  # at an epoch's end it is saved already
                checkpoints.save(step, stopped.state, {"seconds": elapsed()})
            raise Interrupted(
                f"stopped at step {step} of {total}, saved in {run.path}; the same command goes on"
            ) from None
        finally:
            checkpoints.close()
    return state, elapsed()


def _say_memory(setup: Setup, state: train.TrainState, train_data: train.TrainData) -> None:
    """Says what memory a step takes, before the first one runs; warns where that is too much."""
    needed = train.step_memory(
        state, train_data, setup.knobs, setup.program, batch_size=setup.config.train.batch_size
    )
    if needed is None:
        return
    console.say(f"  memory for a training step: {needed / 2**20:,.0f} MiB on each device")
    limit = provenance.device_memory()
    if limit is not None and needed > 0.9 * limit:
        console.warn(
            f"that is more than 90 % of the {limit / 2**20:,.0f} MiB there are: "
            "lower train.batch_size, use more devices, or set model.remat"
        )


def _evaluate(
    setup: Setup, state: train.TrainState
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, float]]:
    """Logits of the test images without and with the trigger, and what they amount to."""
    c, test_set = setup.config, setup.test_set
    logits = evaluate.predict(
        state.variables, test_set.images, setup.knobs, setup.program, batch_size=c.train.batch_size
    )
    return logits, metrics.attack_report(*logits, test_set.labels, setup.aim)
