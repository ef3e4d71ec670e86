"""What it takes to make a result again: command, seed, commit, versions, machine, time."""

from __future__ import annotations

import datetime
import functools
import getpass
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from kdtw_jax.runs.atomic import write_json

__all__ = ["clean_command", "describe", "provenance", "write_json"]

PACKAGES = (
    "kdtw_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "sentencepiece",
    "sacrebleu",
    "rouge-score",
    "babel",
    "numpy",
    "scipy",
)
# Untracked results are no part of what was run, so only these decide whether the tree is dirty.
ROOT = Path(__file__).resolve().parents[2]
CODE = ("kdtw_jax", "experiments", "benchmarks", "setup.py", "pyproject.toml", "requirements.txt")


def provenance(command: Sequence[str], seed: int | Sequence[int], started: float, **more: Any) -> dict[str, Any]:
    """A JSON-able record of the run that is ending now.

    command: the command line, e.g. `sys.orig_argv` or `sys.argv`; cleaned of the interpreter's path, home
    folders and user names. seed: one or several. started: `time.time()` at the start, from which `hours`
    counts. more: further entries, which replace those of the same name (a resumed run may give its own
    `hours`, the sum of its parts).
    """
    now = time.time()
    record: dict[str, Any] = {
        "command": clean_command(command),
        "seed": seed if isinstance(seed, int) else list(seed),
        "date": datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(timespec="seconds"),
        "hours": round((now - started) / 3600, 4),
        **running_code(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": machine(),
    }
    return record | more


def describe(record: Mapping[str, Any]) -> str:
    """A record in a few lines, for people: what was run, at which commit, on what, and how long it took.

    Stages that an earlier commit had finished are named with theirs.
    """
    seeds = record["seed"] if isinstance(record["seed"], list) else [record["seed"]]
    machine = record["machine"]
    lines = [
        f"command   {shlex.join(record['command'])}",
        f"seeds     {', '.join(map(str, seeds))}",
        f"commit    {_commit(record)}",
    ]
    others: dict[str, list[str]] = {}
    for stage, info in record.get("stages", {}).items():
        if _commit(info) != _commit(record):
            others.setdefault(_commit(info), []).append(stage)
    lines += [f"          {commit}: {', '.join(stages)}" for commit, stages in others.items()]
    lines += [
        f"hours     {record['hours']:.2f}",
        f"machine   {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}",
        f"devices   {', '.join(f'{count} ({kind})' for kind, count in machine['devices'].items())}",
        f"ended     {record['date']}",
    ]
    if "train_pairs" in record.get("data", {}):
        pairs = record["data"]["train_pairs"], record["data"]["test_pairs"]
        lines.append(f"pairs     {pairs[0]} to train on, {pairs[1]} to judge on")
    return "\n".join(lines)


def _commit(record: Mapping[str, Any]) -> str:
    if record["commit"] is None:
        return "unknown (not run from a checkout)"
    return record["commit"] + (" with changes not committed" if record["dirty"] else "")


def typed() -> list[str]:
    """The command line of this process as one would type it."""
    program = Path(sys.argv[0])
    return ["python", *sys.argv] if program.suffix == ".py" else [program.name, *sys.argv[1:]]


def program() -> str:
    """How this package's command line is called from here: `kdtw` where that is this one, otherwise by its path."""
    own = Path(sys.executable).parent / "kdtw"
    if not own.exists():
        return "python -m kdtw_jax.cli"
    found = shutil.which("kdtw")
    return "kdtw" if found and Path(found).resolve() == own.resolve() else os.path.relpath(own)


def clean_command(command: Sequence[str]) -> list[str]:
    """Takes out of a command what is private to a machine.

    Paths under the working folder become relative, home folders become `~`, the user's name becomes `USER`, and the
    interpreter is just `python`.
    """
    words = [_clean_word(word) for word in command]
    if words and re.fullmatch(r"python[\d.]*(\.exe)?", Path(words[0]).name):
        words[0] = "python"
    return words


@functools.cache
def running_code() -> dict[str, Any]:
    """`git_state` of this package when first asked: call early, since commits made later are not what runs here."""
    return git_state(ROOT)


def git_state(root: Path) -> dict[str, Any]:
    """`commit` and `dirty` of the checkout that the package runs from; both None when it runs from elsewhere.

    An installed copy can lie inside a checkout (a virtual environment in its root) and yet be another
    version: the commit is only named when the package's own files are the tracked ones.
    """
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None or _git(root, "ls-files", "--error-unmatch", "kdtw_jax/runs/provenance.py") is None:
        return {"commit": None, "dirty": None}
    status = _git(root, "status", "--porcelain", "--", *CODE)
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def machine() -> dict[str, Any]:
    """Processor model, cores this process may use, memory in GiB, JAX devices by kind. No names."""
    devices = Counter(f"{d.platform}: {d.device_kind}" for d in jax.devices())
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "devices": dict(sorted(devices.items())),
    }


def _clean_word(word: str) -> str:
    flag, equals, value = word.rpartition("=") if word.startswith("-") else ("", "", word)
    if os.path.isabs(value):
        here, home = os.getcwd(), os.path.expanduser("~")
        if _within(value, here):
            value = os.path.relpath(value, here)
        elif home != "/" and _within(value, home):
            value = os.path.join("~", os.path.relpath(value, home))
    value = re.sub(r"/(home|Users)/[^/\s]+", "~", value)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no passwd entry, as in some containers
        user = ""
    if user:
        value = "/".join("USER" if part == user else part for part in value.split("/"))
    return flag + equals + value


def _within(path: str, folder: str) -> bool:
    return os.path.commonpath([os.path.normpath(path), folder]) == folder


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or "unknown"


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
