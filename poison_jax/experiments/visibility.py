"""Theorems A and F on trained networks: poisoned ones beside clean twins, Hessians of samples of images."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from poison_jax import config as config_lib
from poison_jax import fisher
from poison_jax.errors import UserError
from poison_jax.experiments.setup import Setup, trained_checkpoint
from poison_jax.losses import cross_entropy, log_odds, logits_of
from poison_jax.runs import store

SAMPLES = (8, 32, 128, 512)
DRAWS = 40
MOST = 8 * 2**30  # bytes of a network's Hessians
TWINS_DIFFER_IN = ("poison.fraction", "penalty.kappa", "seed")


class Network(NamedTuple):
    """A trained network and where it stands in a grid of twins."""

    setup: Setup
    variables: Any
    fraction: float  # theta
    kappa: float  # in the convention of eq. 25
    seed: int


class PenaltyPath(NamedTuple):
    """A poison's efficacy against kappa, for one fraction and seed."""

    fraction: float
    seed: int
    kappas: np.ndarray  # of eq. 25, rising from 0
    efficacy: np.ndarray  # mean log-odds of the target at triggered test images, poisoned less clean twin
    visibility: np.ndarray  # mean |grad of that difference|^2 over the training images, poisons at their rate
    bound: float  # on the kappa that halves the efficacy, Theorem A
    half: float  # that kappa; infinite beyond the largest, NaN without an efficacy to halve
    fall: float  # of E per training image, from kappa = 0 to the next; NaN where there is none
    predicted: float  # the same by dE / dkappa = -V, the trapezoidal rule over the two


class Sampling(NamedTuple):
    """The top eigenvector of the mean input Hessian over N images, against that over all."""

    images: tuple[int, ...]
    overlap: np.ndarray  # squared, mean over draws
    gaussian: np.ndarray  # by Theorem F from the spectrum alone
    needed: float  # N*
    constant: float  # `fisher.sampling_constant`


def load(runs: Sequence[store.Run]) -> list[Network]:
    """Networks of one recipe, trained to the end; the penalty's kappa in the convention of eq. 25.

    Raises:
        UserError: runs that differ in more than `TWINS_DIFFER_IN`, or in nothing; a run without a whole
            checkpoint of a trained network.
    """
    configs = [config_lib.from_json(run.config(), str(run.path)) for run in runs]
    _check_twins(runs, configs)
    networks = []
    for run, config in zip(runs, configs, strict=True):
        setup = Setup(config)
        state, _ = trained_checkpoint(run, setup.first_state())
        networks.append(
            Network(setup, state.variables, config.poison.fraction, kappa_of_eq_25(config), config.seed)
        )
    return networks


def _check_twins(runs, configs):
    """Refuses runs of another recipe than the first, whose twins they are not, and two that are the same."""
    first, found = config_lib.identity(configs[0]), {}
    for run, config in zip(runs, configs, strict=True):
        for key in sorted((first.keys() | config_lib.identity(config).keys()) - set(TWINS_DIFFER_IN)):
            here, there = config_lib.get(config, key), config_lib.get(configs[0], key)
            if here != there:
                raise UserError(
                    f"{run.path} has {key} = {here}, {runs[0].path} has {there}: name runs that differ in "
                    f"{', '.join(TWINS_DIFFER_IN)} only, as those of a --workdir of their own"
                )
        setting = tuple(config_lib.get(config, key) for key in TWINS_DIFFER_IN)
        if setting in found:
            raise UserError(f"{found[setting].path} and {run.path} are one network: name one of them")
        found[setting] = run


def kappa_of_eq_25(config) -> float:
    """kappa / 2 of eq. 25 is what a run's reduction multiplies the mean of |grad_x loss_i|^2 with."""
    factors = {"eq25": 1.0, "per_example": 2.0, "listing": 2.0 / config.train.batch_size}
    return config.penalty.kappa * factors[config.penalty.reduction]


def penalty_paths(networks: Sequence[Network]) -> list[PenaltyPath]:
    """Theorem A for every fraction and seed with a network at kappa = 0; those without a twin are left out.

    Raises:
        UserError: no poisoned network has its clean twin among them.
    """
    by_setting = {(n.fraction, n.seed, n.kappa): n for n in networks}
    paths = []
    for fraction, seed in sorted({key[:2] for key in by_setting if key[0] and (*key[:2], 0.0) in by_setting}):
        kappas = sorted(
            kappa
            for theta, s, kappa in by_setting
            if (theta, s) == (fraction, seed) and (0.0, seed, kappa) in by_setting
        )
        if not kappas or kappas[0] != 0:
            continue
        found = [
            difference(by_setting[fraction, seed, kappa], by_setting[0.0, seed, kappa]) for kappa in kappas
        ]
        efficacy, visible = np.array(found).T
        target = by_setting[fraction, seed, 0.0].setup.config.poison.target
        share = fraction * np.mean(by_setting[fraction, seed, 0.0].setup.train_set.labels != target)
        # E = delta' Delta f(X), per training image. delta is one for all kappa: Delta f at the poisons at
        # kappa = 0, where the network has learned them.
        energy = share * efficacy[0] * efficacy
        fall = predicted = np.nan
        if len(kappas) > 1:
            fall, predicted = energy[0] - energy[1], np.trapezoid(visible[:2], kappas[:2])
        bound, halved = energy[0] / visible[0], half(kappas, efficacy)
        paths.append(
            PenaltyPath(
                fraction,
                seed,
                np.array(kappas),
                efficacy,
                visible,
                bound,
                halved,
                float(fall),
                float(predicted),
            )
        )
    if not paths:
        raise UserError("no poisoned run has its clean twin (same seed and kappa, fraction 0) among the runs")
    return paths


