"""The folder of one run: one configuration, one writing process at a time, stages that are done once.

A configuration binds a folder, or a stage of it, once there is something to lose: a model, a checkpoint, outputs, a
stage that is done. Until then another one takes its place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock

from kdtw_jax.errors import UserError
from kdtw_jax.parallel.hosts import first_alone, is_writer, wait
from kdtw_jax.runs.atomic import explained, parse_json, write_json, write_text
from kdtw_jax.runs.lock import LOCK, take_lock
from kdtw_jax.runs.metrics_log import FILE as METRICS

CONFIG = "config.json"
SETTINGS = "judging.json"  # the settings of the newest evaluation
REPEAT = "run.yaml"  # what repeats the run
VOCABULARY = "tokenizer.model"
LOGS = ("tensorboard", "wandb")  # folders of trackers
SHOWN_DIFFERENCES = 3
# How a step is computed, not what comes of it: may be another one when a run goes on, wherever in its configuration.
# How outputs are scored is no part of it either: it stays as `kdtw_jax.pipeline.prepare` chose it at first.
FREE = ("accumulate", "chunk", "fused_attention", "remat", "vocab_chunk")


class RunFolder:
    """A run's folder, locked for this process until `close` (or the end of the process, however it ends).

    Made by `open_run`. A stage is a named part of the run (say "teacher") that leaves its results in files;
    its marker, written last, says that they are complete.
    """

    def __init__(self, path: Path, lock: FileLock | None):
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
        """Reads what `mark_done` kept.

        Raises:
          UserError: the stage is not done.
        """
        if not self.done(stage):
            raise UserError(f"{self.path}: stage {stage!r} is not finished; run it first")
        return _read_json(self._marker(stage))

    def claim(self, stage: str, config: Mapping[str, Any]) -> None:
        """Binds `stage` to `config`, which is in addition to the run's: other stages may have others.

        Raises:
          UserError: the stage has something to lose that another configuration left there.
        """
        path = self.path / "stages" / f"{stage}.config.json"
        marker = self._marker(stage)
        held = (self.path / stage, marker, marker.with_suffix(""))

        def bind() -> None:
            old = flatten(_read_json(path)) if path.exists() else None
            _bind(path, _plain(config), old, held, f"stage {stage} of {self.path}")

        first_alone(bind, f"claim {stage}")

    def begun(self) -> bool:
        """Whether there is something to lose."""
        return any(_worth_keeping(entry) for entry in self._made())

    def forget(self) -> None:
        """Removes what was made of the text, where nothing is there to lose."""
        if not self.begun():
            _remove(self._made())

    def _made(self) -> list[Path]:
        return [entry for entry in self.path.iterdir() if not entry.name.startswith(".") and entry.name != CONFIG]

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()  # the file stays, since removing it would race with a waiter
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

    A run of another configuration that has nothing to lose yet is replaced.

    Raises:
      UserError: the folder cannot be made or written, is a file or someone else's folder, is in use by another process,
        or holds a run of another configuration that has something to lose.
    """
    path = Path(path)
    return first_alone(lambda: _open(path, config), "open")


def check_run(path: Path, config: Mapping[str, Any]) -> None:
    """Refuses what `open_run` would refuse of a folder that is there already; makes and removes nothing in it.

    Raises:
      UserError: as `open_run` does.
    """
    path = Path(path)

    def check() -> None:
        visible = _visible(path)
        ours = (path / LOCK).exists()
        if ours and is_writer():
            take_lock(path).release()
        _replaces(_plain(config), *_found(path, visible, ours), str(path))

    first_alone(check, "check the run folder")


def _open(path: Path, config: Mapping[str, Any]) -> RunFolder:
    visible = _visible(path)
    with explained(path, "make the run folder"):
        path.mkdir(parents=True, exist_ok=True)
    ours = (path / LOCK).exists()  # a folder with somebody else's config.json has none
    lock = take_lock(path) if is_writer() else None
    try:
        if is_writer():
            _probe(path)
        _bind(path / CONFIG, _plain(config), *_found(path, visible, ours), str(path))
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    return RunFolder(path, lock)


def _visible(path: Path) -> list[Path]:
    """What is in a folder that can be a run's: nothing, or a configuration and more."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; a run needs a folder: choose another --out")
    with explained(path, "make the run folder"):
        entries = sorted(path.iterdir()) if path.exists() else []
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    if visible and path / CONFIG not in visible:
        raise UserError(f"{path} holds other files and no {CONFIG}: choose another --out")
    return visible


def _found(path: Path, visible: Collection[Path], ours: bool) -> tuple[dict[str, Any] | None, tuple[Path, ...]]:
    """The configuration of a folder, flat, and what was made under it."""
    old = flatten(_read_json(path / CONFIG)) if path / CONFIG in visible else None
    return old, tuple(entry for entry in visible if entry.name != CONFIG) if ours else (path / CONFIG,)


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


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """As it will be when read back: tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(config)))
    return plain


def _replaces(wanted: dict[str, Any], old: dict[str, Any] | None, held: Collection[Path], what: str) -> bool:
    """Whether `wanted` says other than an `old` one (flat); refused where what was made under that is worth keeping."""
    differences = "" if old is None else _differences(old, flatten(wanted))
    if differences and any(map(_worth_keeping, held)):
        raise UserError(
            f"{what} holds a run of another configuration: {differences}; choose another --out or delete the folder"
        )
    return bool(differences)


def _bind(path: Path, wanted: dict[str, Any], old: dict[str, Any] | None, held: Collection[Path], what: str) -> None:
    """Writes `wanted` to `path` unless an `old` one (flat) says the same.

    `held` is what was made under the old one. Where it is worth nothing it goes first: after a kill in between the old
    one stands.
    """
    if _replaces(wanted, old, held, what):
        _remove(held)
    elif path.exists():
        return
    write_json(path, wanted)


def _worth_keeping(place: Path) -> bool:
    """Whether anything under a place of a run's folder took longer than to read the text: a model, a checkpoint,
    outputs, the marker of a stage. Logs, vocabulary, the marker of the text and configurations can be made again."""
    if place.is_file():
        again = (VOCABULARY, SETTINGS, REPEAT, METRICS, "data.json")
        return place.name not in again and not place.name.endswith(".config.json")
    return any(
        not entry.name.startswith(".")
        and entry.name not in LOGS
        and not entry.name.endswith(".orbax-checkpoint-tmp")
        and _worth_keeping(entry)
        for entry in (place.iterdir() if place.is_dir() else ())
    )


def _remove(places: Collection[Path]) -> None:
    if is_writer():
        for place in places:
            with explained(place, "remove"):
                if place.is_dir():
                    shutil.rmtree(place)
                else:
                    place.unlink(missing_ok=True)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first differences of two flat configurations, in words; empty where there are none."""
    bound = [n for n in {**old, **new} if n.rpartition(".")[2] not in FREE]
    names = [n for n in bound if old.get(n, "(unset)") != new.get(n, "(unset)")]
    shown = "; ".join(
        f"{n} was {_show(old.get(n, '(unset)'))}, now {_show(new.get(n, '(unset)'))}" for n in names[:SHOWN_DIFFERENCES]
    )
    more = f" (and {len(names) - SHOWN_DIFFERENCES} more)" if len(names) > SHOWN_DIFFERENCES else ""
    return shown + more


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            flat |= flatten(item, f"{prefix}{name}.")
        else:
            flat[prefix + name] = item
    return flat


def _show(value: Any) -> str:
    return value if value == "(unset)" else json.dumps(value)
