"""The folder of one run: one configuration, one writing process at a time, stages that are done once."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from kdtw_jax.errors import UserError
from kdtw_jax.hosts import first_alone, is_writer, wait
from kdtw_jax.runs.atomic import explained, parse_json, write_json, write_text

CONFIG = "config.json"
LOCK = ".lock"
SHOWN_DIFFERENCES = 3
# How a step is computed, not what comes of it: may be another one when a run goes on, wherever in its configuration.
# How outputs are scored is no part of it either: it stays as `kdtw_jax.prepare` chose it at first.
FREE = ("accumulate", "chunk", "fused_attention", "remat", "vocab_chunk", "bleu_tokenizer", "language")
# Options that came later, and what runs from before them did, which go on.
LATER = {"student_rows": 1.0, "reward_temperature": 1.0, "teacher_temperature": 1.0, "held_out": 0.05, "seed": 0}


class RunFolder:
    """A run's folder, locked for this process until `close` (or the end of the process, however it ends).

    Made by `open_run`. A stage is a named part of the run (say "teacher") that leaves its results in files;
    its marker, written last, says that they are complete.
    """

    def __init__(self, path: Path, lock: int | None):
        self.path = path
        self._lock = lock

    def done(self, stage: str) -> bool:
        return self._marker(stage).exists()

    def mark_done(self, stage: str, info: Mapping[str, Any] | None = None) -> None:
        """Marks `stage` complete, keeping `info` (JSON-able) for `info(stage)`.

        All processes have to call it: none of them sees the marker before, so that `done` says the same to all.
        """
        wait(f"ends {stage}")
        if is_writer():
            write_json(self._marker(stage), dict(info or {}))
        wait(f"ended {stage}")

    def info(self, stage: str) -> dict[str, Any]:
        """What `mark_done` kept. Raises UserError when the stage is not done."""
        if not self.done(stage):
            raise UserError(f"{self.path}: stage {stage!r} is not finished; run it first")
        return _read_json(self._marker(stage))

    def claim(self, stage: str, config: Mapping[str, Any]) -> None:
        """Binds `stage` to `config`, which is in addition to the run's: other stages may have others.

        Raises UserError when the stage was begun with another one.
        """
        path = self.path / "stages" / f"{stage}.config.json"
        first_alone(lambda: _bind(path, config, f"stage {stage} of {self.path}"), f"claim {stage}")

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # drops the lock; the file stays, since removing it would race with a waiter
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _marker(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"


def open_run(path: Path, config: Mapping[str, Any]) -> RunFolder:
    """Creates or re-opens the run folder `path` for exactly this `config` (JSON-able, may be nested).

    Raises UserError when the folder cannot be made or written, is a file or someone else's folder, is in
    use by another process, or holds a run of another configuration.
    """
    path = Path(path)
    return first_alone(lambda: _open(path, config), "open")


def _open(path: Path, config: Mapping[str, Any]) -> RunFolder:
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; a run needs a folder: choose another --out")
    with explained(path, "make the run folder"):
        path.mkdir(parents=True, exist_ok=True)
        visible = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    if visible and CONFIG not in visible:
        raise UserError(f"{path} holds other files and no {CONFIG}: choose another --out")
    lock = _lock(path) if is_writer() else None
    try:
        if is_writer():
            _probe(path)
        _bind(path / CONFIG, config, str(path))
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    return RunFolder(path, lock)


def _lock(path: Path) -> int:
    with explained(path):
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        holder = os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise UserError(f"{path} is in use by process {holder}: wait for it or choose another --out") from e
    except OSError:
        # A file system without locks (some network mounts): run unprotected rather than not at all.
        return lock
    with explained(path):
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def _probe(path: Path) -> None:
    """Finds a full disk or a read-only folder before hours are spent; mode bits say little, least to root."""
    write_text(path / ".probe", "x" * 4096)
    with explained(path):
        (path / ".probe").unlink()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with explained(path, "read"):
            return parse_json(path)
    except ValueError as e:
        raise UserError(f"{path} is damaged: {e}; delete the run folder or choose another --out") from e


def _bind(path: Path, config: Mapping[str, Any], what: str) -> None:
    """Writes `config` to `path`, or compares it with what is there."""
    wanted = json.loads(json.dumps(dict(config)))  # tuples become lists, as they will be when read back
    if path.exists():
        _compare(what, _read_json(path), wanted)
    else:
        write_json(path, wanted)


def _compare(what: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    old_flat, new_flat = _flatten(old), _flatten(new)
    for name in new_flat:
        if (option := name.rpartition(".")[2]) in LATER:
            old_flat.setdefault(name, LATER[option])
    bound = [n for n in {**old_flat, **new_flat} if n.rpartition(".")[2] not in FREE]
    names = [n for n in bound if old_flat.get(n, "(unset)") != new_flat.get(n, "(unset)")]
    if not names:
        return
    shown = "; ".join(
        f"{n} was {_show(old_flat.get(n, '(unset)'))}, now {_show(new_flat.get(n, '(unset)'))}"
        for n in names[:SHOWN_DIFFERENCES]
    )
    more = f" (and {len(names) - SHOWN_DIFFERENCES} more)" if len(names) > SHOWN_DIFFERENCES else ""
    raise UserError(
        f"{what} holds a run of another configuration: {shown}{more}; choose another --out or delete the folder"
    )


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            flat |= _flatten(item, f"{prefix}{name}.")
        else:
            flat[prefix + name] = item
    return flat


def _show(value: Any) -> str:
    return value if value == "(unset)" else json.dumps(value)
