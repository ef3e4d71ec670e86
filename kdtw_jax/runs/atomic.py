"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdtw_jax.errors import UserError


@contextlib.contextmanager
def explained(path: Path, doing: str = "write") -> Iterator[None]:
    """Turns an `OSError` (full disk, read-only folder) into a `UserError` naming `path`."""
    try:
        yield
    except OSError as e:
        remedy = "name a readable file" if doing == "read" else "free the space or choose a writable place"
        raise UserError(f"cannot {doing} {path}: {e.strerror or e}; {remedy}") from e


def write_text(path: Path, text: str) -> None:
    """Writes `text` (UTF-8) to `path` through a temporary file beside it, creating the parent folders.

    Raises UserError when the file system refuses; an older file at `path` is then untouched.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name starts with a dot so that a temporary file left by a kill is never taken for a result.
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("x", encoding="utf-8", newline="") as f:
                f.write(text)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes `value` as indented JSON, atomically. Raises UserError as `write_text` does."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
