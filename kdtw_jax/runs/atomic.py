"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from kdtw_jax.errors import UserError
from kdtw_jax.parallel.hosts import is_writer


@contextlib.contextmanager
def explained(path: Path, doing: str = "write") -> Iterator[None]:
    """Turns an `OSError` (full disk, read-only folder) into one line.

    Raises:
      UserError: in place of the `OSError`; names `path`.
    """
    try:
        yield
    except OSError as e:
        remedy = "name a readable file" if doing == "read" else "free the space or choose a writable place"
        raise UserError(f"cannot {doing} {path}: {e.strerror or e}; {remedy}") from e


def write_text(path: Path, text: str) -> None:
    """Writes `text` (UTF-8) to `path` through a temporary file beside it, creating the parent folders.

    Of several processes only the first one writes, here and in `write_arrays` and `write_json`.

    Raises:
      UserError: the file system refuses; an older file at `path` is then untouched.
    """
    if is_writer():
        with _replacing(Path(path)) as f:
            f.write(text.encode("utf-8"))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays of numbers as .npz, atomically.

    Raises:
      UserError: as `write_text` does.
    """
    if is_writer():
        with _replacing(Path(path)) as f:
            np.savez(f, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads what `write_arrays` wrote.

    Raises:
      UserError: it cannot be read.
    """
    try:
        with explained(path, "read"), np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise UserError(f"{path} is damaged ({e}); delete it and run again") from e


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when it is complete."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name starts with a dot so that a temporary file left by a kill is never taken for a result.
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("xb") as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def parse_json(path: Path) -> dict[str, Any]:
    """Reads the JSON object in a file.

    Raises:
      OSError: it cannot be read.
      ValueError: as `parse_object` does.
    """
    return parse_object(path.read_bytes())


def parse_object(content: bytes) -> dict[str, Any]:
    """Reads the JSON object that `content` is.

    Raises:
      ValueError: it is anything else; says so in a few words.
    """
    try:
        value = json.loads(content.decode("utf-8-sig"))  # Windows writes a mark before it
    except UnicodeDecodeError:
        raise ValueError("not JSON in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON from line {error.lineno} on") from None
    except RecursionError:
        raise ValueError("not JSON of any use: it is nested too deeply") from None
    except ValueError:
        raise ValueError("not JSON of any use: it has a number of thousands of digits") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def read_json(path: Path, otherwise: str) -> dict[str, Any]:
    """Reads the JSON object in a file.

    Raises:
      UserError: there is no such file, in words that begin with `otherwise`; it cannot be read, or holds anything else.
    """
    if not path.exists():
        raise UserError(f"{otherwise}: there is no {path}")
    try:
        with explained(path, "read"):
            return parse_json(path)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; fetch or write it again") from None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes `value` as indented JSON, atomically.

    Raises:
      UserError: as `write_text` does.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
