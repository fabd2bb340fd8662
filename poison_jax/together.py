"""Several runs trained at once: which ones can be, and their states as one with a first axis more."""

from collections.abc import Sequence
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from poison_jax import train
from poison_jax.setup import Setup


def groups(setups: Sequence[Setup], most: int) -> list[list[int]]:
    """Places of setups that one program can train, at most `most` in a group.

    They may differ in whatever is traced (seed, kappa, epsilon, theta, target, the trigger's pixels), not in
    the data, the network, the optimisation, or whether there is a penalty at all.

    >>> groups([], 3)
    []
    """
    result: list[list[int]] = []
    for place, setup in enumerate(setups):
        fits = (group for group in result if len(group) < most and _alike(setups[group[0]], setup))
        if (group := next(fits, None)) is None:
            result.append([place])
        else:
            group.append(place)
    return result


def _alike(a: Setup, b: Setup) -> bool:
    return (
        a.program == b.program
        and a.config.data == b.config.data
        and a.config.train == b.config.train
        and _layout(a.knobs) == _layout(b.knobs)
    )


def _layout(knobs: train.Knobs) -> train.Knobs:
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), knobs)


def stack(
    states: Sequence[train.TrainState],
    data: Sequence[train.TrainData],
    knobs: Sequence[train.Knobs],
    mesh: Mesh,
) -> tuple[train.TrainState, train.TrainData, train.Knobs]:
    """What `train.fit` takes of several runs; of one, its own, without the first axis.

    Args:
        states, knobs: on the devices.
        data: on the host or on the devices; images, labels and ids are those of the first.
        mesh: the devices of all.
    """
    first = data[0]
    if len(states) == 1:
        return states[0], train.replicate(first, mesh), knobs[0]
    who = {name: np.stack([getattr(each, name) for each in data]) for name in ("poisoned", "crossed")}
    data_of_all = train.replicate(first._replace(**who), mesh)
    return _stack(tuple(states), mesh), data_of_all, _stack(tuple(knobs), mesh)


def unstack(state: train.TrainState, mesh: Mesh) -> list[train.TrainState]:
    """The states that `state` holds, each as if it had been trained alone."""
    return _unstack(state, mesh) if state.step.ndim else [state]


@partial(jax.jit, static_argnames="mesh")
def _stack(trees, mesh):
    return _everywhere(jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees), mesh)


@partial(jax.jit, static_argnames="mesh")
def _unstack(state, mesh):
    return _everywhere([jax.tree.map(itemgetter(i), state) for i in range(len(state.step))], mesh)


def _everywhere(tree, mesh):
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))
