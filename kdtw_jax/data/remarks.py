"""What is worth knowing of a user's data and no reason to stop: a line on standard error."""

from __future__ import annotations

import sys

from kdtw_jax.parallel.hosts import is_writer


def remark(line: str) -> None:
    """Says it once, however many processes there are."""
    if is_writer():
        print(line, file=sys.stderr, flush=True)
