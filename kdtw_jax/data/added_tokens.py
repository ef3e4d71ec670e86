"""Tokens that a checkpoint has beside its pieces: sentinels, and what was added for a task, such as "\\n" or "{".

They stand in JSON files beside the model of the pieces, and are found in a text before it is cut into pieces.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import regex

from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import read_json
from kdtw_jax.text.normal import without_surrogates

CONFIG = "tokenizer_config.json"
ADDED = "added_tokens.json"
SPECIAL = "special_tokens_map.json"
FAST = "tokenizer.json"
NAMES = ("<pad>", "</s>", "<unk>")  # of ids 0, 1 and 2, which no file places elsewhere and no text encodes to
SPECIALS = len(NAMES)
RESERVED = "reserved_ids"  # in tokenizer_config.json, of ours alone: ids that no token has, named there nevertheless
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_SENTINEL = re.compile("\u2581?<extra_id_(\\d+)>")
_MOST_IDS = 2**27  # more than any vocabulary has
_MOST_EXTRA = 2**16
_WORD = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]")  # \w of Unicode's rules, unlike Python's
_WHITE = "".join(filter(regex.compile(r"\p{White_Space}").match, map(chr, range(0x3001))))


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
    where: str = f"{CONFIG} or {ADDED}"  # the tokens stand


def read_stated(folder: Path, *, beside_fast: bool = False) -> Stated:
    """The added tokens of a published folder; with none of the files there are none.

    As in `transformers`, `added_tokens_decoder` in tokenizer_config.json counts before tokenizer.json, and
    added_tokens.json, which has no flags, comes last.

    Args:
      folder: of the model.
      beside_fast: leave tokenizer.json out, whose own tokens are read elsewhere.

    Raises:
      UserError: a file is damaged or gives a text two ids.
    """
    folder = Path(folder)
    config = read_object(folder / CONFIG)
    reserved = {reserved_name(i): i for i in _listed(folder / CONFIG, RESERVED, config)}
    special: dict[str, None] = {}  # in their order
    for file, found in ((folder / CONFIG, config), (folder / SPECIAL, read_object(folder / SPECIAL))):
        listed = [entry for name in _LISTS for entry in _listed(file, name, found)]
        special |= dict.fromkeys(text for entry in listed if (text := _content(file, entry)))
    file, entries = folder / CONFIG, _items(folder / CONFIG, config.get("added_tokens_decoder"))
    if not entries and not beside_fast:
        file = folder / FAST
        entries = [(_of(entry, "id"), entry) for entry in _listed(file, "added_tokens", read_object(file))]
    if not entries:
        file = folder / ADDED
        entries = [(index, {"content": text, "special": text in special}) for text, index in read_object(file).items()]
    tokens = [token for index, entry in entries if (token := _token(file, index, entry)).content]
    tokens = [token for token in tokens if reserved.get(token.content) != token.id]
    places: dict[str, int] = {}
    for token in tokens:
        if places.setdefault(token.content, token.id) != token.id:
            raise UserError(f"{file} gives {token.content!r} both id {places[token.content]} and {token.id}")
    extra = config.get("extra_ids")
    if extra is not None and not _is_count(extra):
        wrong = f"{folder / CONFIG} has extra_ids {reprlib.repr(extra)}"
        raise UserError(f"{wrong}; it has to be a whole number from 0 to {_MOST_EXTRA}")
    bare = tuple(text for text in special if text not in {**places, **reserved})
    return Stated(tuple(tokens), bare, extra, file.name)


def kept_tokens(kept: Any) -> Stated:
    """Reads what a saved vocabulary says of its added tokens, as JSON.

    Raises:
      KeyError, TypeError, ValueError: it was not written so.
    """
    extra, tokens = kept["extra_ids"], tuple(AddedToken(*token) for token in kept["tokens"])
    types = [int, str, bool, bool, bool, bool]
    if not _is_count(extra) or any([*map(type, token)] != types for token in tokens):
        raise ValueError("values of other types")
    if not all(0 <= token.id < _MOST_IDS and _is_text(token.content) for token in tokens):
        raise ValueError("no ids, or no texts")
    return Stated(tokens, (), extra, "second line")


def place_tokens(
    name: str, stated: Stated, pieces: Sequence[str], sentinels: Iterable[AddedToken]
) -> tuple[AddedToken, ...]:
    """Returns all added tokens in the order of their ids.

    Args:
      name: of the vocabulary, for messages.
      stated: what the files say in addition to the sentinels, or instead; special tokens without an id get the next.
      pieces: in the order of their ids.
      sentinels: the usual ones.

    Raises:
      UserError: a file gives the id of a piece or a sentinel to another text, or another id to the text of pad, EOS or
        unknown, which no text becomes.
    """
    taken = {token.content: token for token in sentinels}
    special = {text: i for names in (NAMES, pieces[:SPECIALS]) for i, text in enumerate(names)}
    for token in stated.tokens:
        if special.get(token.content, token.id) != token.id:
            raise UserError(
                f"{name} has {token.content!r} at id {special[token.content]}, and its {CONFIG} or {ADDED} at "
                f"{token.id} as well; leave it out there"
            )
        # A piece by the same name is the token; the usual flags of a sentinel are those of the published tokenizer.
        if token.id >= SPECIALS and not (token.content in taken and taken[token.content].id == token.id):
            taken[token.content] = token
    known = {piece: i for i, piece in enumerate(pieces)}
    following = max([len(pieces) - 1, *(token.id for token in taken.values())]) + 1
    for text in stated.special:
        if text not in taken and text not in special:
            index = known.get(text, following)
            following += index == following
            taken[text] = AddedToken(index, text, special=True)
    by_id: dict[int, str] = {}
    for token in taken.values():
        other = pieces[token.id] if token.id < len(pieces) else by_id.get(token.id, token.content)
        if other != token.content:
            raise UserError(
                f"{name} has {other!r} at id {token.id}, which its {stated.where} gives to {token.content!r}; "
                "each token needs an id of its own"
            )
        by_id[token.id] = token.content
    return tuple(sorted(taken.values()))


def reserved_name(index: int) -> str:
    """What stands in an exported file for an id, `index`, that no token has."""
    return f"<reserved_{index}>"


def sentinel_number(content: str) -> int | None:
    """N of `<extra_id_N>`, None for another text."""
    match = _SENTINEL.fullmatch(content)
    return int(match[1]) if match else None


def finder(tokens: Sequence[AddedToken], *, between_spaces: bool = False) -> Callable[[str], Iterator[str | int]]:
    """A function that cuts a text at `tokens`, the longest first: parts of the text, and ids.

    Where one is found no other is looked for, though it has to be a word and is not. A word stands between spaces, or
    just not beside a letter, mark or digit, as in the published tokenizers of bytes and of pieces.
    """
    by_content = {token.content: token for token in tokens}
    longest_first = sorted(by_content, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
    white = None if between_spaces else _WHITE  # for bytes what Python takes for it

    def in_word(beside: str) -> bool:
        return beside not in ("", " ") if between_spaces else _WORD.match(beside) is not None

    def parts(text: str) -> Iterator[str | int]:
        start, strip = 0, False
        for match in pattern.finditer(text) if pattern else ():
            token, (first, end) = by_content[match[0]], match.span()
            if token.single_word and (in_word(text[max(first - 1, 0) : first]) or in_word(text[end : end + 1])):
                continue
            before = text[start:first].lstrip(white) if strip else text[start:first]
            if before := before.rstrip(white) if token.lstrip else before:
                yield before
            yield token.id
            start, strip = end, token.rstrip
        if rest := text[start:].lstrip(white) if strip else text[start:]:
            yield rest

    return parts


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object of a file, empty where there is none.

    Raises:
      UserError: the file holds something else.
    """
    return read_json(file, "") if file.exists() else {}


