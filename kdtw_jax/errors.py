"""The one exception that means "the user can fix this"."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """Bad input; the message is one line that says what was wrong and what would be right."""


class NotRegistered(UserError):
    """A name that no entry has, where users may add their own."""


@contextlib.contextmanager
def told_of(file: object) -> Iterator[None]:
    """Puts the name of a file before what a UserError says of its content, unless that begins so."""
    try:
        yield
    except UserError as error:
        if str(error).startswith(str(file)):
            raise
        raise type(error)(f"{file}: {error}") from None
