"""Data parallelism: the only file that knows about devices, and the only one that calls `pmap`.

Arrays given to a mapped function carry a leading axis, one entry for each device of this process; state is held once a
device (`replicate`), rows of a batch are split between devices (`shard`). Every reduction happens inside the mapped
function, as `psum(total) / psum(weight)`, so that the update does not depend on how rows fall on devices.

Several processes (`kdtw_jax.hosts`) run the same program on the same batches: each takes its own rows of a batch in
`shard`, and has all of them again after `unshard`. What is not mapped is done by each of them alike.

A model too large for one device is spread over several of them (`shard_params`) for scoring and writing (`map_batch`),
also together with a model in training (`map_batch_with_frozen`); a mapped function never sees it.

For `shard_map`: `pmap` is in maintenance in JAX. `data_parallel` would become `jit(shard_map(fn, mesh,
in_specs=P(AXIS), out_specs=P(AXIS)))` over the mesh below; nothing outside this file would change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdtw_jax.errors import UserError
from kdtw_jax.losses.metric import Weighted

AXIS = "devices"
SHARDS = "shards"  # the axis of a mesh that a model is spread over
PyTree = Any
Devices = Sequence[jax.Device]


def select_devices(count: int = 0) -> Devices:
    """The first `count` devices of each process, or all of them for 0, process by process.

    Raises UserError if a process has fewer, or, for 0, not as many as the others.
    """
    found = [[d for d in jax.devices() if d.process_index == p] for p in range(jax.process_count())]
    fewest = min(map(len, found))
    if count < 0 or count > fewest:
        raise UserError(f"devices={count}, but this machine has {fewest}; give 0 (all) to {fewest}")
    if not count and any(len(own) > fewest for own in found):
        raise UserError(f"hosts have {', '.join(str(len(own)) for own in found)} devices; give --devices {fewest}")
    chosen = [device for own in found for device in own[: count or fewest]]
    if len(found) > 1:
        # On CPUs devices of several processes connect at their first sum and wait 30 s for each other: here they come
        # together, while a training step may take longer to compile in one process than in another.
        jax.block_until_ready(data_parallel(psum_tree, chosen)(np.ones(count or fewest)))
    return chosen


def dividing_devices(count: int, rows: Sequence[int]) -> Devices:
    """Like `select_devices`; for 0, as many as each of `rows`, the batches that a run was begun with, divides over.

    Raises UserError where they do not divide over any such number.
    """
    most = len(select_devices(count)) // jax.process_count()
    for fewer in [count] if count else range(most, 0, -1):
        chosen = select_devices(fewer)
        if not any(number % len(chosen) for number in rows):
            return chosen
    numbers = ", ".join(map(str, rows))
    raise UserError(f"the run was begun with batches of {numbers} rows, which do not divide over {len(chosen)} devices")


def one_device() -> Devices:
    """The first device of this process, whatever the others do."""
    return jax.local_devices()[:1]


def _own(devices: Devices) -> Devices:
    return [d for d in devices if d.process_index == jax.process_index()]


def _sharding(devices: Devices) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec(AXIS))


def replicate(tree: PyTree, devices: Devices) -> PyTree:
    """Puts one copy of every leaf on each device: `[...]` becomes `[devices of this process, ...]`.

    Raises ValueError for what has been spread over devices, since it does not fit on one.
    """
    if _mesh_of(tree) is not None:
        raise ValueError(
            "these parameters are spread over devices; `place_params` them, and use them by `map_batch` or "
            "`map_batch_with_frozen`"
        )
    sharding = _sharding(_own(devices))
    n = len(sharding.device_set)
    return jax.tree.map(
        lambda x: jax.device_put(np.broadcast_to(np.asarray(x)[None], (n, *np.shape(x))), sharding), tree
    )


def unreplicate(tree: PyTree) -> PyTree:
    """The first device's copy as numpy arrays. Reads one shard: indexing `x[0]` would gather from all devices."""
    return jax.tree.map(lambda x: np.asarray(np.asarray(x.addressable_shards[0].data)[0]), tree)