def _items(file: Path, found: Any) -> list[tuple[Any, Any]]:
    if not isinstance(found, (dict, type(None))):
        raise UserError(f"{file} has added_tokens_decoder {reprlib.repr(found)}; it has to map ids to tokens")
    return list((found or {}).items())


def _listed(file: Path, name: str, stated: dict[str, Any]) -> list[Any]:
    found = [] if stated.get(name) is None else stated[name]
    if not isinstance(found, (list, dict)):
        raise UserError(f"{file} has {name} {reprlib.repr(found)}; it has to be a list")
    return list(found.values()) if isinstance(found, dict) else found


def _of(entry: Any, name: str) -> Any:
    return entry.get(name) if isinstance(entry, dict) else None


def _content(file: Path, entry: Any) -> str:
    text = entry.get("content") if isinstance(entry, dict) else entry
    if not isinstance(text, str):
        raise UserError(f"{file} has an added token {str(entry)[:60]!r}; it has to be a text or to have a content")
    if not _is_text(text):
        raise UserError(f"{file} has an added token {text[:60]!r} with half of a surrogate pair, which no text has")
    return text


def _token(file: Path, index: Any, entry: Any) -> AddedToken:
    content = _content(file, entry)
    whole = index.isdecimal() if isinstance(index, str) else isinstance(index, int) and not isinstance(index, bool)
    place = int(index) if whole and len(str(index)) < 10 else -1
    if not 0 <= place < _MOST_IDS:
        raise UserError(f"{file} gives id {reprlib.repr(index)} to {content!r}; ids are whole numbers from 0 on")
    flags = {name: value for name in AddedToken._fields[2:] if (value := _of(entry, name)) is not None}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise UserError(f"{file} has {name} {reprlib.repr(value)} for {content!r}; it has to be true or false")
    return AddedToken(place, content, **flags)


def _is_count(extra: Any) -> bool:
    return isinstance(extra, int) and not isinstance(extra, bool) and 0 <= extra <= _MOST_EXTRA


def _is_text(content: str) -> bool:
    """Whether it can be written: UTF-8 has no lone surrogates."""
    return content == without_surrogates(content)
