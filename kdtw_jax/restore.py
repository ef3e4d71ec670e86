"""A finished run's configuration, from what its folder keeps."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from pathlib import Path
from typing import Any, TypeVar, get_args

from kdtw_jax.config import Experiment
from kdtw_jax.errors import UserError, told_of
from kdtw_jax.methods import HOW, METHODS
from kdtw_jax.runs.atomic import read_json as read_json
from kdtw_jax.runs.folder import SETTINGS, flatten

T = TypeVar("T")


def restore(run: Path) -> tuple[str, Experiment]:
    """The task ("translation", "summarization") and configuration of the run in a folder, `out` being that folder,
    seeds and methods those that were begun there, and what only evaluation reads as it was the last time.

    No code is looked for by a name that the folder says: methods have to be registered. Raises UserError where there is
    no run, where one of its methods is not registered, and where it does not say all that a run depends on.
    """
    run = Path(run)
    plain = read_json(run / "config.json", f"{run} is not a run's folder")
    if missing := [name for name in ("task", "teacher_seed") if name not in plain]:
        raise UserError(f"{run} is not a run's folder: its config.json does not say {', '.join(missing)}")
    task, seed = plain.pop("task"), plain.pop("teacher_seed")
    stages = run / "stages"
    begun: dict[str, list[Path]] = {}
    for path in sorted(stages.glob("seed*/*.config.json")):
        begun.setdefault(path.name.removesuffix(".config.json"), []).append(path)
    if unknown := sorted(set(begun) - set(METHODS)):
        raise UserError(f"{run} has students of the method {unknown[0]}, which nobody has registered here: {HOW}")
    claimed = {m: read_json(begun[m][0], f"{run} has no {m}") for m in METHODS if m in begun}
    own = {method: stage.pop(method, {}) for method, stage in claimed.items()}
    beams = tuple(method for method, stage in claimed.items() if stage.pop("targets", "") == "beam")
    settings = read_json(run / SETTINGS, "") if (run / SETTINGS).exists() else {}
    for stage in claimed.values():  # what a method has learned from is what it was then
        settings |= flatten(stage)
    for name, value in settings.items():
        *parents, last = name.split(".")
        place = own if parents and parents[0] in METHODS else plain
        functools.reduce(lambda values, part: values.setdefault(part, {}), parents, place)[last] = value
    seeds = {int(path.parent.name.removeprefix("seed")) for found in begun.values() for path in found}
    seeds.discard(seed)  # the first, which the teacher was trained with
    plain |= {"methods": list(claimed), "beam_targets": beams} if claimed else {}
    with told_of(f"{run} cannot be restored"):
        plain["settings"] = {method: revive(METHODS[method].config, said) for method, said in own.items()}
        return task, revive(Experiment, {**plain, "seeds": (seed, *sorted(seeds)), "out": str(run)})


def revive(kind: type[T], plain: Any) -> T:
    """The inverse of `dataclasses.asdict` and JSON for nested dataclasses: fields that are left out keep their
    defaults. Raises UserError for fields that there are not, and where one without a default is left out."""
    revived: T = _revive(kind, plain)
    return revived


def _revive(kind: Any, plain: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        missing = [n for n, f in fields.items() if f.default is f.default_factory and n not in plain]  # both MISSING
        if wrong := [*(name for name in plain if name not in fields), *missing]:
            raise UserError(f"it is of another version: {wrong[0]} is {'missing' if missing else 'not known'}")
        return kind(**{name: _revive(hints[name], value) for name, value in plain.items()})  # type: ignore[operator]
    if isinstance(kind, types.UnionType):
        rest = [k for k in get_args(kind) if k is not type(None)]
        return None if plain is None else _revive(rest[0], plain)
    if typing.get_origin(kind) is tuple:
        return tuple(_revive(get_args(kind)[0], value) for value in plain)
    return kind(plain) if kind is Path else plain
