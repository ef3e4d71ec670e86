"""A log of made-up numbers, and a disk without space; for tests of run folders."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from kdtw_jax.runs import MetricsLog


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def numbers(step: int) -> dict[str, float]:
    return {"loss": 1 / (step + 3), "tokens": float(step)}


def log_steps(folder: Path, resume: int | None, first: int, last: int) -> None:
    with MetricsLog(folder, resume) as log:
        for step in range(first, last + 1):
            log.write(step, numbers(step))