def shard(tree: PyTree, devices: Devices) -> PyTree:
    """Splits the rows of a batch between devices: `[B, ...]` becomes `[devices of this process, B / devices, ...]`.

    Every process gives the whole batch and keeps the rows of its devices. Raises UserError if B does not divide.
    """
    own, n = _own(devices), len(devices)
    sharding, first = _sharding(own), devices.index(own[0])

    def split(x: jax.Array | np.ndarray) -> jax.Array:
        if x.shape[0] % n:
            raise UserError(f"{x.shape[0]} rows do not divide over {n} devices; choose a multiple of {n}")
        mine = x.reshape(n, x.shape[0] // n, *x.shape[1:])[first : first + len(own)]
        return jax.device_put(mine, sharding)

    return jax.tree.map(split, tree)


def unshard(tree: PyTree, devices: Devices) -> PyTree:
    """Undoes `shard`: `[devices of this process, rows, ...]` becomes the whole batch on its first device."""
    own = _own(devices)
    if len(own) < len(devices):
        tree = jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True), tree)
    return jax.tree.map(lambda x: jax.device_put(x, own[0]).reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree)


def data_parallel(fn: Callable[..., PyTree], devices: Devices, donate: tuple[int, ...] = ()) -> Callable[..., PyTree]:
    """`fn` on every device at once, over the leading axis of all its arguments; collectives use `AXIS`."""
    return jax.pmap(fn, axis_name=AXIS, devices=devices, donate_argnums=donate)


def psum_weight(weight: jax.Array) -> jax.Array:
    """What to divide this device's sum by for its part of the mean over all devices; nothing to differentiate.

    The parts add up to the global mean, as do their gradients.
    """
    return jnp.maximum(jax.lax.psum(jax.lax.stop_gradient(weight), AXIS), 1.0)


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


def shard_params(params: PyTree, devices: Devices, shards: int) -> PyTree:
    """Parameters spread over groups of `shards` devices, each group holding all of them once; 1: left as they are.

    Matrices are split as in Megatron-LM (Shoeybi et al., arXiv 1909.08053, section 3): those into heads, inner units
    or the vocabulary by their outputs, those out of them by their inputs, so that a block needs two sums over a group.
    What does not divide, and vectors, are held by every device. What becomes of such parameters under `jit` is up to
    XLA's partitioner: results differ from those of one device only by the order of sums.

    Raises UserError unless `shards` divides the number of devices.
    """
    if shards == 1:
        return params
    check_shards(len(devices), shards)
    mesh = Mesh(np.asarray(devices).reshape(-1, shards), (AXIS, SHARDS))

    def put(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        axis = shard_axis([key.key for key in path], np.shape(leaf), shards)
        spec = PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, SHARDS)
        return _put(leaf, NamedSharding(mesh, spec))

    return jax.tree.map_with_path(put, params)


def check_shards(devices: int, shards: int) -> None:
    """Raises UserError unless groups of `shards` make up the devices."""
    if shards < 1 or devices % shards:
        raise UserError(f"teacher_shards={shards} must divide the number of devices, {devices}")


def shard_axis(names: Sequence[str], shape: tuple[int, ...], shards: int) -> int | None:
    """The axis along which a parameter is split into `shards`, by its name in the tree; None: it is not split."""
    if len(shape) != 2 or "relative_attention_bias" in names or "gate" in names:
        return None
    first = 0 if {"shared", "o", "wo"} & set(names[-2:-1]) else 1
    return next((axis for axis in (first, 1 - first) if shape[axis] % shards == 0), None)


class PlacedParams(NamedTuple):
    """Parameters where `map_batch` needs them."""

    params: PyTree
    devices: Devices
    mesh: Mesh | None  # over which they are spread; None: every device has a copy, along a leading axis


def place_params(params: PyTree, devices: Devices) -> PlacedParams:
    """Copies parameters to each device, or leaves them spread where they are (`shard_params`)."""
    mesh = _mesh_of(params)
    if mesh is None:
        return PlacedParams(replicate(params, devices), devices, None)
    return PlacedParams(_everywhere(params, mesh), devices, mesh)


