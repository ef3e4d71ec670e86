"""Strict defaults for every test: several CPU devices, no silent broadcasting."""

import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Workers, and the runs that tests start, compile the same programs: each is compiled once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{tempfile.gettempdir()}/kdtw_jax-compiled-{os.getuid()}")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest

from kdtw_jax.runs import keep_compiled

keep_compiled()
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")


MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Every compiled program keeps memory maps, of which a process may have some 65,000: a worker that kept those of
    the whole suite would crash. Below a third of that they are kept, since modules begin with the same small ones.
    Freed memory goes back to the system, too: glibc would keep gigabytes, and workers have little more than that."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > MAPS:
        jax.clear_caches()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if maps.exists() else None
    if trim is not None:
        trim(0)
