"""Copies and rows on devices, and functions mapped over them: the only file that calls `pmap`.

Every reduction happens inside the mapped function, as `psum(total) / psum(weight)`, so that the update does not depend
on how rows fall on devices.

For `shard_map`: `pmap` is in maintenance in JAX. `data_parallel` would become `jit(shard_map(fn, mesh,
in_specs=P(AXIS), out_specs=P(AXIS)))` over the mesh of `_sharding`; nothing outside this room would change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdtw_jax.errors import UserError
from kdtw_jax.parallel.devices import AXIS, Devices, own_devices
from kdtw_jax.parallel.shards import mesh_of

PyTree = Any


def replicate(tree: PyTree, devices: Devices) -> PyTree:
    """Puts one copy of every leaf on each device: `[...]` becomes `[devices of this process, ...]`.

    Raises:
        ValueError: for what has been spread over devices, since it does not fit on one.
    """
    if mesh_of(tree) is not None:
        raise ValueError(
            "these parameters are spread over devices; `place_params` them, and use them by `map_batch` or "
            "`map_batch_with_frozen`"
        )
    sharding = _sharding(own_devices(devices))
    n = len(sharding.device_set)
    return jax.tree.map(
        lambda x: jax.device_put(np.broadcast_to(np.asarray(x)[None], (n, *np.shape(x))), sharding), tree
    )


def unreplicate(tree: PyTree) -> PyTree:
    """Undoes `replicate`: the first device's copy as numpy arrays.

    It reads one shard, since indexing `x[0]` would gather from all devices.
    """
    return jax.tree.map(lambda x: np.asarray(np.asarray(x.addressable_shards[0].data)[0]), tree)


def shard(tree: PyTree, devices: Devices) -> PyTree:
    """Splits the rows of a batch between devices: `[B, ...]` becomes `[devices of this process, B / devices, ...]`.

    Every process gives the whole batch and keeps the rows of its devices.

    Raises:
        UserError: if B does not divide.
    """
    own, n = own_devices(devices), len(devices)
    sharding, first = _sharding(own), devices.index(own[0])

    def split(x: jax.Array | np.ndarray) -> jax.Array:
        if x.shape[0] % n:
            raise UserError(f"{x.shape[0]} rows do not divide over {n} devices; choose a multiple of {n}")
        mine = x.reshape(n, x.shape[0] // n, *x.shape[1:])[first : first + len(own)]
        return jax.device_put(mine, sharding)

    return jax.tree.map(split, tree)


def unshard(tree: PyTree, devices: Devices) -> PyTree:
    """Undoes `shard`: `[devices of this process, rows, ...]` becomes the whole batch on its first device."""
    own = own_devices(devices)
    if len(own) < len(devices):
        tree = jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True), tree)
    return jax.tree.map(lambda x: jax.device_put(x, own[0]).reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree)


def data_parallel(fn: Callable[..., PyTree], devices: Devices, donate: tuple[int, ...] = ()) -> Callable[..., PyTree]:
    """Maps `fn` over the devices.

    Args:
        fn: a function of what one device holds; its collectives use `AXIS`.
        devices: where it runs.
        donate: which arguments give their memory to the results.

    Returns:
        A function of arguments with a leading axis, one entry for each device of this process, as are its results.
    """
    return jax.pmap(fn, axis_name=AXIS, devices=devices, donate_argnums=donate)


def map_rows(mapped: Callable[..., PyTree], fixed: tuple[PyTree, ...], rows: PyTree, devices: Devices) -> PyTree:
    """Calls `mapped(*fixed, *rows)` with whole batches of any number of rows.

    How many rows there are to compute does not depend on the number of devices: where they do not divide over them,
    the last one is computed several times.

    Args:
        mapped: what `data_parallel` has made.
        fixed: its first arguments, which are on the devices already.
        rows: the others, leaves [B, ...].
        devices: those that `mapped` runs on.

    Returns:
        The results as whole batches, [B, ...].
    """
    count, padded = pad_rows(rows, len(devices))
    whole = unshard(mapped(*fixed, *shard(padded, devices)), devices)
    return whole if len(jax.tree.leaves(padded)[0]) == count else jax.tree.map(lambda x: x[:count], whole)


def pad_rows(rows: PyTree, multiple: int) -> tuple[int, PyTree]:
    """Repeats the last row up to a multiple; returns the number of rows that there were, and the rows."""
    count = len(jax.tree.leaves(rows)[0])
    more = -count % multiple
    if not more:
        return count, rows
    return count, jax.tree.map(lambda x: np.concatenate([x, np.repeat(np.asarray(x)[-1:], more, axis=0)]), rows)


def psum_weight(weight: jax.Array) -> jax.Array:
    """Adds up a weight, [], over all devices: a device's sum divided by it is its part of the mean over them.

    The parts add up to the mean, as do their gradients; the weight itself is nothing to differentiate.
    """
    return jnp.maximum(jax.lax.psum(jax.lax.stop_gradient(weight), AXIS), 1.0)


def mean_over_devices(total: jax.Array, weight: jax.Array) -> jax.Array:
    """Computes the mean over all devices, of any shape, the same on each of them; nothing to differentiate.

    Args:
      total: this device's sums.
      weight: what they are divided by, of the same shape.
    """
    total, weight = psum_tree(jax.lax.stop_gradient((total, weight)))
    return total / jnp.maximum(weight, 1.0)


def psum_tree(tree: PyTree) -> PyTree:
    """Sums every leaf over the devices."""
    return jax.lax.psum(tree, AXIS)


def device_key(key: jax.Array) -> jax.Array:
    """Makes a key of this device's own, since dropout masks must differ between devices."""
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS))


def _sharding(devices: Devices) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec(AXIS))
