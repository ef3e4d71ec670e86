"""Lines of a user's text file, packed or not; what is no such file is named, with what to do about it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path

from kdtw_jax.errors import UserError

PACKED = (".gz", ".bz2", ".xz", ".lzma")
_GZIP, _BZIP2, _XZ = re.compile(rb"\x1f\x8b"), re.compile(rb"BZh[1-9]1AY&SY"), re.compile(rb"\xfd7zXZ\x00")
# lzma's own beginning: its usual properties, the size of a dictionary, and that of the content, if it is known.
_LZMA = re.compile(rb"\x5d\x00\x00..(\xff{8}|.{5}\x00{3})", re.DOTALL)
_UNPACK: tuple[tuple[re.Pattern[bytes], Callable[[bytes], bytes]], ...] = (
    (_GZIP, gzip.decompress),
    (_BZIP2, bz2.decompress),
    (_LZMA, lzma.decompress),
    (_XZ, lambda data: lzma.decompress(data.rstrip(b"\0"))),  # a stream ends in "YZ"; zeros may stand behind it
)

_PAIRS = "text files or JSON lines (.jsonl)"
# Beginnings of files that are no text. Longer ones first: UTF-32 begins as UTF-16 does.
_OTHERS = (
    (b"\xff\xfe\x00\x00", "is UTF-32; convert it to UTF-8, as iconv -f UTF-32 -t UTF-8 does"),
    (b"\x00\x00\xfe\xff", "is UTF-32; convert it to UTF-8, as iconv -f UTF-32 -t UTF-8 does"),
    (b"\xff\xfe", "is UTF-16; convert it to UTF-8, as iconv -f UTF-16 -t UTF-8 does"),
    (b"\xfe\xff", "is UTF-16; convert it to UTF-8, as iconv -f UTF-16 -t UTF-8 does"),
    (b"\x28\xb5\x2f\xfd", "is packed with zstd; unpack it with zstd -d"),
    (b"\x04\x22\x4d\x18", "is packed with lz4; unpack it with lz4 -d"),
    (b"LZIP\x01", "is packed with lzip; unpack it with lzip -d"),
    (b"\x1f\x9d", "is packed with compress; unpack it with gzip -d"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it and name the files in it"),
    (b"Rar!\x1a\x07", "is a rar archive; unpack it and name the files in it"),
    (b"PK\x03\x04", f"is a zip archive or a spreadsheet; unpack it, or save its columns as {_PAIRS}"),
    (b"ARROW1\0\0", f"is Arrow; write its columns as {_PAIRS}"),
    (b"SQLite format 3\0", f"is a database; write its columns as {_PAIRS}"),
    (b"%PDF-", "is a PDF; write its text as text files"),
)
_TABLES = {
    ".csv": f"is read by no rule for its commas and quotes; write its columns as {_PAIRS}",
    ".tsv": f"has both sides in one file; write its columns as {_PAIRS}, as cut -f1 and cut -f2 do",
    ".xls": f"is a spreadsheet; save its columns as {_PAIRS}",
    ".tmx": f"is marked up; write its texts as {_PAIRS}",
}


def kind(path: Path) -> str:
    """The ending of a file's name that says what is in it, in small letters: .jsonl for "a.JSONL" and "a.jsonl.gz"."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in PACKED else name.suffix


def lines_of_file(path: Path) -> list[str]:
    """The lines of a file in UTF-8, which gzip, bzip2, xz or lzma may have packed, without their ends (\\n or \\r\\n).

    Byte-order marks go, wherever a line begins with one: files that are joined have some inside.

    Raises:
      UserError: there is no such file, or it is empty, damaged, or no text in UTF-8; names the line of a bad byte.
    """
    data = _content(path)
    if not data.strip():
        raise UserError(f"{path}: the file is empty; it needs one text a line")
    if b"\n" not in data and b"\r" in data.strip():
        raise UserError(f"{path}: its lines end in carriage returns alone; convert it, as tr '\\r' '\\n' does")
    lines = []
    for number, raw in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
        try:
            line = raw.rstrip(b"\r").decode("utf-8-sig")
        except UnicodeDecodeError as e:
            raise UserError(
                f"{path} line {number}: byte {e.start + 1} is not valid UTF-8; convert the file to UTF-8"
            ) from None
        if "\0" in line:
            raise UserError(f"{path} line {number}: byte {raw.index(0) + 1} is 0; is this UTF-16? convert it to UTF-8")
        lines.append(line)
    return lines


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; name one that exists") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); name a readable file") from e
    for magic, unpack in _UNPACK:
        if magic.match(data):
            try:
                data = unpack(data)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as e:
                raise UserError(f"{path}: cannot be unpacked ({e}); the file is damaged: copy it anew") from None
            break
    if any(magic.match(data) for magic, _ in _UNPACK):
        raise UserError(f"{path} is packed twice; unpack it once")
    for beginning, advice in _OTHERS:
        if data.startswith(beginning):
            raise UserError(f"{path} {advice}")
    if data.startswith(b"PAR1") and data.endswith(b"PAR1"):
        raise UserError(f"{path} is Parquet; write its columns as {_PAIRS}")
    if data[257:265] in (b"ustar\x0000", b"ustar  \x00"):
        raise UserError(f"{path} is a tar archive; unpack it and name the files in it")
    if kind(path) in _TABLES:
        raise UserError(f"{path} {_TABLES[kind(path)]}")
    return data
