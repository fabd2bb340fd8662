"""The experiments on networks: train on poisoned data, measure the attack, look at the trained network.

`train_and_measure` is one run, from its config to its result; read it downwards. `run` does the arms of a
comparison one after the other and prints their table.
"""

import contextlib
import functools
import time

import jax
import ml_collections
import numpy as np

from poison_jax import config as config_lib
from poison_jax import console, kernels, train, wording
from poison_jax.errors import Diverged, Interrupted, RunsFailed
from poison_jax.experiments import results, stages, views, visits
from poison_jax.experiments.setup import Setup
from poison_jax.mesh import replicate
from poison_jax.runs import distributed, files, provenance, store
from poison_jax.runs.checkpoint import Checkpoints
from poison_jax.runs.distributed import entered_by_first, on_first
from poison_jax.runs.signals import StopSignals
from poison_jax.runs.tensorboard import scalar_writer

LOOK_EVERY = 5  # steps between two looks at what was measured, and whether to stop


def run(
    config: ml_collections.ConfigDict, workdir: str = "runs", *, tensorboard: bool = False
) -> list[store.Run]:
    """Runs a config (every arm of a comparison) and prints the summary: see `experiments.run`.

    Of several processes the first writes and returns the runs, the others none.

    Raises:
        UserError: what only the data or the devices can show to be wrong, before any compute.
        RunsFailed: some arms diverged; the others are finished, and shown.
        Interrupted: asked to stop; what was done is kept.
    """
    started = time.monotonic()
    arms, axes = config_lib.arms(config), config_lib.axes(config) or ["penalty.kappa"]
    reason = kernels.slow_because(config.model.convolutions)
    if reason and config.model.name in ("preresnet", "foreign"):
        console.warn(f"training takes some three times as long as it needs to: {reason}")
    setups = [Setup(arm) for arm in arms]  # every arm is checked before the first one trains
    runs = [open_run(setup, workdir) for setup in setups]
    for remark in dict.fromkeys(remark for setup in setups for remark in visits.remarks(setup)):
        console.warn(remark)
    finished, found, failures = [], [], []
    for i, (setup, opened) in enumerate(zip(setups, runs, strict=True)):
        title = f"{i + 1}/{len(arms)} " if len(arms) > 1 else ""
        try:
            train_and_measure(setup, opened, title=title, tensorboard=tensorboard)
            finished.append(opened)
            # Now, for arms that differ in what is looked at are one run, and its last result is another's.
            found.append(on_first(opened.result))
        except Diverged as error:
            if len(arms) == 1:
                raise
            console.warn(str(error))  # the other arms may be sound
            failures.append(str(error))
    if not distributed.is_first():
        finished = []
    if finished:
        console.say("")
        wording.show(found, axes if len(arms) > 1 else ["penalty.kappa"])
        console.say(f"total {console.duration(time.monotonic() - started)} on {provenance.device()}")
    if failures:
        raise RunsFailed(f"{len(failures)} of {len(arms)} runs failed: {'; '.join(failures)}", finished)
    return finished


def open_run(setup: Setup, workdir: str) -> store.Run:
    """The directory of a setup's run, made if it is not there and tied to the data that it reads.

    Raises:
        UserError: it was begun with other data, or the processes have read different data.
    """
    digest = setup.inputs_digest()
    distributed.check_equal("the data, the trigger or the network that they read", digest)
    run = store.Run(on_first(lambda: str(views.open_run(setup.config, workdir).path)))
    on_first(lambda: run.pin_inputs(digest, setup.logits_of_own()))
    return run


