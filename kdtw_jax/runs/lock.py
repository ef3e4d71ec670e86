"""The lock of a run's folder: one writing process at a time."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from filelock import FileLock, Timeout

from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import explained

LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # what file systems without them say


def take_lock(folder: Path) -> FileLock:
    """Takes the lock of a folder, until it is released or the process ends, however it ends; its file says whose it is.

    A file system without locks (some network mounts) has none to take: runs are unprotected there rather than refused.

    Raises:
      UserError: another process has it, or its file cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False, on_acquired=_sign)
    try:
        lock.acquire()
    except Timeout as error:
        holder = (folder / LOCK).read_bytes()[:32].decode("ascii", "replace").strip() or "unknown"
        raise UserError(f"{folder} is in use by process {holder}: wait for it or choose another --out") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            with explained(folder):
                raise
    return lock


def _sign(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
