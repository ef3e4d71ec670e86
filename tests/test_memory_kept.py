"""Freed memory stays with an experiment's process, so that training on a CPU does not wait for the system's pages."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource, sys
sys.path.insert(0, {root!r})
{first}
import experiments, numpy
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        bytearray(1 << 26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
# Wherever the tests run: two cores, and no accelerator.
HERE = "import os; os.sched_getaffinity = lambda _: range(2); os.path.exists = lambda _: False"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
@pytest.mark.parametrize(
    ("first", "told", "kept"),
    [
        (HERE, {}, True),
        (f"{HERE}; import numpy", {}, False),
        (HERE, {"MALLOC_ARENA_MAX": "8"}, False),
        (f"{HERE}; os.sched_getaffinity = lambda _: range(64)", {}, False),
        (f"{HERE}; os.path.exists = '/dev/nvidiactl'.__eq__", {}, False),
    ],
    ids=["first of all", "too late", "the user's own settings", "many cores", "beside a GPU"],
)
def test_large_blocks_are_not_mapped_anew(first: str, told: dict[str, str], kept: bool) -> None:
    code = FAULTS.format(root=str(Path(__file__).parents[1]), first=first)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    found = subprocess.run([sys.executable, "-c", code], env={**plain, **told}, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    fewest = 4 * (1 << 26) >> 21  # in pages of 2 MiB, should the system give those out
    assert (int(found.stdout) < fewest // 2) == kept, found.stdout
