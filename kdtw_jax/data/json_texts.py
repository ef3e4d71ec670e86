"""Texts from JSON: an object a line, or an array of objects."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kdtw_jax.data.lines import kind, lines_of_file
from kdtw_jax.data.remarks import remark
from kdtw_jax.errors import UserError
from kdtw_jax.text.normal import is_blank

_SPACE = re.compile(r"[ \t\n\r]*")
_ONE_A_LINE = "write one object a line (as jq -c . does), or one array of objects"
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN_KEYS, _SHOWN_LETTERS = 8, 40


class _Repeated(Exception):
    """A key that an object has twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Repeated(next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1))
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def is_json(path: Path) -> bool:
    """Whether the name of a file says so."""
    return kind(path) in (".jsonl", ".jl", ".ndjson", ".json")


def json_texts(path: Path, keys: Sequence[str]) -> list[tuple[str, ...]]:
    """The texts that every object has under the keys, as they are but for halves of surrogate pairs.

    Those are no characters, and nothing could write them: each becomes U+FFFD, and a line on standard error says so.

    Raises:
      UserError: as `lines_of_file` does; or, naming the line, an empty one, bad JSON, or an object without the texts.
    """
    lines = lines_of_file(path)
    first = next((line for line in lines if line.strip()), "")
    is_array = first.lstrip().startswith("[")
    values = _of_array("\n".join(lines), path) if is_array else _of_lines(lines, path)
    found, mended = [], []
    for number, value in values:
        texts = _texts(value, f"{path} line {number}", keys)
        whole = [_SURROGATE.sub("\ufffd", text) for text in texts]
        mended += [number] * sum(a != b for a, b in zip(texts, whole, strict=True))
        found.append(tuple(whole))
    if not found:
        raise UserError(f"{path}: the array is empty; it needs objects with {_named(keys)}")
    if mended:
        remark(
            f"{path} line {mended[0]}: half of a surrogate pair is no character; "
            f"U+FFFD stands for such halves in {len(mended)} of the texts in that file"
        )
    return found


def _of_lines(lines: list[str], path: Path) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise UserError(f"{path} line {number}: the line is empty; remove it or fill it")
        value, end = _value(line, _space(line, 0), path, number, lines_before=number - 1)
        if end != len(line):
            raise UserError(f"{path} line {number}: not valid JSON (extra text at column {end + 1}); {_ONE_A_LINE}")
        yield number, value


def _of_array(text: str, path: Path) -> Iterator[tuple[int, object]]:
    """Items and their lines. Read one by one, so that the line of a bad one is known."""
    at = _space(text, text.index("[") + 1)
    line, counted = 1, 0
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, at = _value(text, at, path, line)
        yield line, value
        if text[at : at + 1] == ",":
            at = _space(text, at + 1)
        elif text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            raise UserError(f"{path} line {line}: not valid JSON (no comma or ] after an item of the array); mend it")
    if _space(text, at + 1) != len(text):
        raise UserError(f"{path}: there is more after the array; {_ONE_A_LINE}")


def _value(text: str, at: int, path: Path, line: int, lines_before: int = 0) -> tuple[object, int]:
    """The value that begins there, and where the next begins. `line` is its own, `text` begins after `lines_before`."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as e:
        ends = e.pos < len(text.rstrip())  # no object that is spread over lines
        reason = f"{e.msg} at column {e.colno}" if ends else "it does not end there"
        raise UserError(f"{path} line {lines_before + e.lineno}: not valid JSON ({reason}); {_ONE_A_LINE}") from None
    except _Repeated as e:
        raise UserError(f"{path} line {line}: the key {_shown(str(e))!r} stands twice in an object; keep one") from None
    except RecursionError:
        raise UserError(f"{path} line {line}: brackets are nested too deeply; write an object of two texts") from None
    except ValueError as e:  # a number of too many digits
        reason = str(e).partition(";")[0]
        raise UserError(f"{path} line {line}: cannot be read ({reason}); write an object of two texts") from None
    return value, _space(text, end)


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # it may be empty
    return found.end()


def _texts(record: Any, where: str, keys: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(record, dict):
        raise UserError(f"{where}: not a JSON object; write objects with {_named(keys)}")
    for key in keys:
        value = record.get(key)
        if key in record and not isinstance(value, str):
            found = "null" if value is None else "an object" if isinstance(value, dict) else json.dumps(value)
            raise UserError(f"{where}: {key!r} is {_shown(found)}, and must be a text, in quotes")
        if value is None or is_blank(value):
            names = [_shown(name) for name in [*record][:_SHOWN_KEYS]]
            have = ", ".join([*names, "..."] if len(record) > _SHOWN_KEYS else names) or "no keys"
            raise UserError(f"{where}: {key!r} must be a text that is not empty; the object has {have}")
    return tuple(record[key] for key in keys)


def _named(keys: Sequence[str]) -> str:
    return f"the key{'s' * (len(keys) > 1)} {' and '.join(keys)}"


def _shown(name: str) -> str:
    name = name if len(name) <= _SHOWN_LETTERS else name[:_SHOWN_LETTERS] + "..."
    return name if name.isprintable() else ascii(name)
