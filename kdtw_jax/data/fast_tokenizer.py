"""A T5 vocabulary as `transformers` 5 saves it, `tokenizer.json`, through the library `tokenizers`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

from kdtw_jax.data.added_tokens import AddedToken
from kdtw_jax.errors import UserError

_KIND = "Unigram"
_IDS = ("<pad>", "</s>", "<unk>")
_SPACE = "\u2581"
_UNKNOWN = " ⁇ "  # as sentencepiece writes it in a published vocabulary


class FastProcessor:
    """What `Tokenizer` needs of a sentencepiece processor; the added tokens are in the same file.

    Raises UserError where `proto` is no such file.
    """

    def __init__(self, proto: bytes, name: str):
        self._stated = _read(proto, name)
        self._name = name
        self._pieces = [piece for piece, _ in self._stated["model"]["vocab"]]
        flags = AddedToken._fields[2:]
        self.added = tuple(
            AddedToken(entry["id"], entry["content"], *(bool(entry.get(flag)) for flag in flags))
            for entry in self._stated.get("added_tokens", ())
        )

    def vocab_size(self) -> int:
        return len(self._pieces)

    def id_to_piece(self, index: int) -> str:
        return self._pieces[index]

    def decode(self, ids: Sequence[int]) -> str:
        text = "".join(_UNKNOWN if i == _IDS.index("<unk>") else self._pieces[i] for i in ids)
        return text.replace(_SPACE, " ").removeprefix(" ")

    def encoder(self, never: Collection[int]) -> Callable[[str], list[int]]:
        """Text to ids as the published tokenizer does it, except that the texts of the ids `never` are no tokens."""
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise UserError(f"{self._name} needs the library tokenizers: pip install tokenizers") from None
        stated = copy.deepcopy({**self._stated, "truncation": None, "padding": None, "post_processor": None})
        # Renamed and not removed, which would move the ids of others. No piece of a text has a space in it.
        for i in never:
            if i < len(self._pieces):
                stated["model"]["vocab"][i][0] += f" {i}\uffff"
        for entry in stated.get("added_tokens", ()):
            if entry["id"] in never:
                entry["content"] += f" {entry['id']}\uffff"
        try:
            tokenizer = Tokenizer.from_str(json.dumps(stated))
        except Exception as error:  # the library raises no other type
            raise UserError(f"{self._name} is no tokenizer.json that tokenizers can read: {error}") from error

        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return ids

        return encode


def _read(proto: bytes, name: str) -> dict[str, Any]:
    try:
        stated = json.loads(proto)
    except ValueError:
        raise UserError(f"{name} is damaged: not JSON") from None
    model = stated.get("model") if isinstance(stated, dict) else None
    model = model if isinstance(model, dict) else {}
    kind = model.get("type")
    if kind != _KIND:
        raise UserError(f"{name} is a tokenizer of type {kind!r}; T5's is {_KIND!r}, here as a spiece.model or as such")
    try:
        first = tuple(piece for piece, _ in model["vocab"][: len(_IDS)])
        fits = all(isinstance(t["id"], int) and isinstance(t["content"], str) for t in stated.get("added_tokens", ()))
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(f"{name} is damaged: its vocabulary or its added_tokens are not as tokenizers writes them")
    if first != _IDS:
        raise UserError(f"{name} begins with {', '.join(map(repr, first))}; expected {', '.join(_IDS)} as in T5")
    if '"Metaspace"' not in json.dumps([stated.get("pre_tokenizer")]):
        raise UserError(f"{name} has no pre_tokenizer of type Metaspace, as T5's has; it is another model's")
    return {**stated, "added_tokens": stated.get("added_tokens") or []}
