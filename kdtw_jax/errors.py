"""The one exception that means "the user can fix this"."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """Bad input; the message is one line that says what was wrong and what would be right."""


class NotRegistered(UserError):
    """A name that no entry has, where users may add their own."""


class Unreachable(Exception):
    """What was waited for did not come; nothing is wrong with the input, and the same command goes on later."""


@contextlib.contextmanager
def placed(name: str, fields: Iterable[str]) -> Iterator[None]:
    """Puts the whole dotted name before a UserError that begins with a part of it.

    Args:
      name: of a group of options, as in "training.loop"; errors of it may begin with "loop.steps", or with "steps".
      fields: of the group.
    """
    try:
        yield
    except UserError as error:
        said, last = str(error), name.rpartition(".")[2]
        first = said.partition(" ")[0]
        if not name or first.startswith(f"{name}."):
            raise
        if first.startswith(f"{last}."):
            raise type(error)(name.removesuffix(last) + said) from None
        if first.rstrip(",") in fields:
            raise type(error)(f"{name}.{said}") from None
        raise


@contextlib.contextmanager
def told_of(file: object) -> Iterator[None]:
    """Puts the name of a file before what a UserError says of its content, unless that begins so."""
    try:
        yield
    except UserError as error:
        if str(error).startswith(str(file)):
            raise
        raise type(error)(f"{file}: {error}") from None
