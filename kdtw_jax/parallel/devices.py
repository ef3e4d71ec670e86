"""Devices: how they are called, and which are a process's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import jax

AXIS = "devices"
SHARDS = "shards"  # the axis of a mesh that a model is spread over
Devices: TypeAlias = Sequence[jax.Device]


def one_device() -> Devices:
    """The first device of this process, whatever the others do."""
    return jax.local_devices()[:1]


def own_devices(devices: Devices) -> Devices:
    return [d for d in devices if d.process_index == jax.process_index()]
