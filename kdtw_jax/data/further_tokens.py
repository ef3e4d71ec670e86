"""A `tokenizer.json` with the tokens that the files beside it add, as the published library reads the folder."""

from __future__ import annotations

import json
from typing import Any

from kdtw_jax.data.added_tokens import AddedToken, Stated
from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import parse_object

_FLAGS = AddedToken._fields[2:]


def with_further_tokens(file: bytes, stated: Stated, name: str) -> bytes:
    """The file, or one with more entries or other flags among its added tokens.

    Args:
      file: of byte pairs or pieces; one that is damaged is left as it is.
      stated: what the files beside it say.
      name: of the file, for messages.

    Raises:
      UserError: a file gives a token another id than it has, or than the next one.
    """
    try:
        found = parse_object(file)
    except ValueError:
        return file
    places, listed = _places(found), _entries(found)
    if places is None or listed is None:
        return file
    entries = {entry["content"]: entry for entry in listed}
    following = max([len(places), *(entry["id"] + 1 for entry in listed)])
    tokens = sorted(stated.tokens)
    tokens += [AddedToken(-1, text, special=True) for text in stated.special]
    changed = False
    for token in tokens:
        known = entries[token.content]["id"] if token.content in entries else places.get(token.content)
        if token.id < 0 and known is not None:
            continue
        place = following if known is None else known
        if token.id not in (place, -1):
            raise UserError(
                f"{name} has {token.content!r} at id {place}, which {stated.where} gives id {token.id}; a token has "
                "one id, that of its piece or else the next one"
                if known is not None
                else f"{stated.where} beside {name} gives id {token.id} to {token.content!r}, and the next one is "
                f"{place}; save the tokenizer again with the library that wrote it"
            )
        following = max(following, place + 1)
        flags = {flag: getattr(token, flag) for flag in _FLAGS}
        entry = entries.get(token.content, {"id": place, "content": token.content, "normalized": False})
        if token.content in entries and not any(flags.values()):  # `added_tokens.json` says ids alone
            continue
        if any(entry.get(flag) is not value for flag, value in flags.items()):
            entries[token.content], changed = {**entry, **flags}, True
    if not changed:
        return file
    in_order = sorted(entries.values(), key=lambda entry: int(entry["id"]))
    return json.dumps({**found, "added_tokens": in_order}, ensure_ascii=False).encode()


def _places(found: dict[str, Any]) -> dict[str, int] | None:
    model = found.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        return vocab if all(type(i) is int for i in vocab.values()) else None
    if isinstance(vocab, list) and all(isinstance(one, list) and one and isinstance(one[0], str) for one in vocab):
        return {one[0]: i for i, one in enumerate(vocab)}
    return None


def _entries(found: dict[str, Any]) -> list[dict[str, Any]] | None:
    listed = found.get("added_tokens") or []
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        return None
    whole = all(type(entry.get("id")) is int and isinstance(entry.get("content"), str) for entry in listed)
    return listed if whole and len({entry["content"] for entry in listed}) == len(listed) else None
