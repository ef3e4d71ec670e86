"""Devices and processes: the only room that knows of them.

Arrays given to a mapped function carry a leading axis, one entry for each device of this process; state is held once
per device (`replicate`), rows of a batch are split between devices (`shard`).

Several processes (`hosts`) run the same program on the same batches: each takes its own rows of a batch in `shard`,
and has all of them again after `unshard`. What is not mapped is done by each of them alike.
"""

from kdtw_jax.parallel.devices import AXIS, Devices, one_device
from kdtw_jax.parallel.placed import PlacedParams, copied, map_batch, map_batch_with_frozen, place_params
from kdtw_jax.parallel.pmap import (
    data_parallel,
    device_key,
    map_rows,
    mean_over_devices,
    pad_rows,
    psum_tree,
    psum_weight,
    replicate,
    shard,
    unreplicate,
    unshard,
)
from kdtw_jax.parallel.selection import dividing_devices, select_devices
from kdtw_jax.parallel.shards import check_shards, shard_params, shardings

__all__ = [
    "AXIS",
    "Devices",
    "PlacedParams",
    "check_shards",
    "copied",
    "data_parallel",
    "device_key",
    "dividing_devices",
    "map_batch",
    "map_batch_with_frozen",
    "map_rows",
    "mean_over_devices",
    "one_device",
    "pad_rows",
    "place_params",
    "psum_tree",
    "psum_weight",
    "replicate",
    "select_devices",
    "shard",
    "shard_params",
    "shardings",
    "unreplicate",
    "unshard",
]
