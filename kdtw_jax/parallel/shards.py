"""Parameters too large for one device, spread over several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdtw_jax.errors import UserError
from kdtw_jax.parallel.devices import AXIS, SHARDS, Devices

PyTree = Any


def shard_params(
    params: PyTree, devices: Devices, shards: int, axis: Callable[[tuple[str, ...]], int | None]
) -> PyTree:
    """Spreads parameters over groups of devices, each group holding all of them once.

    Matrices are split, along the other axis where the best one does not divide. What does not divide at all, and
    vectors, are held by every device. What is so spread already stays as it is. What becomes of such parameters under
    `jit` is up to XLA's partitioner: results differ from those of one device only by the order of sums.

    Args:
        params: a tree of arrays, dicts of dicts.
        devices: all that take part.
        shards: devices of a group; 1 leaves the parameters as they are.
        axis: the best axis of a matrix, 0 or 1, by the names that lead to it; None leaves it whole.

    Raises:
        UserError: unless `shards` divides the number of devices.
    """
    if shards == 1:
        return params
    sharding_of = shardings(devices, shards, axis)

    def spread(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        sharding = sharding_of(tuple(key.key for key in path), np.shape(leaf))
        return leaf if isinstance(leaf, jax.Array) and leaf.sharding == sharding else put(leaf, sharding)

    return jax.tree.map_with_path(spread, params)


def shardings(
    devices: Devices, shards: int, axis: Callable[[tuple[str, ...]], int | None]
) -> Callable[[tuple[str, ...], tuple[int, ...]], NamedSharding]:
    """Where `shard_params` puts each parameter, by the names that lead to it and its shape, before there are any.

    Args:
        devices: as for `shard_params`.
        shards: likewise.
        axis: likewise.

    Raises:
        UserError: unless `shards` divides the number of devices.
    """
    check_shards(len(devices), shards)
    mesh = Mesh(np.asarray(devices).reshape(-1, shards), (AXIS, SHARDS))

    def sharding(path: tuple[str, ...], shape: tuple[int, ...]) -> NamedSharding:
        along = _dividing(axis(path), shape, shards)
        spec = PartitionSpec() if along is None else PartitionSpec(*(None,) * along, SHARDS)
        return NamedSharding(mesh, spec)

    return sharding


def check_shards(devices: int, shards: int) -> None:
    """Checks that groups of `shards` make up the devices.

    Raises:
        UserError: where they do not.
    """
    if shards < 1 or devices % shards:
        raise UserError(f"teacher_shards={shards} must divide the number of devices, {devices}")


def _dividing(best: int | None, shape: tuple[int, ...], shards: int) -> int | None:
    """Finds the axis along which a parameter is split, the best one if it divides; None: it is not split."""
    if len(shape) != 2 or best is None:
        return None
    return next((axis for axis in (best, 1 - best) if shape[axis] % shards == 0), None)


def mesh_of(tree: PyTree) -> Mesh | None:
    """Finds the mesh that `shard_params` has spread parameters over; None: there are none such."""
    for leaf in jax.tree.leaves(tree):
        sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh) and SHARDS in sharding.mesh.shape:
            return sharding.mesh
    return None


def put(x: Any, sharding: NamedSharding) -> jax.Array:
    """Puts `x` on devices of all processes, each of which has the whole of it and copies its part."""
    whole = np.asarray(x)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])
