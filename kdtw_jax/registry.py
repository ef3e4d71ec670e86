"""Dictionaries of entries by name, to which users add their own."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from kdtw_jax.errors import NotRegistered, UserError

T = TypeVar("T")


class Registry(dict[str, T]):
    """Entries of one kind by name: those of the package, and those that users add.

    Attributes:
      kind: what an entry is, for messages.
      how: how one is added.
      group: of the entry points by which installed packages add theirs.
    """

    def __init__(
        self,
        entries: Mapping[str, T],
        *,
        kind: str,
        group: str,
        how: str,
        expected: Any,
        register: Callable[[str, Any], object],
    ) -> None:
        """
        Args:
          entries: those of the package.
          how: the call that adds one.
          expected: the type of what an entry point names.
          register: makes that call with the entry point's name and what it names.
        """
        super().__init__(entries)
        self.kind, self.group, self.how = kind, group, f"{how}, or a package with entry points {group},"
        self._expected, self._register = expected, register

    def add(self, name: str, entry: T) -> T:
        """Adds an entry; once more is no other one.

        Raises:
          UserError: another one has its name.
        """
        if self.setdefault(name, entry) is not entry:
            raise UserError(f"there is a {self.kind} {name} already; give yours another name")
        return entry

    def find(self, name: object) -> T:
        """The entry of a name.

        Raises:
          NotRegistered: it is none's.
        """
        if not isinstance(name, str) or name not in self:
            known = ", ".join(self)
            raise NotRegistered(f"unknown {self.kind} {reprlib.repr(name)}; known are {known}; {self.how} adds another")
        return self[name]

    def load_installed(self) -> None:
        """Registers what installed packages add, in order of the names of their entry points: for command lines.

        Raises:
          UserError: one cannot be loaded, is no entry, or has another one's name.
        """
        for point in sorted(entry_points(group=self.group)):
            try:
                found = point.load()
            except Exception as error:
                raise UserError(f"cannot load the {self.kind} {point.name} from {point.value}: {error}") from error
            if not isinstance(found, self._expected):
                wanted = f"the entry point {point.name} of {self.group} must name a {self._expected.__name__}"
                raise UserError(f"{wanted}, {point.value} is none")
            self._register(point.name, found)
