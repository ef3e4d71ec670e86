"""Where compiled programs are kept from one process to the next."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

KEEP = """
import sys, jax, jax.numpy as jnp
from kdtw_jax.runs import keep_compiled
print(keep_compiled())
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
"""


def kept(**environment: str) -> str:
    """What `keep_compiled` says in a fresh process that then compiles something."""
    base = {k: v for k, v in os.environ.items() if not k.startswith("JAX_") and k != "XDG_CACHE_HOME"}
    limits = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", KEEP], env=base | limits | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_compiled_programs_are_kept_in_the_user_s_cache_folder(tmp_path):
    folder = Path(kept(XDG_CACHE_HOME=str(tmp_path)))
    assert tmp_path in folder.parents and any(folder.iterdir())
    assert kept(HOME=str(tmp_path / "home")).startswith(str(tmp_path / "home" / ".cache" / "kdtw_jax"))


def test_a_place_that_jax_was_told_stands_and_one_that_cannot_be_made_is_done_without(tmp_path):
    own = tmp_path / "own"
    assert kept(JAX_COMPILATION_CACHE_DIR=str(own), XDG_CACHE_HOME=str(tmp_path)) == str(own) and any(own.iterdir())
    assert kept(JAX_ENABLE_COMPILATION_CACHE="false", XDG_CACHE_HOME=str(tmp_path / "off")) == "None"
    (tmp_path / "file").write_text("in the way")
    assert kept(XDG_CACHE_HOME=str(tmp_path / "file")) == "None"


def test_what_a_full_disk_left_empty_is_compiled_and_kept_again(tmp_path):
    own = tmp_path / "own"
    kept(JAX_COMPILATION_CACHE_DIR=str(own))
    entries = list(own.glob("*-cache"))
    for entry in entries:
        entry.write_bytes(b"")
    kept(JAX_COMPILATION_CACHE_DIR=str(own))
    assert entries and all(entry.stat().st_size for entry in entries)
