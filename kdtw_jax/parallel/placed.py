"""Parameters placed on devices, copied or spread, and functions of them and of whole batches.

A model too large for one device is spread over several of them (`shard_params`) for scoring and writing (`map_batch`),
also together with a model in training (`map_batch_with_frozen`); a mapped function never sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdtw_jax.parallel.devices import AXIS, Devices
from kdtw_jax.parallel.pmap import data_parallel, map_rows, pad_rows, replicate, shard, unshard
from kdtw_jax.parallel.shards import mesh_of, put

PyTree = Any


class PlacedParams(NamedTuple):
    """Parameters where `map_batch` needs them."""

    params: PyTree
    devices: Devices
    mesh: Mesh | None  # over which they are spread; None: every device has a copy, along a leading axis


def place_params(params: PyTree, devices: Devices) -> PlacedParams:
    """Copies parameters to each device, or leaves them spread where they are (`shard_params`)."""
    mesh = mesh_of(params)
    if mesh is None:
        return PlacedParams(replicate(params, devices), devices, None)
    return PlacedParams(_everywhere(params, mesh), devices, mesh)


def map_batch(fn: Callable[..., PyTree], held: PlacedParams) -> Callable[..., PyTree]:
    """Makes `fn(params, *rows)` a function of whole batches, computed on all devices, the rows split.

    Args:
        fn: a function of parameters and rows, one row of its results for each.
        held: the parameters.

    Returns:
        A function of leaves [B, ...]; its results, [B, ...] too, come whole on the first device of each process.
    """
    params, devices, mesh = held
    if mesh is None:
        mapped = data_parallel(fn, devices)
        return lambda *rows: map_rows(mapped, (params,), rows, devices)
    return partial(_over_mesh(fn, mesh), params)


def map_batch_with_frozen(fn: Callable[..., PyTree], held: PlacedParams) -> Callable[..., PyTree]:
    """Makes `fn(own, params, *rows)` a function that runs beside a model in training.

    With spread parameters, their mesh sees `own` where it is, and rows and results go through each process's first
    device.

    Args:
        fn: a function of the model's own parameters, the placed ones and rows.
        held: the placed parameters.

    Returns:
        A function of `own`, as `replicate` gives it, and of rows, as `shard` gives them and as its results are.
    """
    params, devices, mesh = held
    if mesh is None:
        mapped = data_parallel(fn, devices)
        return lambda own, *rows: mapped(own, params, *rows)
    whole = _over_mesh(lambda both, *rows: fn(*both, *rows), mesh)

    def call(own: PyTree, *rows: PyTree) -> PyTree:
        return shard(whole((_seen_by(mesh, own), params), *unshard(rows, devices)), devices)

    return call


def copied(part: PyTree, held: PlacedParams) -> PyTree:
    """Copies some of the held parameters to each device, for a mapped function."""
    if held.mesh is None:
        return part
    whole = jax.jit(lambda x: x, out_shardings=NamedSharding(held.mesh, PartitionSpec()))(part)
    return replicate(jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), whole), held.devices)


def _over_mesh(fn: Callable[..., PyTree], mesh: Mesh) -> Callable[..., PyTree]:
    """Makes `fn` a function of parameters on a mesh and whole batches, the rows split over the mesh's groups."""
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    jitted = jax.jit(fn, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def call(params: PyTree, *rows: PyTree) -> PyTree:
        count, padded = pad_rows(rows, mesh.shape[AXIS])
        found = jitted(params, *jax.tree.map(lambda x: put(x, split), padded))
        return jax.tree.map(lambda x: x.addressable_data(0)[:count], found)

    return call


def _everywhere(params: PyTree, mesh: Mesh) -> PyTree:
    """Copies to every device of the mesh what is not spread over it already."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: x if mesh_of(x) else put(x, everywhere), params)


def _seen_by(mesh: Mesh, copies: PyTree) -> PyTree:
    """Shows a mesh what `replicate` gave to its devices; nothing leaves its device."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def view(x: jax.Array) -> jax.Array:
        own = [part.data.reshape(x.shape[1:]) for part in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape[1:], everywhere, own)

    return jax.tree.map(view, copies)
