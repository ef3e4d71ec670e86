"""A process keeps the memory that it frees: on a CPU, training is faster so."""

from __future__ import annotations

import ctypes
import os
import sys

# Options of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_FEW_CORES = 8
_ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/accel0", "/dev/vfio")  # NVIDIA, AMD, TPU, TPU


def keep_memory() -> bool:
    """Has the process keep memory that it frees; returns whether it will.

    At every step XLA on a CPU asks for the buffers that it gave up at the step before. glibc's allocator maps large
    blocks anew each time, for the system to clear page by page: a third of a small student's step. Kept in one heap
    that is never trimmed, they cost nothing. glibc looks at this when the first further thread asks for memory, so
    nothing is changed once NumPy is loaded (it starts threads), nor where `MALLOC_` variables say what the user wants,
    nor without glibc. Nor beside an accelerator, which has memory of its own, or with many cores, where threads that
    compile wait for each other at the one heap: with 16 beside an H100, four programs cost 12 minutes of system time.
    """
    if "numpy" in sys.modules or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    if any(map(os.path.exists, _ACCELERATORS)):
        return False
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
        if len(os.sched_getaffinity(0)) > _FEW_CORES:
            return False
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError, ValueError):  # another C library, or another system
        return False
    settings = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**28, _MMAP_MAX: 0, _ARENA_MAX: 1}
    return all(mallopt(option, value) for option, value in settings.items())
