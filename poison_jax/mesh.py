"""The mesh: one axis, `data`, over all devices of all processes; how arrays get onto it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def make_mesh(devices: list | None = None) -> Mesh:
    """A mesh with one axis, `data`, over all devices (of all processes)."""
    return Mesh(np.array(devices or jax.devices()), ("data",))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The arrays on every device of the mesh."""
    return put(tree, NamedSharding(mesh, PartitionSpec()))


def put(tree: Any, sharding: jax.sharding.Sharding | None) -> Any:
    """`jax.device_put` of what every process has a whole copy of.

    With several processes JAX's own gathers every process's copy on every other one to compare them: for
    a training set that is as many times its memory as there are processes.
    """
    if sharding is None or jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: _put(leaf, sharding), tree)


def _put(leaf, sharding):
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:  # on the mesh already
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    host = host.astype(jax.dtypes.canonicalize_dtype(host.dtype), copy=False)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
