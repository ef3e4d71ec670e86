"""Which devices a run takes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from kdtw_jax.errors import UserError
from kdtw_jax.parallel.devices import Devices
from kdtw_jax.parallel.pmap import data_parallel, psum_tree


def select_devices(count: int = 0) -> Devices:
    """Selects the first `count` devices of each process, or all of them for 0, process by process.

    Raises:
        UserError: if a process has fewer, or, for 0, not as many as the others.
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
    """Selects devices as `select_devices` does, but for 0 as many as the batches of a run divide over.

    Args:
        count: devices of each process, or 0.
        rows: the rows of each batch that the run was begun with.

    Raises:
        UserError: where they do not divide over any such number.
    """
    most = len(select_devices(count)) // jax.process_count()
    for fewer in [count] if count else range(most, 0, -1):
        chosen = select_devices(fewer)
        if not any(number % len(chosen) for number in rows):
            return chosen
    numbers = ", ".join(map(str, rows))
    raise UserError(f"the run was begun with batches of {numbers} rows, which do not divide over {len(chosen)} devices")
