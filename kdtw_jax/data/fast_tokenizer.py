"""A T5 vocabulary as `transformers` 5 saves it, `tokenizer.json`, through the library `tokenizers`."""

from __future__ import annotations

import base64
import json
import reprlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

from kdtw_jax.data.added_tokens import AddedToken
from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import parse_object
from kdtw_jax.text.normal import without_surrogates

_KIND = "Unigram"
_IDS = ("<pad>", "</s>", "<unk>")
_UNK_ID = _IDS.index("<unk>")
_SPACE = "\u2581"
_UNKNOWN = " ⁇ "  # as sentencepiece writes it in a published vocabulary
_LARGEST = 3e38  # of a score, which sentencepiece keeps as a float32
_ANEW = "fetch or write it again"
_PROBE = "a \u00e9\ufb01\n\U0010fffd"  # with what is normalised, and what no vocabulary has


class FastProcessor:
    """What `Tokenizer` needs of a sentencepiece processor; the added tokens are in the same file.

    Raises:
      UserError: `proto` is no such file, or has what T5's never has.
    """

    def __init__(self, proto: bytes, name: str):
        self._stated = _read(proto, name)
        self._name = name
        self._pieces = _pieces(self._stated["model"], name)
        self.added = _added(self._stated, self._pieces, name)
        _check_spaces(self._stated, name)
        self.charsmap = b"".join(_charsmap(step, name) for step in self.normalizers)

    @property
    def normalizers(self) -> list[dict[str, Any]]:
        """What changes a text before it is cut, step by step."""
        return _steps(self._stated.get("normalizer"), "normalizers")

    def vocab_size(self) -> int:
        return len(self._pieces)

    def id_to_piece(self, index: int) -> str:
        return self._pieces[index]

    def get_score(self, index: int) -> float:
        return float(self._stated["model"]["vocab"][index][1])

    def decode(self, ids: Sequence[int]) -> str:
        text = "".join(_UNKNOWN if i == _UNK_ID else self._pieces[i] for i in ids)
        return text.replace(_SPACE, " ").removeprefix(" ")

    def encoder(self, never: Collection[int]) -> Callable[[str], list[int]]:
        """Text to ids as the published tokenizer does it, except that the texts of the ids `never` are no tokens."""
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise UserError(f"{self._name} needs the library tokenizers: pip install tokenizers") from None

        def text(index: int, content: str) -> str:
            # Renamed and not removed, which would move the ids of others. No piece of a text has a space in it.
            return f"{content} {index}\uffff" if index in never else content

        vocab = [[text(i, piece), score] for i, (piece, score) in enumerate(self._stated["model"]["vocab"])]
        added = [{**entry, "content": text(entry["id"], entry["content"])} for entry in self._stated["added_tokens"]]
        stated = {**self._stated, "model": {**self._stated["model"], "vocab": vocab}, "added_tokens": added}
        stated |= {"truncation": None, "padding": None, "post_processor": None}
        try:
            tokenizer = Tokenizer.from_str(json.dumps(stated))
            tokenizer.encode(_PROBE)
        except BaseException as error:
            # The library raises bare exceptions, and where it panics one that no other exception is the base of.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            said = " ".join(str(error).split())[:200]
            raise UserError(f"{self._name} is no tokenizer.json that tokenizers can read ({said}); {_ANEW}") from None

        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return ids

        return encode


def _read(proto: bytes, name: str) -> dict[str, Any]:
    try:
        stated = parse_object(proto)
    except ValueError as error:
        raise UserError(f"{name} is damaged: {error}; {_ANEW}") from None
    model = stated.get("model")
    model = model if isinstance(model, dict) else {}
    kind = model.get("type")
    if kind != _KIND:
        said = reprlib.repr(kind)
        raise UserError(f"{name} is a tokenizer of type {said}; T5's is {_KIND!r}, here as a spiece.model or as such")
    added = stated.get("added_tokens")
    for key, found in (("vocab", model.get("vocab")), ("added_tokens", [] if added is None else added)):
        if not isinstance(found, list):
            raise UserError(f"{name} is damaged: its {key} has to be a list and is {reprlib.repr(found)}; {_ANEW}")
    return {**stated, "added_tokens": added or []}