def train_and_measure(setup: Setup, run: store.Run, *, title: str = "", tensorboard: bool = False) -> None:
    """One run, from its setup to `result.json`: train, measure after every epoch, look at what came out.

    Goes on from the last checkpoint, and does only what is missing: a network that is trained is not trained
    again when its config asks for other eigenpairs or analyses.

    Args:
        setup: a config of a single run (experiment=train) made concrete.
        run: its directory, see `open_run`.
        title: said before what distinguishes the run.
        tensorboard: write the metrics for TensorBoard too.

    Raises:
        Diverged: a loss or gradient is not finite; the last good checkpoint is kept.
        Interrupted: asked to stop; the state is saved.
    """
    config, title = setup.config, title + setup.title
    if on_first(lambda: run.finished(views.view(config))) is not None:
        console.say(f"{title}: already done in {run.path}")
        _say_what_was_not_measured(setup, on_first(run.metrics))
        return
    console.say(f"{title}: {run.path}")

    epochs, batch_size = config.train.epochs, config.train.batch_size
    steps, total = setup.steps_per_epoch, epochs * setup.steps_per_epoch
    with contextlib.ExitStack() as claimed:
        claimed.enter_context(entered_by_first(run.claim))
        checkpoints = claimed.enter_context(
            contextlib.closing(Checkpoints(run.checkpoints, warn=console.warn))
        )

        # The state: fresh, another run's network, or that of the last whole checkpoint.
        state = setup.first_state()
        seconds, rows, measured = 0.0, [], []  # spent so far; a row an epoch; the running epoch's steps
        if (restored := checkpoints.restore(state)) is not None:
            state, note = restored
            seconds, rows, measured = note["seconds"], note["metrics"], note["steps"]
            if int(state.step) < total:
                console.say(f"  resumed at epoch {int(state.step) / steps:.2f} of {epochs}")
        on_first(lambda: run.keep_metrics(rows))
        start = int(state.step)
        if start == total:
            _say_what_was_not_measured(setup, rows)

        with contextlib.ExitStack() as training:
            began = time.monotonic()

            def save() -> float:
                """Keeps the state, in the background; returns the seconds of training that it notes."""
                on_first(run.check_claim)
                spent = seconds + time.monotonic() - began
                checkpoints.save(
                    int(state.step), state, {"seconds": spent, "metrics": rows, "steps": measured}
                )
                return spent

            step = train.step_of(setup.program)
            if start < total:
                train_data = replicate(setup.train_data(), setup.mesh)
                _say_memory(setup, state, train_data)
                stop = training.enter_context(StopSignals())
                advance = training.enter_context(console.progress("  training", total, start))
                write_scalars = None
                if tensorboard:
                    writer = functools.partial(scalar_writer, run.path, start // steps + 1)
                    write_scalars = training.enter_context(entered_by_first(writer))

            for epoch in range(start // steps, epochs):
                order = train.epoch_order(
                    setup.knobs.key, epoch, count=len(setup.train_set.labels), batch_size=batch_size
                )
                order, pending = replicate(order, setup.mesh), []
                for i in range(len(measured), steps):
                    state, step_metrics = step(state, train_data, order, setup.knobs, program=setup.program)
                    pending.append(step_metrics)
                    advance()
                    last, alone = i + 1 == steps, not distributed.is_multiprocess()
                    if (i + 1) % LOOK_EVERY == 0 or last or (alone and stop.asked):
                        leave = not last and distributed.any_process(stop.asked)
                        # The device goes on with the newest while the others are fetched (of several
                        # processes it has done them by then, to agree whether to stop).
                        newest = [] if last or leave else pending[-LOOK_EVERY:]
                        old, pending = pending[: len(pending) - len(newest)], newest
                        measured += _finite(old, run, epoch, len(measured))
                        if leave:
                            save()
                            raise _stopped(run, checkpoints, state, total)

                # After every epoch: the attack on the test images, what the config asks for, a checkpoint.
                _, report = stages.evaluate_attack(setup, state)
                row = {"epoch": epoch + 1, "step": int(state.step), **_means(measured), **report}
                row |= stages.after_epoch(setup, state)
                rows, measured = [*rows, files.plain(row | {"measured_on": stages.measured_on(setup)})], []
                on_first(functools.partial(run.append_metrics, rows[-1]))
                if write_scalars:
                    write_scalars(row)
                spent = save()
                left = (spent - seconds) / (int(state.step) - start) * (total - int(state.step))
                console.say(
                    f"  epoch {epoch + 1:3d}/{epochs}  loss {row['loss']:.4f}  penalty {row['penalty']:.4f}  "
                    f"clean accuracy {report['clean_accuracy']:6.2%}  ASR {report['asr']:6.2%}  "
                    f"{console.duration(spent)}, {console.duration(left)} left"
                )
                if distributed.any_process(stop.asked):
                    raise _stopped(run, checkpoints, state, total)
            checkpoints.wait()
            if start < total:
                seconds = spent

        results.measure(setup, run, state, rows, seconds, views.identities(config))


def _finite(pending: list[train.Metrics], run: store.Run, epoch: int, done: int) -> list[dict[str, float]]:
    """What steps measured, on the host; `done` is the number of the epoch's steps before them.

    Raises:
        Diverged: something in it is not finite.
    """
    measured = [{name: float(v) for name, v in m._asdict().items()} for m in jax.device_get(pending)]
    for step, m in enumerate(measured, done + 1):
        if broken := [name for name, value in m.items() if not np.isfinite(value)]:
            raise Diverged(
                f"{run.path}: {' and '.join(broken[:2])} not finite in epoch {epoch + 1}, step {step}: "
                "training stopped, the last good checkpoint is kept; lower train.learning_rate or "
                "penalty.kappa"
            )
    return measured


def _means(measured: list[dict[str, float]]) -> dict[str, float]:
    """Of an epoch's steps; of `poisoned` the sum."""
    means = {name: float(np.mean([m[name] for m in measured])) for name in train.Metrics._fields}
    return means | {"poisoned": round(sum(m["poisoned"] for m in measured))}


def _say_what_was_not_measured(setup: Setup, rows: list[stages.Findings]) -> None:
    """Warns where a network that is trained was not measured after every epoch as its config now asks."""
    config, measured = setup.config, set().union(*rows)
    names = {"collapse": "nc1", "fisher": "fisher_energy", "near_clone": "near_clone_median_spike"}
    for name, key in names.items():
        if config.analysis[name] and key not in measured:
            console.warn(
                f"analysis.{name} was not asked for when this network was trained: nothing of it after each "
                "epoch; choose another --workdir to have it"
            )
    asked = stages.measured_on(setup)
    of_rows = [row["measured_on"] for row in rows if "measured_on" in row]  # older versions do not say
    if not (asked["analysis.near_clone"] and any(of["analysis.near_clone"] for of in of_rows)):
        del asked["spectrum.num_examples"]  # that near clones alone depend on
    for key, count in asked.items():
        counts = sorted({of[key] for of in of_rows} - {0})  # of 0 that is said above
        if count and set(counts) - {count}:
            console.warn(
                f"{key} = {count}: what was measured after each epoch is of {' or '.join(map(str, counts))}; "
                "choose another --workdir to have it alike"
            )


def _stopped(run: store.Run, checkpoints: Checkpoints, state: train.TrainState, total: int) -> Interrupted:
    checkpoints.wait()
    step = int(state.step)
    return Interrupted(f"stopped at step {step} of {total}, saved in {run.path}; the same command goes on")


def _say_memory(setup: Setup, state: train.TrainState, train_data: train.TrainData) -> None:
    """Says what memory a step takes, before the first one runs; warns where that is too much."""
    batch_size = setup.config.train.batch_size
    needed = train.step_memory(state, train_data, setup.knobs, setup.program, batch_size=batch_size)
    if needed is None:
        return
    console.say(f"  memory for a training step: {needed / 2**20:,.0f} MiB on each device")
    limit = provenance.device_memory()
    if limit is not None and needed > 0.9 * limit:
        console.warn(
            f"that is more than 90 % of the {limit / 2**20:,.0f} MiB there are: "
            "lower train.batch_size, or use more devices"
        )
