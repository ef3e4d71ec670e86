"""A finished run's configuration, from what its folder keeps."""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
import typing
from pathlib import Path
from typing import Any, TypeVar, get_args

from kdtw_jax.config import Experiment, Method
from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import read_json as read_json
from kdtw_jax.runs.folder import SETTINGS, flatten

T = TypeVar("T")


def restore(run: Path) -> tuple[str, Experiment]:
    """The task ("translation", "summarization") and configuration of the run in a folder, `out` being that folder,
    seeds and methods those that were begun there, and what only evaluation reads as it was the last time.

    Raises UserError where there is no run.
    """
    run = Path(run)
    plain = read_json(run / "config.json", f"{run} is not a run's folder")
    if missing := [name for name in ("task", "teacher_seed") if name not in plain]:
        raise UserError(f"{run} is not a run's folder: its config.json does not say {', '.join(missing)}")
    task, seed = plain.pop("task"), plain.pop("teacher_seed")
    stages = run / "stages"
    begun = {m: sorted(stages.glob(f"seed*/{m}.config.json")) for m in get_args(Method)}
    claimed = {m: read_json(found[0], f"{run} has no {m}") if found else {} for m, found in begun.items()}
    plain |= {method: stage.pop(method, {}) for method, stage in claimed.items()}
    beams = tuple(method for method, stage in claimed.items() if stage.pop("targets", "") == "beam")
    settings = read_json(run / SETTINGS, "") if (run / SETTINGS).exists() else {}
    for stage in claimed.values():  # what a method has learned from is what it was then
        settings |= flatten(stage)
    for name, value in settings.items():
        *parents, last = name.split(".")
        functools.reduce(operator.getitem, parents, plain)[last] = value
    seeds = {int(path.parent.name.removeprefix("seed")) for found in begun.values() for path in found}
    seeds.discard(seed)  # the first, which the teacher was trained with
    config = revive(Experiment, plain)
    methods = tuple(method for method, found in begun.items() if found)
    config = dataclasses.replace(config, out=run, seeds=(seed, *sorted(seeds)), methods=methods or config.methods)
    return task, dataclasses.replace(config, beam_targets=beams)


def revive(kind: type[T], plain: Any) -> T:
    """The inverse of `dataclasses.asdict` and JSON for nested dataclasses: fields that are left out keep their
    defaults."""
    revived: T = _revive(kind, plain)
    return revived


def _revive(kind: Any, plain: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _revive(hints[name], value) for name, value in plain.items()})  # type: ignore[operator]
    if isinstance(kind, types.UnionType):
        rest = [k for k in get_args(kind) if k is not type(None)]
        return None if plain is None else _revive(rest[0], plain)
    if typing.get_origin(kind) is tuple:
        return tuple(_revive(get_args(kind)[0], value) for value in plain)
    return kind(plain) if kind is Path else plain
