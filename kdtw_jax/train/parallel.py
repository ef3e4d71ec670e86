"""Data parallelism: the only file that knows about devices, and the only one that calls `pmap`.

Arrays given to a mapped function carry a leading device axis of `device_count()`; state is held once a device
(`replicate`), rows of a batch are split between devices (`shard`). Every reduction happens inside the mapped
function, as `psum(total) / psum(weight)`, so that the update does not depend on how rows fall on devices.

For `shard_map`: `pmap` is in maintenance in JAX. `data_parallel` would become `jit(shard_map(fn, mesh,
in_specs=P(AXIS), out_specs=P(AXIS)))` over the mesh below; nothing outside this file would change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdtw_jax.errors import UserError
from kdtw_jax.losses.metric import Weighted

AXIS = "devices"
PyTree = Any
Devices = Sequence[jax.Device]


def select_devices(count: int = 0) -> Devices:
    """The first `count` devices of this process, or all of them for 0. Raises UserError if there are fewer."""
    devices = jax.local_devices()
    if count < 0 or count > len(devices):
        raise UserError(f"devices={count}, but this machine has {len(devices)}; give 0 (all) to {len(devices)}")
    return devices[:count] if count else devices


def _sharding(devices: Devices) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec(AXIS))


def replicate(tree: PyTree, devices: Devices) -> PyTree:
    """Puts one copy of every leaf on each device: `[...]` becomes `[devices, ...]`."""
    sharding = _sharding(devices)
    n = len(devices)
    return jax.tree.map(
        lambda x: jax.device_put(np.broadcast_to(np.asarray(x)[None], (n, *np.shape(x))), sharding), tree
    )


def unreplicate(tree: PyTree) -> PyTree:
    """The first device's copy as numpy arrays. Reads one shard: indexing `x[0]` would gather from all devices."""
    return jax.tree.map(lambda x: np.asarray(np.asarray(x.addressable_shards[0].data)[0]), tree)


def shard(tree: PyTree, devices: Devices) -> PyTree:
    """Splits the rows of a batch between devices: `[B, ...]` becomes `[devices, B / devices, ...]`."""
    sharding = _sharding(devices)
    n = len(devices)

    def split(x: jax.Array | np.ndarray) -> jax.Array:
        if x.shape[0] % n:
            raise UserError(f"{x.shape[0]} rows do not divide over {n} devices; choose a multiple of {n}")
        return jax.device_put(x.reshape(n, x.shape[0] // n, *x.shape[1:]), sharding)

    return jax.tree.map(split, tree)


def unshard(tree: PyTree, devices: Devices) -> PyTree:
    """Undoes `shard`: `[devices, rows, ...]` becomes `[devices * rows, ...]` on the first device."""
    return jax.tree.map(lambda x: jax.device_put(x, devices[0]).reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree)


def data_parallel(fn: Callable[..., PyTree], devices: Devices, donate: tuple[int, ...] = ()) -> Callable[..., PyTree]:
    """`fn` on every device at once, over the leading axis of all its arguments; collectives use `AXIS`."""
    return jax.pmap(fn, axis_name=AXIS, devices=devices, donate_argnums=donate)


def psum_mean(term: Weighted) -> jax.Array:
    """This device's part of the mean over all devices: sums to the global mean, as do its gradients."""
    weight = jax.lax.psum(jax.lax.stop_gradient(term.weight), AXIS)
    return term.total / jnp.maximum(weight, 1.0)


def mean_over_devices(term: Weighted) -> jax.Array:
    """The mean over all devices, the same on each of them; nothing to differentiate."""
    total, weight = psum_tree(jax.lax.stop_gradient((term.total, term.weight)))
    return total / jnp.maximum(weight, 1.0)


def psum_tree(tree: PyTree) -> PyTree:
    """Sums every leaf over the devices."""
    return jax.lax.psum(tree, AXIS)


def device_key(key: jax.Array) -> jax.Array:
    """A key of this device's own (dropout masks must differ between devices)."""
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS))
