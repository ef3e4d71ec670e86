"""Lines of text from and to the outside: any bytes come in, any encoding goes out."""

from __future__ import annotations

import codecs
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from kdtw_jax.errors import UserError

LONGEST = 1 << 18  # bytes of a line that are read
_BOM = "\ufeff".encode()
_MARKS = {  # UTF-32 begins as UTF-16 does
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # surrogates that do not stand for a byte
Remark = Callable[[int, str, str], None]  # a line's number from 1, a kind of remark, what there is to say


def read_lines(stream: BinaryIO, remark: Remark, *, longest: int = LONGEST) -> Iterator[str]:
    """The lines of UTF-8 text, ended by LF or CR LF, the last one perhaps by nothing; one at a time is in memory.

    A byte-order mark at the beginning is left out. Bytes that are not UTF-8 become U+FFFD, and of a line of more than
    `longest` bytes the rest is passed over; `remark` is told of both.

    Raises:
      UserError: the text is UTF-16 or UTF-32, with a mark or without, or the stream cannot be read.
    """
    number, first = 0, b""
    while line := _read(stream, longest + 2):
        number += 1
        if number <= 2 and (encoding := _wide(first, line)):
            raise UserError(f"the text looks like {encoding}; convert it to UTF-8 (iconv -f {encoding} -t UTF-8)")
        if number == 1:
            first, line = line, line.removeprefix(_BOM)
        text = line.removesuffix(b"\n").removesuffix(b"\r")
        if cut := len(text) > longest:
            remark(number, "too long", f"only its first {longest} bytes are read")
            text = text[:longest]
            while line and not line.endswith(b"\n"):
                line = _read(stream, longest)
        try:
            yield codecs.getincrementaldecoder("utf8")().decode(text, final=not cut)
        except UnicodeDecodeError as error:
            remark(number, "not UTF-8", f"byte {error.start + 1} and others like it are read as U+FFFD")
            yield codecs.getincrementaldecoder("utf8")("replace").decode(text, final=not cut)


def _wide(first: bytes, line: bytes) -> str:
    """The encoding of two or four bytes a character that a text is in by its beginning, "" if it is in none.

    Args:
      first: the line before, if there is one.
      line: the first one, in which no zeros are expected, or the second one. In little endian that one begins with what
        belongs to the line feed: a zero, however many there are in the script.
    """
    if first and not line.startswith(b"\0"):
        return ""
    head = first + line
    if mark := next((mark for mark in _MARKS if head.startswith(mark)), None):
        return _MARKS[mark]
    if b"\0" not in head:
        return ""
    if head[:2] == b"\0\0" or head[2:4] == b"\0\0":  # half of a character
        return "UTF-32BE" if head[:2] == b"\0\0" else "UTF-32LE"
    # A line feed of its own bytes 0A 00 or 00 0A stands where characters do; without one most zeros are of ASCII.
    end, odd = head.find(b"\n"), head[1::2].count(0) > head[::2].count(0)
    return "UTF-16LE" if (end % 2 == 0 if end >= 0 else odd) else "UTF-16BE"


def argument(text: str) -> str:
    """An argument of a command line: bytes that are not UTF-8, in Python lone surrogates, become U+FFFD."""
    escaped = _NO_BYTES.sub("\ufffd", text).encode("utf8", "surrogateescape")
    return escaped.decode("utf8", "replace").removeprefix("\ufeff")


def one_line(text: str, encoding: str | None, spelled: Mapping[str, str]) -> str:
    """A text as one line that can be written in `encoding`.

    Line breaks and other control characters but tabs, and characters that the encoding lacks, are written with
    backslashes; the characters of `spelled`, where the encoding lacks one of them, as it says.
    """
    encoding = encoding or "utf8"
    marks = "".join(spelled)
    if marks.encode(encoding, "ignore").decode(encoding) != marks:
        text = text.translate({ord(mark): other for mark, other in spelled.items()})
    return "".join(map(_visible, text)).encode(encoding, "backslashreplace").decode(encoding)


def json_line(value: object, encoding: str | None) -> str:
    """A value as one line of JSON that can be written in `encoding`: what cannot be shown there is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    if one_line(text, encoding, {}) == text:
        return text
    return json.dumps(value).replace("\x7f", "\\u007f")


class Remarks:
    """Says on standard error what there is to say of lines: of each kind the first few, and at the end how many."""

    def __init__(self, noun: str, few: int = 5) -> None:
        self._noun, self._few = noun, few
        self._said: Counter[str] = Counter()

    def __call__(self, number: int, kind: str, what: str) -> None:
        self._said[kind] += 1
        if self._said[kind] <= self._few:
            say(f"{self._noun} {number} is {kind}: {what}")

    def close(self) -> None:
        for kind, times in self._said.items():
            if times > self._few:
                say(f"{kind}: {times} {self._noun}s in all")


def say(text: str) -> None:
    """A line on standard error, where there is one."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def _read(stream: BinaryIO, size: int) -> bytes:
    try:
        return stream.readline(size)
    except OSError as error:
        raise UserError(f"cannot read standard input: {error.strerror or error}") from error


def _visible(character: str) -> str:
    if character != "\t" and unicodedata.category(character) in ("Cc", "Zl", "Zp"):
        return character.encode("unicode_escape").decode()
    return character
