"""Dictionaries of entries by name, to which users add their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from kdtw_jax.errors import NotRegistered, UserError

T = TypeVar("T")


def add(entries: dict[str, T], name: str, entry: T, kind: str) -> T:
    """Adds an entry. Raises UserError where another one has its name."""
    if entries.setdefault(name, entry) is not entry:
        raise UserError(f"there is a {kind} {name} already; give yours another name")
    return entry


def find(entries: Mapping[str, T], name: str, kind: str, how: str) -> T:
    """The entry of a name; `how` says how one is added. Raises NotRegistered for a name that is none's."""
    if name not in entries:
        raise NotRegistered(f"unknown {kind} {name!r}; known are {', '.join(entries)}; {how} adds another")
    return entries[name]


def load_group(group: str, kind: str) -> Iterator[tuple[object, EntryPoint]]:
    """What the entry points of installed packages name, in order of their names: for command lines. Raises UserError
    where it cannot be loaded."""
    for entry in sorted(entry_points(group=group)):
        try:
            found = entry.load()
        except Exception as error:
            raise UserError(f"cannot load the {kind} {entry.name} from {entry.value}: {error}") from error
        yield found, entry
