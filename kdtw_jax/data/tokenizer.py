"""Text to ids and back: a sentencepiece unigram model, our own or T5's, or bytes, with ids that never move.

Our own layout: pad 0, EOS 1, unknown 2, `<help>` 3, `<reserved_0>` .. `<reserved_11>` at 4 .. 15, pieces
from 16 on. A T5 `spiece.model` (pad 0, EOS 1, unknown 2, 32000 pieces) has no `<help>` piece, which is how
the two are told apart; above its pieces lie T5's 100 sentinels, `<extra_id_0>` = 32099 down to
`<extra_id_99>` = 32000 (mT5 has them among its pieces, likewise downwards), and the last of them serves as help: it
has a row in every published embedding, and as span corruption numbers its gaps from 0, a text of 512 pieces with some
26 gaps never came near it. What was added to a checkpoint lies above that (`kdtw_jax.data.added_tokens`).

byT5 has no file: its vocabulary is the bytes (`kdtw_jax.data.byt5`), with 125 sentinels above them, which go upwards.

pad, EOS, unknown and help are *control symbols*: no text, not even the text "<help>", is ever encoded into one. Of
published vocabularies, sentinels and special added tokens are read by their names, and never written.

No byte fallback. Every character of the training text is a piece (character coverage 1), so training text
round-trips exactly; 256 byte pieces would cost a vocabulary of 4000 a sixteenth of its room, would hardly
occur in training, and would let a model emit invalid UTF-8. A character never seen becomes the unknown id,
which decodes to "⁇" and is never generated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdtw_jax.data.added_tokens import FAST, AddedToken, Stated, read_stated, sentinel_number
from kdtw_jax.data.byt5 import BYT5, PROTO, ByteProcessor
from kdtw_jax.data.fast_tokenizer import FastProcessor
from kdtw_jax.data.further_tokens import with_further_tokens
from kdtw_jax.data.prompt_vocabulary import PromptVocabulary
from kdtw_jax.data.same_vocabulary import Likeness, difference
from kdtw_jax.data.vocabularies import NOTHING, Encoder, Processor, open_vocabulary, too_few_rows
from kdtw_jax.data.vocabulary_training import EOS_ID, PAD_ID, UNK_ID, UNKNOWN_TEXT, train_model
from kdtw_jax.errors import UserError
from kdtw_jax.text.normal import normalize
from kdtw_jax.text.words import WordMarks, word_marks

__all__ = [
    "EOS_ID",
    "PAD_ID",
    "PIECES",
    "UNKNOWN_TEXT",
    "UNK_ID",
    "Tokenizer",
    "load_tokenizer",
    "load_vocabulary",
    "normalize",
    "train_tokenizer",
]

PIECES = "spiece.model"
_SPACE = "\u2581"  # as sentencepiece writes it


@dataclass(frozen=True)
class Tokenizer:
    """An immutable vocabulary.

    Two are equal if their model bytes, added tokens and numbers of ids are (`difference` says whether they only come
    from other files).

    Attributes:
      vocab_size: ids are 0 .. vocab_size - 1 (32100 for T5, whose checkpoints pad the embedding to 32128: `padded_to`).
      help_id: the id that asks for help; no text encodes to it.
      banned_ids: never to be generated: pad, unknown, help, reserved ids, sentinels, special added tokens, and ids that
        no token has. EOS is not among them.
      sentinels: how many lie above the pieces: 100 for T5, 125 for byT5, none where they are pieces or there are none.
      added: those sentinels, and the tokens that were added, by id.
      fingerprint: sha256 of `proto`, in hexadecimal.
      proto: what `save` writes.
    """

    vocab_size: int
    help_id: int
    banned_ids: tuple[int, ...]
    sentinels: int
    added: tuple[AddedToken, ...] = field(repr=False)
    fingerprint: str
    proto: bytes = field(repr=False)
    _file: bytes = field(repr=False, compare=False)
    _processor: Processor = field(repr=False, compare=False)
    _read: Encoder = field(repr=False, compare=False)
    _written: Encoder = field(repr=False, compare=False)
    _likeness: Callable[[], Likeness] = field(repr=False, compare=False)

    def encode(self, text: str) -> list[int]:
        """The ids of a text that is read, without EOS. Never fails; unseen characters become the unknown id.

        Our own vocabularies know `normalize(text)` alone; published ones are given the text as it is.
        """
        return self._read(text)

    def prompt(self, text: str, limit: int) -> tuple[list[int], int]:
        """The ids of a source with what ends it, and how many were left out to keep to `limit`.

        That is EOS, or, of decoder-only models, the chat template around it or the end of its line.
        """
        if isinstance(self._processor, PromptVocabulary):
            return self._processor.prompt(text, limit)
        whole = [*self.encode(text), EOS_ID]
        excess = max(len(whole) - limit, 0)
        return (whole if not excess else [*whole[: limit - 1], EOS_ID]), excess

    @property
    def prompts(self) -> PromptVocabulary | None:
        """What is known of it where it is a decoder-only model's."""
        return self._processor if isinstance(self._processor, PromptVocabulary) else None

    @property
    def published_ids(self) -> np.ndarray | None:
        """Of a decoder-only model, the id in its checkpoint of each id here, int64 [vocab_size], which may lie beyond
        its rows; None where they are the same."""
        if not isinstance(self._processor, PromptVocabulary):
            return None
        known_V = self._processor.published_V
        return np.concatenate([known_V, np.arange(len(known_V), self.vocab_size)])

    def encode_target(self, text: str) -> list[int]:
        """Likewise of a text that is to be written: of the banned ids none but the unknown one is among them."""
        return self._written(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` up to the first EOS (or the end), without specials; unknown shows as "⁇".

        Ids do not tell whether a space was beside an added token, as pieces begin there like a text. One is put before
        a letter or digit, except after white space and an opening bracket.
        """
        banned, added = set(self.banned_ids), self._writable
        text, run = "", list[int]()
        for i in [*map(int, ids), EOS_ID]:
            if run and (i == EOS_ID or i in added):
                begins = not self.is_bytes and self._processor.id_to_piece(run[0]).startswith(_SPACE)
                text, run = _joined(text, str(self._processor.decode(run)), begins), []
            if i == EOS_ID:
                break
            if i in added:
                text = _joined(text, added[i], not self.is_bytes)
            elif i == UNK_ID or i not in banned:
                run.append(i)
        return text

    @property
    def is_bytes(self) -> bool:
        """Whether this is byT5's vocabulary."""
        return isinstance(self._processor, ByteProcessor)

    @property
    def has_more(self) -> bool:
        """Whether there are other added tokens than published models of this kind have, or other numbers of them."""
        return self.proto != self._file

    @property
    def published_file(self) -> tuple[str, bytes] | None:
        """Name and content of the file with the pieces in the Hugging Face layout; None for bytes."""
        if self.is_bytes:
            return None
        if self.prompts is not None:
            return self.prompts.cutter.published, self._file
        return FAST if isinstance(self._processor, FastProcessor) else PIECES, self._file

    def padded_to(self, rows: int) -> Tokenizer:
        """Returns it for a model whose embedding has `rows` rows, those beyond the vocabulary banned.

        Raises:
          UserError: fewer rows than there are ids.
        """
        if rows < self.vocab_size:
            file = self.published_file[0] if self.published_file else None
            raise UserError(too_few_rows(rows, self.vocab_size, self._processor, self.added, self.sentinels, file))
        spare = tuple(range(self.vocab_size, rows))
        return dataclasses.replace(self, vocab_size=rows, banned_ids=self.banned_ids + spare)

    def difference(self, other: Tokenizer) -> str | None:
        """In words, what is one thing there (in `self`) and another here (in `other`); None where every id is the same
        token in both and every text is cut alike, padding beyond the tokens and the kind of file aside."""
        return None if self.fingerprint == other.fingerprint else difference(self.likeness, other.likeness)

    @property
    def likeness(self) -> Likeness:
        """All that makes it what it is, whichever file it is from."""
        return self._likeness()

    @property
    def pieces(self) -> list[str]:
        """The text of every id as sentencepiece writes it, a space as "▁"; that of T5's and byT5's sentinels, and of
        ids that no token has, is empty."""
        known = [str(self._processor.id_to_piece(i)) for i in range(self._processor.vocab_size())]
        found = known + [""] * (self.vocab_size - len(known))
        for i, content in self._writable.items():
            found[i] = content.replace(" ", _SPACE)
        return found

    @property
    def words(self) -> WordMarks:
        """Which ids begin a word; before an added token of letters or digits `decode` writes a space, unlike byT5's."""
        apart = {i for i, content in self._writable.items() if not self.is_bytes and content[:1].isalnum()}
        return word_marks(self.pieces, apart)

    @property
    def _writable(self) -> dict[int, str]:
        banned = set(self.banned_ids)
        return {token.id: token.content for token in self.added if token.id not in banned}

    def save(self, path: Path | str) -> None:
        """Write the vocabulary to `path` in one step, in sentencepiece's own format where nothing was added to it."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(self.proto)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def train_tokenizer(
    texts: Iterable[str],
    *,
    vocab_size: int,
    exact: bool = True,
    character_coverage: float = 1.0,
    whole_words: bool = False,
) -> Tokenizer:
    """Trains a vocabulary of our own.

    Args:
      texts: as for `kdtw_jax.data.vocabulary_training.train_model`.
      vocab_size: likewise.
      exact: likewise.
      character_coverage: likewise.
      whole_words: likewise.

    Raises:
      UserError: as `train_model` does.
    """
    proto = train_model(
        texts, vocab_size=vocab_size, exact=exact, character_coverage=character_coverage, whole_words=whole_words
    )
    return _opened(proto, "the trained model", NOTHING)


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Reads a vocabulary.

    Args:
      path: a file that `Tokenizer.save` wrote, a T5 `spiece.model` with what the files beside it add, a
        `tokenizer.json`, or a folder that has one of these; "byt5" names the vocabulary of bytes.

    Raises:
      UserError: no such file, not a vocabulary of T5's kind, one with other ids for pad, EOS and unknown, or added
        tokens that clash.
    """
    path = Path(path)
    if str(path) == BYT5:
        return _opened(PROTO, BYT5, NOTHING)
    if path.is_dir():
        return load_vocabulary(path)
    try:
        proto = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the tokenizer {path}: {error.strerror or error}") from error
    if path.name == FAST:
        proto = with_further_tokens(proto, read_stated(path.parent, beside_fast=True), str(path))
    return _opened(proto, str(path), read_stated(path.parent) if path.name == PIECES else NOTHING)


def load_vocabulary(folder: Path, *, of_bytes: bool = False) -> Tokenizer:
    """Reads the vocabulary of a folder in the Hugging Face layout, or, `of_bytes`, only what is added to that of bytes.

    Raises:
      UserError: the folder has none, and as `load_tokenizer` does.
    """
    if of_bytes:
        return _opened(PROTO, str(folder), read_stated(folder))
    found = [folder / name for name in (PIECES, FAST) if (folder / name).is_file()]
    if not found:
        raise UserError(f"{folder} has no {PIECES} and no {FAST}, which hold a vocabulary; add the model's own")
    return load_tokenizer(found[0])


def open_tokenizer(proto: bytes, name: str) -> Tokenizer:
    """Reads what `Tokenizer.save` writes; `name` is for messages.

    Raises:
      UserError: it was not written so.
    """
    return _opened(proto, name, NOTHING)


def _opened(proto: bytes, name: str, beside: Stated) -> Tokenizer:
    found = open_vocabulary(proto, name, beside)
    pieces, ids = found.processor.vocab_size(), {token.id for token in found.added}
    size = max(pieces - 1, found.help_id, *ids, 0) + 1
    banned = {PAD_ID, UNK_ID, found.help_id, *found.control} | (set(range(pieces, size)) - ids)
    banned |= {token.id for token in found.added if token.special or sentinel_number(token.content) is not None}
    read = found.encoder({PAD_ID, EOS_ID, UNK_ID, found.help_id})
    return Tokenizer(
        vocab_size=size,
        help_id=found.help_id,
        banned_ids=tuple(sorted(banned)),
        sentinels=found.sentinels,
        added=found.added,
        fingerprint=hashlib.sha256(found.saved).hexdigest(),
        proto=found.saved,
        _file=found.file,
        _processor=found.processor,
        _read=read,
        _written=found.encoder({EOS_ID, *banned}),
        _likeness=lambda: found.likeness(frozenset(banned), read),
    )


def _joined(text: str, part: str, may_be_apart: bool) -> str:
    """Beside an added token: `decode` says where there is a space."""
    touches = text[-1:] and part[:1].isalnum() and not text[-1:].isspace() and unicodedata.category(text[-1]) != "Ps"
    return f"{text} {part}" if may_be_apart and touches else text + part
