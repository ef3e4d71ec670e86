"""Published tokenizers of decoder-only models by their own ids: a `tokenizer.json` of byte pairs, or pieces."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from kdtw_jax.data.added_tokens import FAST, AddedToken, finder
from kdtw_jax.data.pairing import Pairing, is_byte, joined_by_merges, joined_by_scores
from kdtw_jax.data.vocabulary_training import MOST_PIECES
from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import parse_object

_SPACE = "\u2581"
_ANEW = "fetch or write it again"


class Cutter(Protocol):
    """A published tokenizer, by its own ids."""

    def plain(self, text: str) -> list[int]:
        """The ids of a text in which no special token is known."""

    def told(self, text: str) -> list[int]:
        """Those of a text in which special tokens stand by their names."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def pairing(self) -> Pairing:
        """How pieces are chosen; takes a second for a large one."""

    pieces: list[str]  # the text of every id, a space as "▁"; "" where there is no token
    special: dict[int, str]  # the special tokens, by id
    unknown: int | None
    begins: bool  # whether it puts a token in front of a text
    published: str  # the name of its file in the Hugging Face layout


class JsonCutter:
    """A `tokenizer.json` of byte pairs, through the library `tokenizers`.

    Texts are cut alike each time, whatever dropout the file states: that is of training.

    Raises:
      UserError: `file` is no such file, or its tokens clash.
    """

    published = FAST

    def __init__(self, file: bytes, name: str):
        from tokenizers import Tokenizer

        stated = _read(file, name)
        model = stated["model"]
        try:
            self._library = Tokenizer.from_str(json.dumps(stated))
            begun = self._library.encode("a").ids
            added = self._library.get_added_tokens_decoder()
            vocabulary = self._library.get_vocab(with_added_tokens=True)
        except BaseException as error:
            # The library raises bare exceptions, and where it panics one that no other exception is the base of.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            said = " ".join(str(error).split())[:200]
            raise UserError(f"{name} is no tokenizer.json that tokenizers can read ({said}); {_ANEW}") from None
        # Two of them, so that threads need not take turns: one has the names of special tokens for text.
        self._plain = Tokenizer.from_str(json.dumps(stated))
        self._plain.encode_special_tokens = True
        _check_ids(stated, vocabulary, name)
        self.special = {i: token.content for i, token in sorted(added.items()) if token.special}
        texts = [""] * (max(vocabulary.values(), default=-1) + 1)
        bytes_of = _bytes_of_characters() if _is_of_bytes(stated) else None
        for text, i in vocabulary.items():
            texts[i] = text if i in added or bytes_of is None else _as_text(text, bytes_of)
        self.pieces = texts
        self.begins = bool(begun) and begun[0] in self.special
        self._model = model
        self._found_first = frozenset(token.content for token in added.values() if not token.special)
        unknown = model.get("unk_token")
        self.unknown = vocabulary.get(unknown) if isinstance(unknown, str) else None

    def plain(self, text: str) -> list[int]:
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def told(self, text: str) -> list[int]:
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._library.decode(ids, skip_special_tokens=False)
        return text

    def pairing(self) -> Pairing:
        stated = self._model.get("merges") or ()
        merges = (tuple(pair if isinstance(pair, list) else pair.split(" ")) for pair in stated)
        bytes_ = {piece for piece in self.pieces if is_byte(piece)}
        falls_back = bool(self._model.get("byte_fallback")) and bool(bytes_)
        apart = {*self.special.values(), *self._found_first, *(bytes_ if falls_back else ())}
        joined = joined_by_merges(((first, second) for first, second in merges), apart)
        whole = bool(self._model.get("ignore_merges"))
        return Pairing(joined, self._found_first, frozenset(), falls_back, whole)


def _read(file: bytes, name: str) -> dict[str, Any]:
    """What a file says, but for what is of training or of batches."""
    try:
        stated = parse_object(file)
    except ValueError as error:
        raise UserError(f"{name} is damaged: {error}; {_ANEW}") from None
    model = stated.get("model")
    model = model if isinstance(model, dict) else {}
    if model.get("type") != "BPE":
        raise UserError(f"{name} is a tokenizer of type {str(model.get('type'))[:40]!r}; known are BPE and Unigram")
    if stated.get("decoder") is None:
        raise UserError(f"{name} has no decoder, which makes a text of tokens; {_ANEW}")
    model = {**model, "dropout": None}
    if model.get("unk_token") == "":  # older files say so that there is none
        model["unk_token"] = None
    return {**stated, "model": model, "truncation": None, "padding": None}


