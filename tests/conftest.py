"""Strict defaults for every test: several CPU devices, no silent broadcasting, programs that compile fast."""

import ctypes
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Workers, and the runs that tests start, compile the same programs: each is compiled once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{tempfile.gettempdir()}/kdtw_jax-compiled-{os.getuid()}")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax
import pytest

from kdtw_jax.runs import keep_compiled, unoptimised

# XLA reads them when it is first asked for a device. KDTW_OPTIMISED=1 compiles as users do.
FLAGS = ["" if os.environ.get("KDTW_OPTIMISED") else unoptimised(), os.environ.get("XLA_FLAGS", "")]
os.environ["XLA_FLAGS"] = " ".join([*FLAGS, "--xla_force_host_platform_device_count=8"])

keep_compiled()
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")


MAPS = 20_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every", type=int, default=1, help="of each file run one test of so many (default: all)")


@pytest.hookimpl(trylast=True)  # of what -m and -k leave
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A sample that has some of every file, for one more environment."""
    seen, kept, left = Counter[Path](), list[pytest.Item](), list[pytest.Item]()
    for item in items:
        (left if seen[item.path] % config.getoption("--every") else kept).append(item)
        seen[item.path] += 1
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


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
