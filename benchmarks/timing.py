"""Paired, interleaved measurements: every round runs every side once, so that noise hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_matmul = jax.jit(jnp.matmul, static_argnames="precision")


class Rounds(NamedTuple):
    """How often: at least `least`, then up to `most` while they fit in `seconds`."""

    least: int
    most: int
    seconds: float


def interleaved(sides: Mapping[Any, Callable[[], object]], rounds: Rounds) -> dict[Any, list[float]]:
    """Seconds of every side in every round, in the order given; every side is warm already."""
    seconds: dict[Any, list[float]] = {name: [] for name in sides}
    began = time.perf_counter()
    for done in range(rounds.most):
        elapsed = time.perf_counter() - began
        if done >= rounds.least and elapsed * (done + 1) / done > rounds.seconds:
            break
        for name, run in sides.items():
            time.sleep(0.02)  # lets the threads of the side before go to sleep
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def matrix_product(size: int, precision: str | None = None) -> Callable[[], jax.Array]:
    """A warm side: the float32 product of two square matrices, `2 size^3` FLOPs, on all cores."""
    a = jnp.ones((size, size))

    def run() -> jax.Array:
        return _matmul(a, a, precision=precision).block_until_ready()

    run()
    return run


def paired_ratio(others: list[float], ours: list[float]) -> float:
    """Median over the rounds of `other / ours`: above 1, ours needs less."""
    return statistics.median(other / mine for other, mine in zip(others, ours, strict=True))


def spread(values: list[float]) -> str:
    """Smallest and largest against the median, for people.

    >>> spread([1.0, 1.1, 0.9])
    '-10 % +10 %'
    >>> spread([1.0])
    'once'
    """
    if len(values) == 1:
        return "once"
    middle = statistics.median(values)
    return f"{min(values) / middle - 1:+.0%} {max(values) / middle - 1:+.0%}".replace("%", " %")
