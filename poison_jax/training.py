"""The experiments that train networks: a config -> trained, attacked, its input Hessian looked at, stored."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from poison_jax import (
    analysis,
    console,
    convolution,
    distributed,
    evaluate,
    files,
    metrics,
    models,
    provenance,
    shared,
    store,
    summary,
    together,
    train,
)
from poison_jax import config as config_lib
from poison_jax.errors import Interrupted, UserError
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
    arms, axes = config_lib.arms(config), config_lib.axes(config)
    return run_all(arms, axes if len(arms) > 1 else ["penalty.kappa"], workdir, tensorboard=tensorboard)


def run_all(
    arms: list[ml_collections.ConfigDict], axes: list[str], workdir: str, *, tensorboard: bool = False
) -> list[store.Run]:
    """Runs single runs' configs, `train.together` of those that are alike at once; otherwise as `run`.

    Args:
        arms: of experiment=train.
        axes: the keys that the summary names.
        workdir, tensorboard: as for `run`.
    """
    started = time.monotonic()
    if reason := convolution.why_not():
        console.warn(f"convolutions take two to three times as long as they need to: {reason}")
    # Every arm's input and directory are checked before the first one trains.
    setups = distributed.together(lambda: [Setup(arm) for arm in arms])
    runs = [shared.open_run(workdir, arm.name, arm.to_dict(), config_lib.not_identity(arm)) for arm in arms]
    for setup, run in zip(setups, runs, strict=True):
        run.pin_inputs(setup.inputs_digest())
    for remark in dict.fromkeys(remark for setup in setups for remark in setup.remarks()):
        if distributed.is_first():
            console.warn(remark)
    labels = [f"{i + 1}/{len(arms)} " if len(arms) > 1 else "" for i in range(len(arms))]
    for places in together.groups(setups, 1):
        group = [_Member(setups[i], runs[i], labels[i]) for i in places]
        _run_group(group, tensorboard)
    if not distributed.is_first():
        return []
    finished = [store.Run(run.path) for run in runs]
    console.say("")
    summary.show(finished, axes)
    console.say(f"total {console.duration(time.monotonic() - started)} on {provenance.device()}")
    return finished


class _Member:
    """One run of a group that is trained at once, or alone in it."""

    def __init__(self, setup: Setup, run: shared.Run, label: str):
        self.setup, self.run, self._label = setup, run, label
        penalty, theta = setup.config.penalty, setup.config.poison.fraction
        strength = f"epsilon {penalty.epsilon:g}" if penalty.epsilon else f"kappa {penalty.kappa:g}"
        self.title = f"{label}{strength}, theta {theta:g}, seed {setup.config.seed}"
        self.failure: str | None = None

    @contextlib.contextmanager
    def restored(self, tensorboard: bool) -> Iterator[None]:
        """Sets `state`, fresh or from the last checkpoint; while this lasts the run can be written to."""
        setup, run = self.setup, self.run
        self.checkpoints = shared.Checkpoints(run.checkpoints, warn=console.warn)
        self.state = train.init_state(jax.random.fold_in(setup.key, 0), setup.input_shape, setup.program)
        self._seconds, self._together, self._rows = 0.0, 1, []
        epochs = setup.config.train.epochs
        restored = self.checkpoints.restore(self.state)
        if restored is not None:
            self.state, note = restored
            self._seconds, self._together = note["seconds"], note.get("together", 1)
            self._rows = note.get("metrics", [])
            console.say(f"  resumed at epoch {int(self.state.step) / setup.steps_per_epoch:.2f} of {epochs}")
        self.first_step = int(self.state.step)
        first_epoch = self.first_step // setup.steps_per_epoch + 1
        run.keep_metrics(self._rows)
        try:
            with shared.held_by_first(
                lambda: scalar_writer(run.path, first_epoch) if tensorboard else contextlib.nullcontext()
            ) as self._write_scalars:
                yield
        finally:
            self.checkpoints.close()

    def begin(self, members: int) -> None:
        """The clock runs from here on, of as many as train together."""
        self._began, self._mark = time.monotonic(), self._label if members > 1 else ""
        if self.first_step < self.setup.config.train.epochs * self.setup.steps_per_epoch:
            self._together = members

    def elapsed(self) -> float:
        """Seconds of training so far, those before it was resumed included."""
        return self._seconds + time.monotonic() - self._began

    def after_epoch(self, epoch: int, state: train.TrainState, means: dict[str, float]) -> None:
        """Measures the network, puts that on record, saves the state; or notes that it has failed."""
        setup, step = self.setup, int(state.step)
        if self.failure or self._fails(means, epoch, setup.steps_per_epoch):
            return
        _, report = _evaluate(setup, state)
        row = {"epoch": epoch, "step": step, **means, **report, **analysis.after_epoch(setup, state)}
        self.run.append_metrics(row)
        self._rows.append(row)
        if self._write_scalars:
            self._write_scalars(row)
        self.save(state)
        epochs = setup.config.train.epochs
        done, left = step - self.first_step, epochs * setup.steps_per_epoch - step
        seconds_left = (time.monotonic() - self._began) / done * left
        console.say(
            f"  {self._mark}epoch {epoch:3d}/{epochs}  "
            f"loss {means['loss']:.4f}  penalty {means['penalty']:.4f}  "
            f"clean accuracy {report['clean_accuracy']:6.2%}  ASR {report['asr']:6.2%}  "
            f"{console.duration(self.elapsed())}, {console.duration(seconds_left)} left"
        )

    def stopped(self, state: train.TrainState) -> None:
        """Saves the state that training was stopped in, if it is worth it."""
        epoch, step = divmod(int(state.step), self.setup.steps_per_epoch)
        if step:  # at an epoch's end it is saved already
            (totals,) = train.totals_of(state)
            if not (self.failure or self._fails(totals._asdict(), epoch + 1, step)):
                self.save(state)

    def _fails(self, totals: dict[str, float], epoch: int, step: int) -> bool:
        """Whether they are not finite; says so at once: the others of its group may take hours yet."""
        self.failure = train.why_not_finite(totals, epoch, step)
        if self.failure:
            console.warn(f"{self.title}: {self.failure}")
        return bool(self.failure)

    def save(self, state: train.TrainState) -> None:
        """Writes a checkpoint, with a copy of the epochs that are on record."""
        note = {"seconds": self.elapsed(), "together": self._together, "metrics": files.plain(self._rows)}
        self.checkpoints.save(int(state.step), state, note)

    def finish(self, seconds: float) -> None:
        """All that is done with the trained network, which took so long."""
        setup, run, state = self.setup, self.run, self.state
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
            "together": self._together,
            "poison_visits": float(setup.poison_visits().sum()),
            "seed": setup.config.seed,
            "convolutions": "kernels" if convolution.available() and setup.mesh.size == 1 else "xla",
            "config": setup.config.to_dict(),
            **provenance.here(),
        }
        run.finish(result)


def _run_group(members: list[_Member], tensorboard: bool) -> None:
    """Runs what of a group is not done: trained at once, each then looked at and finished on its own.

    Raises:
        UserError: training failed in a member; the others are finished first.
    """
    todo = []
    for member in members:
        if member.run.finished() is None:
            todo.append(member)
        else:
            console.say(f"{member.title}: already done in {member.run.path}")
    with contextlib.ExitStack() as open_runs:
        for member in todo:
            open_runs.enter_context(member.run.claim())
        for member in todo:
            console.say(f"{member.title}: {member.run.path}")
            open_runs.enter_context(member.restored(tensorboard))
        # A kill between two members' checkpoints leaves them an epoch apart: then they go on apart.
        for step in sorted({member.first_step for member in todo}):
            level = [member for member in todo if member.first_step == step]
            seconds = _train(level)
            for member, spent in zip(level, seconds, strict=True):
                if not member.failure:
                    member.finish(spent)
    failed = [member for member in todo if member.failure]
    if failed:
        raise UserError(f"{_paths(failed)}: {failed[0].failure}")


def _paths(members: list[_Member]) -> str:
    return " and ".join(str(member.run.path) for member in members)


def _train(members: list[_Member]) -> list[float]:
    """Trains members that stand at the same step to the end, or to failure; returns the seconds of each."""
    setup = members[0].setup
    c, mesh = setup.config.train, setup.mesh
    first_step, total = members[0].first_step, c.epochs * setup.steps_per_epoch
    for member in members:
        member.begin(len(members))
    state, train_data, knobs = together.stack(
        [member.state for member in members],
        [member.setup.train_data() for member in members],
        [member.setup.knobs for member in members],
        mesh,
    )
    if first_step < total:
        _say_memory(setup, state, train_data, knobs)

    def on_epoch(epoch: int, state: train.TrainState, means: Any) -> None:
        means = means if len(members) > 1 else [means]
        for member, own, its_means in zip(members, together.unstack(state, mesh), means, strict=True):
            member.after_epoch(epoch, own, its_means)

    bar = console.progress("  training", total, first_step)
    with StopSignals() as stop, bar as advance:
        try:
            state = train.fit(
                state,
                train_data,
                knobs,
                setup.program,
                epochs=c.epochs,
                batch_size=c.batch_size,
                on_epoch=on_epoch,
                on_step=advance,
                should_stop=lambda: distributed.agreed(stop.asked),
            )
        except train.Stopped as stopped:
            states = together.unstack(stopped.state, mesh)
            for member, own in zip(members, states, strict=True):
                member.stopped(own)
            step, sound = int(states[0].step), [member for member in members if not member.failure]
            raise Interrupted(
                f"stopped at step {step} of {total}, saved in {_paths(sound)}; the same command goes on"
            ) from None
        except train.Diverged as diverged:
            for member in members:
                member.failure = member.failure or str(diverged)
        else:
            for member, own in zip(members, together.unstack(state, mesh), strict=True):
                member.state = own
    return [member.elapsed() for member in members]


def _say_memory(
    setup: Setup, state: train.TrainState, train_data: train.TrainData, knobs: train.Knobs
) -> None:
    """Says what memory a step takes, before the first one runs; warns where that is too much."""
    batch_size = setup.config.train.batch_size
    needed = train.step_memory(state, train_data, knobs, setup.program, batch_size=batch_size)
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
