"""A finished run's configuration, from what its folder keeps."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from kdtw_jax.data.rule_place import without_how_read
from kdtw_jax.errors import NotRegistered, UserError, placed
from kdtw_jax.methods import METHODS
from kdtw_jax.models import find_family
from kdtw_jax.pipeline.config import ELSEWHERE, Experiment
from kdtw_jax.pipeline.teacher_cache import CACHE_STAGE
from kdtw_jax.runs.atomic import read_json as read_json
from kdtw_jax.runs.folder import SETTINGS, flatten

T = TypeVar("T")
_SHOWN = 60  # characters of a value that is refused


def restore(run: Path) -> tuple[str, Experiment]:
    """The task ("translation", "summarization") and configuration of the run in a folder.

    `out` is that folder, seeds and methods are those that were begun there, and what only evaluation reads is as it was
    the last time. No code is looked for by a name that the folder says: methods have to be registered.

    Raises:
      UserError: there is no run, one of its methods is not registered, or its files say what is no configuration.
    """
    run = Path(run)
    plain = read_json(run / "config.json", f"{run} is not a run's folder")
    needed = {"task": str, "teacher_seed": int}
    if missing := [name for name, kind in needed.items() if not isinstance(plain.get(name), kind)]:
        raise UserError(f"{run} is not a run's folder: its config.json does not say {', '.join(missing)}")
    task, seed = plain.pop("task"), plain.pop("teacher_seed")
    if plain.get("teacher_cache"):
        labels = read_json(run / "stages" / f"{CACHE_STAGE}.json", f"{run} has not begun to train students")
        plain["teacher_cache"] = labels.get("folder", False)
    if plain.get("teacher_model") == ELSEWHERE:
        labels = read_json(run / "stages" / f"{CACHE_STAGE}.json", f"{run} has not begun to train students")
        plain["teacher_model"] = labels.get("address", False)
    begun: dict[str, dict[int, Path]] = {}
    for path in sorted((run / "stages").glob("seed*/*.config.json")):
        if (number := path.parent.name.removeprefix("seed")).isdecimal():
            begun.setdefault(path.name.removesuffix(".config.json"), {})[int(number)] = path
    if unknown := sorted(set(begun) - set(METHODS)):
        raise UserError(
            f"{run} has students of the method {unknown[0]}, which nobody has registered here: {METHODS.how} adds it"
        )
    claimed = {m: read_json(next(iter(begun[m].values())), f"{run} has no {m}") for m in METHODS if m in begun}
    claimed = {method: without_how_read(stage) for method, stage in claimed.items()}
    own = {method: stage.pop(method, {}) for method, stage in claimed.items()}
    if own.get("ask"):  # a run that does not say what it counts is older than words
        own["ask"] = {"unit": "token", **own["ask"]}
    beams = [method for method, stage in claimed.items() if stage.pop("targets", "") == "beam"]
    if (run / SETTINGS).exists():
        plain["eval"] = read_json(run / SETTINGS, "")
    for stage in claimed.values():  # what a method has learned from is what it was then
        stage.pop("start", None)  # what another method's students are is said by that one
        for name, value in flatten(stage).items():
            _put(plain, name, value)
    others = {number for found in begun.values() for number in found if number != seed}
    # The first seed is the one that the teacher was trained with.
    plain |= {"out": str(run), "seeds": [seed, *sorted(others)]}
    plain |= {"methods": list(claimed), "beam_targets": beams} if claimed else {}
    try:
        settings = {method: revive(METHODS[method].config, said, method) for method, said in own.items()}
        return task, dataclasses.replace(revive_experiment(plain), settings=settings)
    except NotRegistered as error:
        raise UserError(f"{run} was begun with what nobody has registered here: {error}") from None
    except UserError as error:
        raise UserError(
            f"what the run in {run} was begun with cannot be read: {error}; its files are damaged or of another version"
        ) from None


def revive_experiment(plain: Mapping[str, Any]) -> Experiment:
    """A configuration whose models are of the family that it names.

    Raises:
      UserError: as `revive` does, and for a family that nobody has registered.
    """
    family = find_family(plain.get("family", "t5"))
    made = {name: revive(family.config, plain[name], name) for name in ("teacher", "student") if name in plain}
    return revive(Experiment, {**plain, **made})


def revive(kind: type[T], plain: Any, name: str = "") -> T:
    """Makes a nested dataclass of its plain values: the inverse of `dataclasses.asdict` and JSON.

    Fields that are left out keep their defaults, and a value that is a dataclass already is taken. It is done
    by hand because cattrs 26 takes true and 1.5 for a count of 1 and has a tree of exceptions, without the value, for
    what is wrong.

    Args:
      name: what stands before the names of fields in messages.

    Raises:
      UserError: a value is none of its field's, or a field is none or not there; with the dotted name.
    """
    revived: T = _revive(kind, plain, name)
    return revived


def _revive(kind: Any, plain: Any, name: str) -> Any:
    if dataclasses.is_dataclass(plain):
        return plain
    if isinstance(kind, types.UnionType):
        rest = [k for k in get_args(kind) if k is not type(None)]
        return None if plain is None else _revive(rest[0], plain, name)
    if dataclasses.is_dataclass(kind) and isinstance(plain, dict):
        hints, prefix = typing.get_type_hints(kind), f"{name}." if name else ""
        if unknown := plain.keys() - hints.keys():
            raise UserError(f"{prefix}{min(unknown)} is no option")
        values = {own: _revive(hints[own], value, prefix + own) for own, value in plain.items()}
        for field in dataclasses.fields(kind):
            if field.default is field.default_factory is dataclasses.MISSING and field.name not in values:
                raise UserError(f"{prefix}{field.name} is not said")
        with placed(name, hints):
            return kind(**values)  # type: ignore[operator]
    if typing.get_origin(kind) is tuple and isinstance(plain, list):
        return tuple(_revive(get_args(kind)[0], value, name) for value in plain)
    if kind is Path and isinstance(plain, str):
        return Path(plain)
    if typing.get_origin(kind) is typing.Literal:
        fits = plain in get_args(kind)
    else:
        fits = type(plain) in ((int, float) if kind is float else (kind,))
    if not fits:
        raise UserError(f"{name} cannot be {json.dumps(plain, default=str)[:_SHOWN]}; it must be {_wanted(kind)}")
    return plain


def _wanted(kind: Any) -> str:
    """What a value of a kind is, in words."""
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if typing.get_origin(kind) is tuple:
        return f"a list, of which each must be {_wanted(get_args(kind)[0])}"
    if dataclasses.is_dataclass(kind):
        return "a group of options"
    words = {int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(kind, "a text, in quotes where it looks like something else")


def _put(plain: Any, name: str, value: Any) -> None:
    """Sets what a dotted name stands for in nested values; where they have no such place, makes one."""
    *parents, last = name.split(".")
    for parent in parents:
        if isinstance(plain, dict):
            plain = plain.setdefault(parent, {})
    if isinstance(plain, dict):  # what is no group of options is refused with them
        plain[last] = value
