"""Which fields of nested configurations are flags of a command line, and such a command line.

A field says so in its metadata: of one with `flags()` there is no flag, nor of what is below it; of a field that is a
configuration, `flags("a", "b.c")` has flags of those fields of it alone. What has no flag is for Python.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from kdtw_jax.errors import placed

_KEY = "flags"


def flags(*names: str) -> Mapping[str, tuple[str, ...]]:
    """Metadata of a field."""
    return {_KEY: names}


class Section(NamedTuple):
    """A configuration that a command line takes beside the main one."""

    help: str
    default: Any
    listed: Sequence[str]  # its fields that are flags; none: all whose metadata do not say otherwise


def command_line(
    default: Any,
    sections: Mapping[str, Section],
    types: Mapping[str, Any],
    description: str | None,
    arguments: Sequence[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what the arguments change of `default` and of `sections`.

    Args:
      default: a dataclass; fields whose values are dataclasses are sections of flags.
      sections: further dataclasses, named as if they were fields of `default`.
      types: of fields of `default` for which the annotated type is too wide.

    Ends the program with status 2 for unknown flags and malformed values; raises what dataclasses of sections raise.
    """
    import tyro

    whole = _mirror(type(default), (), types)
    kinds = {name: _mirror(type(section.default), section.listed) for name, section in sections.items()}
    helped = [
        (name, Annotated[kinds[name], tyro.conf.arg(help=section.help)], dataclasses.field())
        for name, section in sections.items()
    ]
    space: dict[str, Any] = {"__doc__": type(default).__doc__, "__post_init__": _unchecked}
    every = dataclasses.make_dataclass("Options", helped, bases=(whole,), frozen=True, kw_only=True, namespace=space)
    given = {field.name: _mirrored(field.type, getattr(default, field.name)) for field in dataclasses.fields(whole)}
    given |= {name: _mirrored(kinds[name], section.default) for name, section in sections.items()}
    found = tyro.cli(every, default=every(**given), description=description, args=arguments)
    own = {field.name: _plain(getattr(found, field.name), field.name) for field in dataclasses.fields(default)}
    return own, {name: _plain(getattr(found, name), name) for name in sections}


def optional(kind: type) -> type:
    """A dataclass's fields and their words for a command line, None where nothing is said of them."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = [
        (field.name, hints[field.name] | None, dataclasses.field(default=None)) for field in dataclasses.fields(kind)
    ]
    return dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True, namespace=_place(kind))


def _mirror(kind: Any, listed: Sequence[str], types: Mapping[str, Any] = {}) -> type:
    """A subclass whose annotations say what is a flag, and which checks nothing."""
    import tyro

    hints = {**typing.get_type_hints(kind, include_extras=True), **types}
    fields = []
    for field in dataclasses.fields(kind):
        hint, below = hints[field.name], field.metadata.get(_KEY)
        parts = [name.partition(".")[2] for name in listed if name.partition(".")[0] == field.name]
        if below == () or (listed and not parts):
            hint = Annotated[hint, tyro.conf.Suppress]
        elif dataclasses.is_dataclass(hint):
            hint = _mirror(hint, [part for part in parts if part] or below or ())
        fields.append((field.name, hint, dataclasses.field()))
    space = {**_place(kind), "_of": kind}
    return dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True, kw_only=True, namespace=space)


def _place(kind: type) -> dict[str, Any]:
    """Of a subclass found in the place of the original by whoever reads comments for help, and which checks nothing."""
    names = ("__module__", "__qualname__", "__doc__")
    return {**{name: getattr(kind, name) for name in names}, "__post_init__": _unchecked}


def _unchecked(self: Any) -> None:
    """What a mirror holds is checked when it becomes what it mirrors."""


def _mirrored(kind: Any, value: Any) -> Any:
    if not hasattr(kind, "_of"):
        return value
    return kind(**{f.name: _mirrored(f.type, getattr(value, f.name)) for f in dataclasses.fields(kind)})


def _plain(value: Any, name: str) -> Any:
    if not hasattr(value, "_of"):
        return value
    values = {f.name: _plain(getattr(value, f.name), f"{name}.{f.name}") for f in dataclasses.fields(value)}
    with placed(name, values):
        return value._of(**values)