def _check_ids(stated: dict[str, Any], vocabulary: Mapping[str, int], name: str) -> None:
    """Checks that each token has one id, and each id one token."""
    texts: dict[int, str] = {}
    for text, i in sorted(vocabulary.items()):
        if texts.setdefault(i, text) != text:
            raise UserError(f"{name} has both {texts[i][:60]!r} and {text[:60]!r} at id {i}; {_ANEW}")
    if texts and max(texts) >= MOST_PIECES:
        raise UserError(f"{name} has {texts[max(texts)][:60]!r} at id {max(texts)}; ids are below {MOST_PIECES}")
    unknown = stated["model"].get("unk_token")
    if unknown is not None and unknown not in vocabulary:
        raise UserError(f"{name} has unk_token {reprlib.repr(unknown)}, which is none of its tokens; {_ANEW}")
    for entry in stated.get("added_tokens") or ():
        content, place = entry["content"], vocabulary.get(entry["content"])
        if place != entry["id"]:
            also = "which no text has" if place is None else f"which is {place}"
            raise UserError(
                f"{name} gives id {entry['id']} to {content[:60]!r} among its added_tokens, {also}; a token has one "
                "id, that of its piece or else the next one"
            )


def _is_of_bytes(stated: dict[str, Any]) -> bool:
    """Whether pieces are bytes under the names of characters, as in GPT-2."""
    return '"ByteLevel"' in json.dumps([stated.get("pre_tokenizer"), stated.get("decoder")])


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's characters for bytes: those that can be printed are their own, the others come after 255, in order."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _as_text(piece: str, byte_of: dict[str, int]) -> str:
    """What a piece of bytes says; a character of which it has but a part is shown as one that is not known."""
    said = bytes(byte_of[character] for character in piece if character in byte_of)
    return said.decode("utf-8", errors="replace").replace(" ", _SPACE)


class PieceCutter:
    """A sentencepiece model of byte pairs, as what a GGUF file says of Llama's and Gemma's becomes.

    Raises:
      UserError: `file` is no such model.
    """

    published = "tokenizer.model"

    def __init__(self, file: bytes, name: str):
        import sentencepiece

        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=file)
        except RuntimeError as error:
            raise UserError(f"{name} is not a sentencepiece model; {_ANEW}") from error
        ids = range(self._processor.vocab_size())
        self.pieces = [str(self._processor.id_to_piece(i)) for i in ids]
        self.unknown: int | None = int(self._processor.unk_id())
        self.begins = False
        self.special = {i: self.pieces[i] for i in ids if self._processor.is_control(i) or i == self.unknown}
        self._file = file
        self._find = finder([AddedToken(i, content, special=True) for i, content in self.special.items() if content])

    def plain(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(text)
        return ids

    def told(self, text: str) -> list[int]:
        found: list[int] = []
        for part in self._find(text):
            found += [part] if isinstance(part, int) else self.plain(part)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode([int(i) for i in ids]))

    def pairing(self) -> Pairing:
        from sentencepiece import sentencepiece_model_pb2

        described: Any = sentencepiece_model_pb2  # whose names no type checker sees
        kind = described.ModelProto.SentencePiece.Type
        stated = described.ModelProto.FromString(self._file).pieces
        by_kind: dict[int, set[str]] = {}
        for piece in stated:
            by_kind.setdefault(piece.type, set()).add(piece.piece)
        usable = [piece for piece in stated if piece.type in (kind.Value("NORMAL"), kind.Value("UNUSED"))]
        return Pairing(
            joined_by_scores([piece.piece for piece in usable], [piece.score for piece in usable]),
            frozenset(by_kind.get(kind.Value("USER_DEFINED"), ())),
            frozenset(by_kind.get(kind.Value("UNUSED"), ())),
            kind.Value("BYTE") in by_kind,
            words_whole=False,
        )


CUTTERS: dict[str, Callable[[bytes, str], Cutter]] = {"json": JsonCutter, "pieces": PieceCutter}


@lru_cache(maxsize=2)
def open_cutter(kind: str, file: bytes, name: str) -> Cutter:
    """Opens a published tokenizer of a kind of `CUTTERS`; a large one takes seconds, and is asked for several times.

    Raises:
      UserError: as the kind does, naming `name`.
    """
    return CUTTERS[kind](file, name)