def half(kappas: Sequence[float], efficacy: np.ndarray) -> float:
    """Where the efficacy falls to half of its start: infinite if it never does, NaN if it starts at <= 0.

    Between kappas 1 / efficacy is interpolated, and the efficacy itself where it falls to 0 or below.

    >>> half([0.0, 1.0, 2.0], np.array([8.0, 6.0, 3.0])), half([0.0, 1.0], np.array([8.0, 0.0]))
    (1.5, 0.5)
    """
    if not efficacy[0] > 0:
        return np.nan
    below = np.flatnonzero(efficacy <= efficacy[0] / 2)
    if not below.size:
        return np.inf
    i = below[0]
    half, (before, after), between = efficacy[0] / 2, efficacy[[i - 1, i]], [kappas[i - 1], kappas[i]]
    if after <= 0:
        return float(np.interp(-half, [-before, -after], between))
    return float(np.interp(1 / half, [1 / before, 1 / after], between))


@jax.default_matmul_precision("highest")
def difference(poisoned: Network, clean: Network) -> tuple[float, float]:
    """Efficacy and visibility of `PenaltyPath` for one pair of twins."""
    setup, target = poisoned.setup, poisoned.setup.config.poison.target
    (_, test), (images, triggered) = (setup.views(s.images) for s in (setup.test_set, setup.train_set))
    others = test[setup.test_set.labels != target]
    of_poisoned, of_clean = (
        _log_odds(setup.looked_at.apply, target, network.variables, others) for network in (poisoned, clean)
    )
    shift = np.mean(of_poisoned - of_clean)

    def steepness(points):
        slopes = _slopes(setup.looked_at.apply, target, poisoned.variables, clean.variables, points)
        return np.sum(np.square(slopes, dtype=float).reshape(len(points), -1), 1)

    share = np.where(setup.train_set.labels != target, poisoned.fraction, 0.0)
    return float(shift), float(np.mean((1 - share) * steepness(images) + share * steepness(triggered)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _log_odds(apply_fn, target, variables, images):
    return log_odds(logits_of(apply_fn(variables, images)), target)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _slopes(apply_fn, target, poisoned, clean, images):
    def shift(images):
        return jnp.sum(
            _log_odds(apply_fn, target, poisoned, images) - _log_odds(apply_fn, target, clean, images)
        )

    return jax.grad(shift)(images)


@jax.default_matmul_precision("highest")
def sampling(network: Network) -> Sampling:
    """Theorem F for one network: dense Hessians of all training images, means over samples of them.

    Raises:
        UserError: they would take more than `MOST`.
    """
    setup = network.setup
    images, _ = setup.views(setup.train_set.images)
    needed = 8 * len(images) * images[0].size ** 2
    if needed > MOST:
        raise UserError(
            f"the Hessians of {len(images):,} images {images.shape[1:]} take {needed / 2**30:,.0f} GiB: "
            "leave them out by --hessians 0"
        )
    labels = jnp.asarray(setup.train_set.labels)
    hessians = np.asarray(_hessians(setup.looked_at.apply, network.variables, images, labels), float)
    values, vectors = np.linalg.eigh(hessians.mean(0))
    background, rng = np.maximum(values[:-1], 0), np.random.default_rng(0)

    def overlap(count):
        chosen = rng.integers(len(hessians), size=count)
        return (np.linalg.eigh(hessians[chosen].mean(0))[1][:, -1] @ vectors[:, -1]) ** 2

    return Sampling(
        SAMPLES,
        np.array([np.mean([overlap(count) for _ in range(DRAWS)]) for count in SAMPLES]),
        fisher.expected_overlap(values[-1], background, np.array(SAMPLES)),
        fisher.images_needed(values[-1], background),
        fisher.sampling_constant(hessians),
    )


@functools.partial(jax.jit, static_argnums=0)
def _hessians(apply_fn, variables, images, labels):
    loss = cross_entropy(apply_fn)

    def one(pair):
        image, label = pair

        def flat(x):
            return loss(variables, x.reshape(1, *image.shape), label[None])[0]

        return jax.hessian(flat)(image.ravel())

    return jax.lax.map(one, (images, labels), batch_size=32)
