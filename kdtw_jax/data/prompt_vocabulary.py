"""Vocabularies of decoder-only models: a `tokenizer.json` of byte pairs, or what a GGUF file says of one.

Everywhere else in the package id 0 is padding, 1 the end and 2 what is unknown. Here they are wherever a checkpoint has
them, and so the ids change places with those that stand there: a *permutation* of a few ids, which the rows of the
embedding follow when weights are read, and back when they are written. Padding, what is unknown and the token that asks
for help are tokens that the vocabulary keeps spare, or rows beyond it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from kdtw_jax.data.added_tokens import FAST, AddedToken, finder
from kdtw_jax.data.chat import Chat
from kdtw_jax.data.vocabulary_training import EOS_ID, PAD_ID, UNK_ID, UNKNOWN_TEXT
from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import parse_object
from kdtw_jax.text.normal import without_surrogates

HEADER = b"kdtw_jax prompt vocabulary\n"
_SPACE = "\u2581"
_ANEW = "fetch or write it again"


class Cutter(Protocol):
    """A published tokenizer, by its own ids."""

    def plain(self, text: str) -> list[int]:
        """The ids of a text in which no special token is known."""

    def decode(self, ids: Sequence[int]) -> str: ...

    pieces: list[str]  # the text of every id, a space as "▁"; "" where there is no token
    special: dict[int, str]  # the special tokens, by id
    unknown: int | None
    begins: bool  # whether it puts a token in front of a text
    published: str  # the name of its file in the Hugging Face layout


class Ids(NamedTuple):
    """Where a checkpoint has what every vocabulary has here; beyond its tokens are rows of its embedding."""

    pad: int
    eos: int
    unknown: int
    help: int
    total: int  # of all ids


class PromptVocabulary:
    """A vocabulary whose texts are prompts and what follows.

    `published_V` has the checkpoint's id of each id here.
    """

    def __init__(self, cutter: Cutter, ids: Ids, chat: Chat):
        self.cutter, self.ids, self.chat = cutter, ids, chat
        published_V = np.arange(ids.total)
        for here, there in ((PAD_ID, ids.pad), (EOS_ID, ids.eos), (UNK_ID, ids.unknown)):
            place = int(np.flatnonzero(published_V == there)[0])
            published_V[[here, place]] = published_V[[place, here]]
        self.published_V = published_V
        self._here = np.argsort(published_V)
        self.help_id = int(self._here[ids.help])
        tokens = [AddedToken(i, content, special=True) for i, content in cutter.special.items() if content]
        self._find = finder(tokens)
        self._around = chat.around()

    def vocab_size(self) -> int:
        return self.ids.total

    def id_to_piece(self, index: int) -> str:
        return self._pieces[index]

    @cached_property
    def _pieces(self) -> list[str]:
        known = self.cutter.pieces + [""] * (self.ids.total - len(self.cutter.pieces))
        return [known[i] for i in self.published_V]

    @property
    def control(self) -> frozenset[int]:
        """Ids that are read and never written: special tokens but for the end, and ids without a token."""
        there = {*self.cutter.special, *range(len(self.cutter.pieces), self.ids.total)}
        there |= {i for i, piece in enumerate(self.cutter.pieces) if not piece}
        return frozenset(int(self._here[i]) for i in there - {self.ids.eos})

    def decode(self, ids: Sequence[int]) -> str:
        parts, run = "", list[int]()
        for i in [*ids, None]:
            if i is None or i == UNK_ID:
                parts, run = parts + (self.cutter.decode(run) if run else ""), []
                parts += "" if i is None else UNKNOWN_TEXT
            else:
                run.append(int(self.published_V[i]))
        return parts

    def encode(self, text: str) -> list[int]:
        """A text in which the names of special tokens are text like any other."""
        return [int(self._here[i]) for i in self.cutter.plain(without_surrogates(text))]

    def prompt(self, text: str, limit: int) -> tuple[list[int], int]:
        """A text with what stands around it, and how many ids were left out of its end to keep to the limit.

        Raises:
          UserError: nothing of a text is left within it.
        """
        before, after = self._around
        if not any(isinstance(part, int) for part in self._find(text)):
            whole = self._told(before + text + after)
            if len(whole) <= limit:
                return whole, 0
        head, inner, tail = self._told(before), self.encode(text), self._told(after)
        room = limit - len(head) - len(tail)
        if room < 1:
            around = len(head) + len(tail)
            raise UserError(
                f"what stands around a prompt is {around} tokens; text.max_source has to be more, not {limit}"
            )
        return [*head, *inner[:room], *tail], max(len(inner) - room, 0)

    def _told(self, text: str) -> list[int]:
        """The ids of a text with special tokens by their names."""
        found: list[int] = []
        for part in self._find(without_surrogates(text)):
            found += [part] if isinstance(part, int) else self.cutter.plain(part)
        return [int(self._here[i]) for i in found]


def choose_ids(
    cutter: Cutter, rows: int, *, eos: int, pad: int | None = None, taken: Sequence[int] = (), name: str = ""
) -> Ids:
    """Chooses padding, what is unknown and help among what a vocabulary keeps spare.

    Spare are rows of the embedding without a token, then tokens named as reserved or unused, then other special ones;
    where these do not suffice there are further rows, which a checkpoint then has to get.

    Args:
      cutter: of the vocabulary.
      rows: of the checkpoint's embedding.
      eos: what ends an answer.
      pad: the checkpoint's own padding, which is no other token's as well.
      taken: ids that mean something: the beginning, and what templates say.
      name: of the file, for messages.

    Raises:
      UserError: there are fewer rows than tokens.
    """
    tokens = len(cutter.pieces)
    if rows < tokens:
        raise UserError(
            f"the model's vocabulary of {rows} is smaller than its tokenizer's ({tokens} tokens of {name}); it needs "
            "the tokenizer that it was trained with"
        )
    used = {eos, *taken}
    named = [i for i, text in cutter.special.items() if any(word in text for word in ("reserved", "unused"))]
    spare = [*range(tokens, rows), *named, *cutter.special, *range(rows, rows + 3)]
    chosen: list[int] = []
    wanted = (pad if pad not in used else None, cutter.unknown if cutter.unknown not in used else None, None)
    for own in wanted:
        free = (i for i in spare if i not in used and i not in wanted)
        found = own if own is not None and own not in used else next(free)
        used.add(found)
        chosen.append(found)
    return Ids(chosen[0], eos, chosen[1], chosen[2], max(rows, *(i + 1 for i in chosen)))


def make_vocabulary(
    kind: str,
    file: bytes,
    name: str,
    *,
    rows: int,
    chat: Chat,
    eos: int | None,
    pad: int | None,
    begins: bool | None = None,
) -> bytes:
    """A vocabulary as a run keeps it, of the file of its tokens.

    What ends an answer is what a chat template writes after it, where there is one.

    Args:
      kind: of `CUTTERS`.
      file: of the tokens.
      name: of that, for messages.
      rows: of the checkpoint's embedding.
      chat: how the model is prompted.
      eos: the end of a text.
      pad: padding, where the checkpoint says it.
      begins: whether texts begin with `chat.bos`, if the checkpoint says it.

    Raises:
      UserError: as the cutter and `choose_ids` do, the template fails, or nothing ends a text.
    """
    cutter = open_cutter(kind, file, name)
    chat = chat._replace(begin=cutter.begins if begins is None else begins)
    end = chat.end_of_turn()
    eos = next((i for i, text in cutter.special.items() if text and end.startswith(text)), eos)
    if eos is None or not 0 <= eos < len(cutter.pieces):
        raise UserError(f"{name} does not say which token ends a text")
    told = "".join(chat.around()) + end
    taken = [i for i, text in cutter.special.items() if text and (text == chat.bos or text in told)]
    return saved(kind, choose_ids(cutter, rows, eos=eos, pad=pad, taken=taken, name=name), chat, file)


def saved(kind: str, ids: Ids, chat: Chat, file: bytes) -> bytes:
    """What a run keeps of a vocabulary: a line of JSON and the file of its tokens."""
    line = json.dumps({"kind": kind, "ids": ids._asdict(), "chat": chat._asdict()})
    return b"".join([HEADER, line.encode("ascii"), b"\n", file])


def read_saved(proto: bytes, name: str) -> tuple[str, Ids, Chat, bytes]:
    """The inverse of `saved`.

    Raises:
      UserError: it was not written so.
    """
    try:
        line, file = proto.removeprefix(HEADER).split(b"\n", 1)
        stated = parse_object(line)
        ids, chat = Ids(**stated["ids"]), Chat(**stated["chat"])
        whole = all(type(i) is int and 0 <= i < 2**27 for i in ids) and max(ids[:4]) < ids.total
        texts = [*map(type, chat)] == [str, str, str, bool]
        if not (whole and texts and len(set(ids[:4])) == 4 and stated["kind"] in CUTTERS):
            raise ValueError("values of other types")
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{name} is damaged: it does not say which tokens are which; {_ANEW}") from None
    return stated["kind"], ids, chat, file


class JsonCutter:
    """A `tokenizer.json` of byte pairs, through the library `tokenizers`.

    Raises:
      UserError: `file` is no such file.
    """

    published = FAST

    def __init__(self, file: bytes, name: str):
        from tokenizers import Tokenizer

        try:
            stated = parse_object(file)
        except ValueError as error:
            raise UserError(f"{name} is damaged: {error}; {_ANEW}") from None
        model = stated.get("model")
        model = model if isinstance(model, dict) else {}
        if model.get("type") != "BPE":
            raise UserError(f"{name} is a tokenizer of type {str(model.get('type'))[:40]!r}; known are BPE and Unigram")
        try:
            self._plain = Tokenizer.from_str(json.dumps({**stated, "truncation": None, "padding": None}))
            self._plain.encode_special_tokens = True
            self._plain.encode("a").ids[0]
            added = self._plain.get_added_tokens_decoder()
            vocabulary = self._plain.get_vocab(with_added_tokens=True)
        except BaseException as error:
            # The library raises bare exceptions, and where it panics one that no other exception is the base of.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            said = " ".join(str(error).split())[:200]
            raise UserError(f"{name} is no tokenizer.json that tokenizers can read ({said}); {_ANEW}") from None
        self.special = {i: token.content for i, token in sorted(added.items()) if token.special}
        texts = [""] * (max(vocabulary.values(), default=-1) + 1)
        bytes_of = _bytes_of_characters() if _is_of_bytes(stated) else None
        for text, i in vocabulary.items():
            texts[i] = text if i in added or bytes_of is None else _as_text(text, bytes_of)
        self.pieces = texts
        self.begins = self._plain.encode("a").ids[0] in self.special
        unknown = model.get("unk_token")
        self.unknown = vocabulary.get(unknown) if isinstance(unknown, str) else None

    def plain(self, text: str) -> list[int]:
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._plain.decode(ids, skip_special_tokens=False)
        return text


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

    def plain(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode([int(i) for i in ids]))


CUTTERS: dict[str, Callable[[bytes, str], Cutter]] = {"json": JsonCutter, "pieces": PieceCutter}


@lru_cache(maxsize=2)
def open_cutter(kind: str, file: bytes, name: str) -> Cutter:
    """Opens a published tokenizer of a kind of `CUTTERS`; a large one takes seconds, and is asked for several times.

    Raises:
      UserError: as the kind does, naming `name`.
    """
    return CUTTERS[kind](file, name)
