"""Tokens that a checkpoint has beside its pieces: sentinels, and what was added for a task, such as "\\n" or "{".

They stand in JSON files beside the model of the pieces, and are found in a text before it is cut into pieces.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdtw_jax.errors import UserError

CONFIG = "tokenizer_config.json"
ADDED = "added_tokens.json"
SPECIAL = "special_tokens_map.json"
FAST = "tokenizer.json"
SPECIALS = 3  # ids of pad, EOS and unknown, which no file places elsewhere and no text encodes to
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_SENTINEL = re.compile("\u2581?<extra_id_(\\d+)>")
_MOST_IDS = 2**27  # more than any vocabulary has


class AddedToken(NamedTuple):
    """A token found in a text as it stands there; the names are those of the published files."""

    id: int
    content: str
    lstrip: bool = False  # takes the white space before it
    rstrip: bool = False
    single_word: bool = False  # not inside a word
    special: bool = False  # read, never written


class Stated(NamedTuple):
    """What the files of a folder say."""

    tokens: tuple[AddedToken, ...]
    special: tuple[str, ...]  # further special tokens, without an id
    extra_ids: int | None  # sentinels above the pieces


def read_stated(folder: Path) -> Stated:
    """The added tokens of a published folder; with none of the files there are none.

    As in `transformers`, `added_tokens_decoder` in tokenizer_config.json counts before tokenizer.json, and
    added_tokens.json, which has no flags, comes last. Raises UserError for what is damaged or gives a text two ids.
    """
    folder = Path(folder)
    config = read_object(folder / CONFIG)
    special: dict[str, None] = {}  # in their order
    for file, found in ((folder / CONFIG, config), (folder / SPECIAL, read_object(folder / SPECIAL))):
        listed = [entry for name in _LISTS for entry in _entries(file, found.get(name) or [])]
        special |= dict.fromkeys(text for entry in listed if (text := _content(file, entry)))
    if config.get("added_tokens_decoder"):
        file, entries = folder / CONFIG, _items(folder / CONFIG, config["added_tokens_decoder"])
    elif among := read_object(folder / FAST).get("added_tokens"):
        file, entries = folder / FAST, [(entry.get("id"), entry) for entry in among if isinstance(entry, dict)]
    else:
        file = folder / ADDED
        entries = [(index, {"content": text, "special": text in special}) for text, index in read_object(file).items()]
    tokens = [token for index, entry in entries if (token := _token(file, index, entry)).content]
    places: dict[str, int] = {}
    for token in tokens:
        if places.setdefault(token.content, token.id) != token.id:
            raise UserError(f"{file} gives {token.content!r} both id {places[token.content]} and {token.id}")
    extra = config.get("extra_ids")
    if extra is not None and (not isinstance(extra, int) or extra < 0):
        raise UserError(f"{folder / CONFIG} has extra_ids {extra!r}; it has to be a whole number of at least 0")
    return Stated(tuple(tokens), tuple(text for text in special if text not in places), extra)


def place_tokens(
    name: str, stated: Stated, pieces: Sequence[str], sentinels: Iterable[AddedToken]
) -> tuple[AddedToken, ...]:
    """All added tokens in the order of their ids: the usual `sentinels`, what the files say in addition or instead, and
    the next ids for special tokens without one.

    Raises UserError where a file gives the id of a piece or a sentinel to another text.
    """
    taken = {token.content: token for token in sentinels}
    for token in stated.tokens:
        # A piece by the same name is the token; the usual flags of a sentinel are those of the published tokenizer.
        if token.id >= SPECIALS and not (token.content in taken and taken[token.content].id == token.id):
            taken[token.content] = token
    known = {piece: i for i, piece in enumerate(pieces)}
    following = max([len(pieces) - 1, *(token.id for token in taken.values())]) + 1
    for text in stated.special:
        if text not in taken and known.get(text, SPECIALS) >= SPECIALS:
            index = known.get(text, following)
            following += index == following
            taken[text] = AddedToken(index, text, special=True)
    by_id: dict[int, str] = {}
    for token in taken.values():
        other = pieces[token.id] if token.id < len(pieces) else by_id.get(token.id, token.content)
        if other != token.content:
            raise UserError(
                f"{name} has {other!r} at id {token.id}, which its {CONFIG} or {ADDED} gives to {token.content!r}; "
                "each token needs an id of its own"
            )
        by_id[token.id] = token.content
    return tuple(sorted(taken.values()))


def sentinel_number(content: str) -> int | None:
    """N of `<extra_id_N>`, None for another text."""
    match = _SENTINEL.fullmatch(content)
    return int(match[1]) if match else None


def finder(tokens: Sequence[AddedToken], *, between_spaces: bool = False) -> Callable[[str], Iterator[str | int]]:
    """A function that cuts a text at `tokens`, the longest first: parts of the text, and ids.

    A token that is no part of a word has to stand between spaces, or just not beside a letter or digit, as in the
    published tokenizers of bytes and of pieces.
    """
    by_content = {token.content: token for token in tokens}
    edge = r"[^ ]" if between_spaces else r"\w"
    words = []
    for token in sorted(tokens, key=lambda token: -len(token.content)):
        word = re.escape(token.content)
        words.append(f"(?<!{edge}){word}(?!{edge})" if token.single_word else word)
    pattern = re.compile("|".join(words)) if words else None

    def parts(text: str) -> Iterator[str | int]:
        start, strip = 0, False
        for match in pattern.finditer(text) if pattern else ():
            token, before = by_content[match[0]], text[start : match.start()]
            before = before.lstrip() if strip else before
            if before := before.rstrip() if token.lstrip else before:
                yield before
            yield token.id
            start, strip = match.end(), token.rstrip
        if rest := text[start:].lstrip() if strip else text[start:]:
            yield rest

    return parts


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object of a file, empty where there is none. Raises UserError for what is no such thing."""
    try:
        found = json.loads(file.read_text(encoding="utf8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        raise UserError(f"{file} is damaged: not JSON") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} is damaged: it has to hold one object in braces")
    return found


def _items(file: Path, found: Any) -> list[tuple[Any, Any]]:
    if not isinstance(found, dict):
        raise UserError(f"{file} has added_tokens_decoder {str(found)[:40]!r}; it has to map ids to tokens")
    return list(found.items())


def _entries(file: Path, found: Any) -> list[Any]:
    if not isinstance(found, (list, dict)):
        raise UserError(f"{file} lists special tokens as {str(found)[:40]!r}; it has to be a list")
    return list(found.values()) if isinstance(found, dict) else found


def _content(file: Path, entry: Any) -> str:
    text = entry.get("content") if isinstance(entry, dict) else entry
    if not isinstance(text, str):
        raise UserError(f"{file} has an added token {str(entry)[:60]!r}; it has to be a text or to have a content")
    return text


def _token(file: Path, index: Any, entry: Any) -> AddedToken:
    content = _content(file, entry)
    whole = index.isdecimal() if isinstance(index, str) else isinstance(index, int) and not isinstance(index, bool)
    place = int(index) if whole and len(str(index)) < 10 else -1
    if not 0 <= place < _MOST_IDS:
        raise UserError(f"{file} gives id {reprlib.repr(index)} to {content!r}; ids are whole numbers from 0 on")
    flags = entry if isinstance(entry, dict) else {}
    return AddedToken(place, content, *(bool(flags.get(flag)) for flag in AddedToken._fields[2:]))
