"""Several processes, usually one a host, that do one run together: how they meet, wait, and which of them writes.

All of them run the same program on the same data and meet in every training step (`kdtw_jax.parallel`). The
first one writes what a run leaves behind; the run's folder and that of the data have to be the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

from kdtw_jax.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class HostsConfig:
    """Processes that do one run together. Each is started with the same command but for `index`."""

    count: int = 1
    """processes; 0: what the cluster says (Slurm, Open MPI, Cloud TPU), which then says the rest, too"""
    index: int = 0
    """which of them this one is, from 0"""
    coordinator: str = ""
    """HOST:PORT at which the others reach process 0"""
    patience: int = 300
    """seconds to wait for each other at the start"""

    def __post_init__(self) -> None:
        if self.count < 0 or self.patience < 1:
            raise UserError("hosts.count must be 0 (what the cluster says) or more, hosts.patience at least 1")
        if self.count > 1 and not 0 <= self.index < self.count:
            raise UserError(f"hosts.index must be in 0 to {self.count - 1}, got {self.index}")
        if self.count > 1 and not self.coordinator.rpartition(":")[2].isdecimal():
            raise UserError(f"hosts.coordinator must be the HOST:PORT of process 0, got {self.coordinator!r}")


def join(config: HostsConfig) -> None:
    """Meets the other processes. To be called before anything is computed; one process alone has nobody to meet.

    Raises:
        UserError: where they do not come together.
    """
    if config.count == 1 or jax.distributed.is_initialized():
        return
    how = {"initialization_timeout": config.patience, "shutdown_timeout_seconds": 60}
    try:
        if config.count == 0:
            jax.distributed.initialize(**how)  # type: ignore[arg-type]
        else:
            jax.distributed.initialize(config.coordinator, config.count, config.index, **how)  # type: ignore[arg-type]
    except (RuntimeError, ValueError) as error:
        raise UserError(f"hosts did not come together: {str(error).splitlines()[0]}") from error


def is_writer() -> bool:
    """Whether this process writes logs, checkpoints and tables."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def wait(where: str) -> None:
    """Waits until all processes are there; all have to call it with the same word."""
    if jax.distributed.is_initialized():
        multihost_utils.sync_global_devices(where)


def first_alone(fn: Callable[[], T], where: str) -> T:
    """Calls `fn`, which writes files, first in the first process and then in the others, which find them there."""
    if not is_writer():
        wait(where)
    found = fn()
    if is_writer():
        wait(where)
    return found
