"""Parameters too large for one device, spread over several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdtw_jax.errors import UserError
from kdtw_jax.parallel.devices import AXIS, SHARDS, Devices

PyTree = Any


def shard_params(params: PyTree, devices: Devices, shards: int) -> PyTree:
    """Spreads parameters over groups of devices, each group holding all of them once.

    Matrices are split as in Megatron-LM (Shoeybi et al., arXiv 1909.08053, section 3): those into heads, inner units
    or the vocabulary by their outputs, those out of them by their inputs, so that a block needs two sums over a group.
    What does not divide, and vectors, are held by every device. What becomes of such parameters under `jit` is up to
    XLA's partitioner: results differ from those of one device only by the order of sums.

    Args:
        params: a tree of arrays.
        devices: all that take part.
        shards: devices of a group; 1 leaves the parameters as they are.

    Raises:
        UserError: unless `shards` divides the number of devices.
    """
    if shards == 1:
        return params
    check_shards(len(devices), shards)
    mesh = Mesh(np.asarray(devices).reshape(-1, shards), (AXIS, SHARDS))

    def spread(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        axis = shard_axis([key.key for key in path], np.shape(leaf), shards)
        spec = PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, SHARDS)
        return put(leaf, NamedSharding(mesh, spec))

    return jax.tree.map_with_path(spread, params)


def check_shards(devices: int, shards: int) -> None:
    """Checks that groups of `shards` make up the devices.

    Raises:
        UserError: where they do not.
    """
    if shards < 1 or devices % shards:
        raise UserError(f"teacher_shards={shards} must divide the number of devices, {devices}")


def shard_axis(names: Sequence[str], shape: tuple[int, ...], shards: int) -> int | None:
    """Finds the axis along which a parameter is split, by its name in the tree; None: it is not split."""
    if len(shape) != 2 or "relative_attention_bias" in names or "gate" in names:
        return None
    first = 0 if {"shared", "o", "wo"} & set(names[-2:-1]) else 1
    return next((axis for axis in (first, 1 - first) if shape[axis] % shards == 0), None)


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
