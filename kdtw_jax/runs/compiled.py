"""Compiled programs are kept between runs, so that a second start of the same sizes need not compile again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import jax


def keep_compiled() -> Path | None:
    """Keeps what XLA compiles in the user's cache folder (`$XDG_CACHE_HOME`, by default `~/.cache`); returns where.

    The place is another where JAX has been told one itself (`JAX_COMPILATION_CACHE_DIR`), and nothing is kept (None)
    where the folder cannot be made or the cache is off (`JAX_ENABLE_COMPILATION_CACHE=false`). To be called before
    anything is compiled: JAX looks once.
    """
    if not jax.config.values["jax_enable_compilation_cache"]:
        return None
    if told := jax.config.values["jax_compilation_cache_dir"]:
        _forget_empty(Path(told))
        return Path(told)
    caches = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(caches) / "kdtw_jax" / "compiled" / _instructions()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    _forget_empty(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def unoptimised() -> str:
    """Flags for `XLA_FLAGS` by which a CPU's programs are compiled in about half of the time.

    They run slower: this is for what runs for milliseconds, as tests do. XLA reads the flags when JAX is first asked
    for a device.
    """
    flags = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
    # Later releases know no other way to write fusions, and end the process for a flag that they do not know.
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
        flags.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join(flags)


def _forget_empty(folder: Path) -> None:
    """Removes entries without content, which a full disk leaves: JAX warns of them at every start, and never writes
    them anew."""
    for entry in folder.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process may have removed it
            if not entry.stat().st_size:
                entry.unlink()


def _instructions() -> str:
    """The processor's instruction set in a few letters. JAX's key does not name it, and a home folder may be shared by
    machines of several kinds: a program of one could stop another with an illegal instruction."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text("utf8"), re.MULTILINE)
    except OSError:
        found = None
    flags = found.group(0) if found else platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"
