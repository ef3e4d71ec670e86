"""Standard output, also one that nobody reads any more."""

from __future__ import annotations

import contextlib
import os
import sys

from kdtw_jax.errors import UserError


def drop_output() -> None:
    """Sends what is left to nowhere: Python would try to write it when it ends, and complain."""
    with contextlib.suppress(OSError, ValueError):  # no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def put(line: str) -> None:
    """Writes one line on standard output.

    Raises:
      UserError: it cannot be written to, or there is none.
      BrokenPipeError: nobody reads on.
    """
    if sys.stdout is None:
        raise UserError("there is no standard output to write to")
    try:
        print(line, flush=True)
    except OSError as error:
        drop_output()
        if isinstance(error, BrokenPipeError):
            raise
        raise UserError(f"cannot write to standard output: {error.strerror or error}") from error