def map_batch(fn: Callable[..., PyTree], held: PlacedParams) -> Callable[..., PyTree]:
    """`fn(params, *rows)` as a function of whole batches `[B, ...]`, computed on all devices, the rows split.

    Results, [B, ...] too, come whole on the first device of each process.
    """
    params, devices, mesh = held
    if mesh is None:
        mapped = data_parallel(fn, devices)
        return lambda *rows: map_rows(mapped, (params,), rows, devices)
    return partial(_over_mesh(fn, mesh), params)


def map_batch_with_frozen(fn: Callable[..., PyTree], held: PlacedParams) -> Callable[..., PyTree]:
    """`fn(own, params, *rows)` beside a model in training: `own` as `replicate` gives it, rows and results as `shard`.

    With spread parameters, their mesh sees `own` where it is, and rows and results go through each process's first
    device.
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
    """Some of the held parameters with a copy on each device, for a mapped function."""
    if held.mesh is None:
        return part
    whole = jax.jit(lambda x: x, out_shardings=NamedSharding(held.mesh, PartitionSpec()))(part)
    return replicate(jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), whole), held.devices)


def _over_mesh(fn: Callable[..., PyTree], mesh: Mesh) -> Callable[..., PyTree]:
    """`fn(params, *rows)` of parameters on a mesh and whole batches, computed there, the rows split over its groups."""
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    jitted = jax.jit(fn, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def call(params: PyTree, *rows: PyTree) -> PyTree:
        count, padded = _padded(rows, mesh.shape[AXIS])
        found = jitted(params, *jax.tree.map(lambda x: _put(x, split), padded))
        return jax.tree.map(lambda x: x.addressable_data(0)[:count], found)

    return call


def map_rows(mapped: Callable[..., PyTree], fixed: tuple[PyTree, ...], rows: PyTree, devices: Devices) -> PyTree:
    """`mapped(*fixed, *rows)` of what `data_parallel` has made, for whole batches `[B, ...]` of any B, and results too.

    `fixed` is on the devices already. How many rows there are to compute does not depend on the number of devices:
    where they do not divide over them, the last one is computed several times.
    """
    count, padded = _padded(rows, len(devices))
    whole = unshard(mapped(*fixed, *shard(padded, devices)), devices)
    return whole if len(jax.tree.leaves(padded)[0]) == count else jax.tree.map(lambda x: x[:count], whole)


def _padded(rows: PyTree, multiple: int) -> tuple[int, PyTree]:
    """The number of rows, and the rows with the last one repeated up to a multiple."""
    count = len(jax.tree.leaves(rows)[0])
    more = -count % multiple
    if not more:
        return count, rows
    return count, jax.tree.map(lambda x: np.concatenate([x, np.repeat(np.asarray(x)[-1:], more, axis=0)]), rows)


def _put(x: Any, sharding: NamedSharding) -> jax.Array:
    """On devices of all processes, each of which has the whole of `x` and copies its part."""
    whole = np.asarray(x)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def _everywhere(params: PyTree, mesh: Mesh) -> PyTree:
    """A copy on every device of the mesh, of what is not spread over it already."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: x if _mesh_of(x) else _put(x, everywhere), params)


def _seen_by(mesh: Mesh, copies: PyTree) -> PyTree:
    """What `replicate` gave to the devices of a mesh, as the mesh knows it; nothing leaves its device."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def view(x: jax.Array) -> jax.Array:
        own = [part.data.reshape(x.shape[1:]) for part in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape[1:], everywhere, own)

    return jax.tree.map(view, copies)


def _mesh_of(tree: PyTree) -> Mesh | None:
    """Of the parameters that `shard_params` has spread; None if there are none."""
    for leaf in jax.tree.leaves(tree):
        sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh) and SHARDS in sharding.mesh.shape:
            return sharding.mesh
    return None