def _pieces(model: dict[str, Any], name: str) -> list[str]:
    for i, entry in enumerate(model["vocab"]):
        if not (isinstance(entry, list) and len(entry) == 2 and _is_text(entry[0]) and _is_score(entry[1])):
            raise UserError(
                f"{name} is damaged: its vocab has {reprlib.repr(entry)} at id {i}; each entry has to be a text and "
                f"its score, a finite number; {_ANEW}"
            )
    pieces = [str(piece) for piece, _ in model["vocab"]]
    if tuple(pieces[: len(_IDS)]) != _IDS:
        found = ", ".join(map(reprlib.repr, pieces[: len(_IDS)])) or "nothing"
        raise UserError(f"{name} begins with {found}; expected {', '.join(_IDS)} as in T5")
    places: dict[str, int] = {}
    for i, piece in enumerate(pieces):
        if places.setdefault(piece, i) != i:
            raise UserError(f"{name} has {piece!r} at both id {places[piece]} and {i} of its vocab; {_ANEW}")
    unknown = model.get("unk_id")
    if type(unknown) is not int or unknown != _UNK_ID:
        raise UserError(f"{name} has unk_id {reprlib.repr(unknown)}; expected {_UNK_ID}, the id of <unk>, as in T5")
    if model.get("byte_fallback", False) is not False:
        said = reprlib.repr(model["byte_fallback"])
        raise UserError(f"{name} has byte_fallback {said}; expected false, as in T5; it is another model's")
    return pieces


def _added(stated: dict[str, Any], pieces: Sequence[str], name: str) -> tuple[AddedToken, ...]:
    """The added tokens, under the ids that the library reads them as, whatever the file says."""
    places = {piece: i for i, piece in enumerate(pieces)}
    added, seen = [], set[str]()
    for entry in stated["added_tokens"]:
        if not (isinstance(entry, dict) and type(entry.get("id")) is int and _is_text(entry.get("content"))):
            raise UserError(
                f"{name} is damaged: its added_tokens hold {reprlib.repr(entry)}; each has to have an id, a whole "
                f"number, and a content, a text; {_ANEW}"
            )
        index, content = entry["id"], str(entry["content"])
        right = places.setdefault(content, len(places))
        if index != right:
            also = " as well" if content in seen else ""
            raise UserError(
                f"{name} gives id {reprlib.repr(index)} to {content!r} among its added_tokens, which is {right}{also}; "
                "a token has one id, that of its piece or else the next one"
            )
        seen.add(content)
        added.append(AddedToken(index, content, *(bool(entry.get(flag)) for flag in AddedToken._fields[2:])))
    return tuple(added)


def _check_spaces(stated: dict[str, Any], name: str) -> None:
    found = [s for s in _steps(stated.get("pre_tokenizer"), "pretokenizers") if s.get("type") == "Metaspace"]
    if not found:
        raise UserError(f"{name} has no pre_tokenizer of type Metaspace, as T5's has; it is another model's")
    for step in found:
        if step.get("replacement") != _SPACE:
            said = reprlib.repr(step.get("replacement"))
            raise UserError(
                f"{name} writes a space as {said} (its Metaspace's replacement); expected {_SPACE!r} as in T5"
            )


def _charsmap(step: dict[str, Any], name: str) -> bytes:
    """Of a step that replaces characters as sentencepiece does: the size of a tree of whole words, the tree, texts."""
    if step.get("type") != "Precompiled":
        return b""
    found = step.get("precompiled_charsmap")
    try:
        content = base64.b64decode(found if isinstance(found, str) else "", validate=True)
    except ValueError:
        content = b""
    size = int.from_bytes(content[:4], "little")
    if size == 0 or size % 4 or size > len(content) - 4:  # the library would panic
        raise UserError(f"{name} is damaged: its precompiled_charsmap is none of sentencepiece's in base64; {_ANEW}")
    return content


def _steps(step: Any, among: str) -> list[dict[str, Any]]:
    """A step, or those of the sequence that it is, however deep."""
    found, waiting = [], [step]
    while waiting:
        match waiting.pop(0):
            case {"type": "Sequence"} as sequence:
                inner = sequence.get(among)
                waiting[:0] = inner if isinstance(inner, list) else []
            case dict() as single:
                found.append(single)
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != "" and without_surrogates(value) == value


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
