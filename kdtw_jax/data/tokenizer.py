"""Text to ids and back: a sentencepiece unigram model, our own or T5's, or bytes, with ids that never move.

Our own layout: pad 0, EOS 1, unknown 2, `<help>` 3, `<reserved_0>` .. `<reserved_11>` at 4 .. 15, pieces
from 16 on. A T5 `spiece.model` (pad 0, EOS 1, unknown 2, 32000 pieces) has no `<help>` piece, which is how
the two are told apart; above its pieces lie T5's 100 sentinels, `<extra_id_0>` = 32099 down to
`<extra_id_99>` = 32000 (mT5 has them among its pieces, likewise downwards), and the last of them serves as help: it
has a row in every published embedding, and as span corruption numbers its gaps from 0, a text of 512 pieces with some
26 gaps never came near it.

byT5 has no file: its vocabulary is the bytes (`kdtw_jax.data.byt5`), with 125 sentinels above them, which go upwards.

The specials are *control symbols*: no text, not even the text "<help>", is ever encoded into one.

No byte fallback. Every character of the training text is a piece (character coverage 1), so training text
round-trips exactly; 256 byte pieces would cost a vocabulary of 4000 a sixteenth of its room, would hardly
occur in training, and would let a model emit invalid UTF-8. A character never seen becomes the unknown id,
which decodes to "⁇" and is never generated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sentencepiece

from kdtw_jax.data.byt5 import BYT5, PROTO, SENTINELS, ByteProcessor
from kdtw_jax.data.text import normalize as normalize
from kdtw_jax.errors import UserError

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
HELP = "<help>"
RESERVED = tuple(f"<reserved_{i}>" for i in range(12))
UNKNOWN_TEXT = "⁇"
T5_SENTINELS = 100

# The trainer's expected counts are summed per thread, so its bytes depend on the number of threads: fix it.
_THREADS = 2
_TOO_LARGE = re.compile(r"value <= (\d+)")
_TOO_SMALL = re.compile(r"required_chars\. \d+ vs (\d+)")


@dataclass(frozen=True)
class Tokenizer:
    """An immutable sentencepiece model, or the bytes; two are equal if their model bytes and numbers of ids are.

    Attributes:
      vocab_size: ids are 0 .. vocab_size - 1 (32100 for T5, whose checkpoints pad the embedding to 32128: `padded_to`).
      help_id: the id that asks for help; no text encodes to it.
      banned_ids: never to be generated: pad, unknown, help, reserved ids, sentinels, padding. EOS is not among them.
      fingerprint: sha256 of the model bytes, in hexadecimal.
    """

    vocab_size: int
    help_id: int
    banned_ids: tuple[int, ...]
    fingerprint: str
    proto: bytes = field(repr=False)
    _processor: sentencepiece.SentencePieceProcessor | ByteProcessor = field(repr=False, compare=False)
    _never: frozenset[int] = field(repr=False, compare=False)  # what no text may encode to, unknown aside

    def encode(self, text: str) -> list[int]:
        """The ids of `normalize(text)`, without EOS. Never fails; unseen characters become the unknown id."""
        ids = [int(i) for i in self._processor.encode(normalize(text))]
        # Only mT5's sentinels can come out, pieces like any other to sentencepiece: "<extra_id_7>" is unknown text.
        return [UNK_ID if i in self._never else i for i in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` up to the first EOS (or the end), without specials; unknown shows as "⁇"."""
        kept: list[int] = []
        for i in map(int, ids):
            if i == EOS_ID:
                break
            if i == UNK_ID or i not in self.banned_ids:
                kept.append(i)
        return str(self._processor.decode(kept))

    @property
    def is_bytes(self) -> bool:
        """Whether this is byT5's vocabulary."""
        return isinstance(self._processor, ByteProcessor)

    @property
    def sentinels(self) -> int:
        """Sentinels above the pieces: 100 for T5, 125 for byT5, none where they are pieces or there are none."""
        if self.is_bytes:
            return SENTINELS
        return T5_SENTINELS if self.help_id == self._processor.vocab_size() else 0

    def padded_to(self, rows: int) -> Tokenizer:
        """For a model whose embedding has `rows` rows, those beyond the vocabulary banned. Raises UserError for fewer
        rows than there are ids."""
        if rows < self.vocab_size:
            raise UserError(
                f"the model's vocabulary of {rows} is smaller than its tokenizer's ({self.vocab_size} ids, of which "
                f"{self.sentinels} are sentinels above the pieces); it needs the spiece.model that it was trained with"
            )
        spare = tuple(range(self.vocab_size, rows))
        return dataclasses.replace(self, vocab_size=rows, banned_ids=self.banned_ids + spare)

    def same_pieces(self, other: Tokenizer) -> bool:
        """Whether every id is the same token in both, padding beyond the tokens aside."""
        return self.fingerprint == other.fingerprint

    @property
    def pieces(self) -> list[str]:
        """The text of every id as sentencepiece writes it, a space as "▁"; T5's and byT5's sentinels are empty."""
        known = [str(self._processor.id_to_piece(i)) for i in range(self._processor.vocab_size())]
        return known + [""] * (self.vocab_size - len(known))

    def save(self, path: Path | str) -> None:
        """Write the model to `path` in one step (sentencepiece's own format)."""
        path = Path(path)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self.proto)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, exact: bool = True, character_coverage: float = 1.0
) -> Tokenizer:
    """Train a unigram model on `texts`: the same texts give the same bytes.

    Args:
      texts: sources and targets of a training split; empty ones are ignored.
      vocab_size: ids in all, the 16 special ones included.
      exact: False takes the largest vocabulary the text supports where `vocab_size` is more than that.
      character_coverage: share of the characters of the text that become pieces; below 1 only for scripts of
        thousands of characters, as training text then no longer round-trips.

    Raises:
      UserError: no text, or a vocabulary smaller or larger than the text supports (the message says which).
    """
    if vocab_size < 1:
        raise UserError(f"vocab_size must be positive, got {vocab_size}")
    if not 0.9 <= character_coverage <= 1.0:
        raise UserError(f"character_coverage must be between 0.9 and 1, got {character_coverage}")
    sentences = [normalized for text in texts if (normalized := normalize(text))]
    if not sentences:
        raise UserError("cannot train a tokenizer: the training text is empty")
    buffer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=buffer,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=exact,
            character_coverage=character_coverage,
            split_digits=True,
            normalization_rule_name="identity",
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            control_symbols=[HELP, *RESERVED],
            unk_surface=UNKNOWN_TEXT,
            shuffle_input_sentence=False,
            max_sentence_length=1 << 24,  # longer lines (in bytes) would be dropped silently
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        if found := _TOO_LARGE.search(str(error)):
            raise UserError(f"vocab_size {vocab_size} is more than this text supports: at most {found[1]}") from error
        if found := _TOO_SMALL.search(str(error)):
            raise UserError(
                f"vocab_size {vocab_size} is too small: the characters of this text alone need {found[1]} "
                "(or lower character_coverage)"
            ) from error
        raise UserError(f"cannot train a tokenizer of {vocab_size} pieces on this text: {error}") from error
    return _from_proto(buffer.getvalue(), "the trained model")


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Read a model that `Tokenizer.save` wrote, or a T5 `spiece.model`; "byt5" names the vocabulary of bytes.

    Raises:
      UserError: no such file, not a sentencepiece model, or one with other ids for pad, EOS and unknown.
    """
    path = Path(path)
    if str(path) == BYT5:
        return _from_proto(PROTO, BYT5)
    try:
        proto = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the tokenizer {path}: {error.strerror or error}") from error
    return _from_proto(proto, str(path))


def _from_proto(proto: bytes, name: str) -> Tokenizer:
    if not proto:
        raise UserError(f"{name} is empty; expected a sentencepiece model")
    if proto == PROTO:
        of_bytes = ByteProcessor()
        above = range(of_bytes.vocab_size(), of_bytes.vocab_size() + SENTINELS)
        return _tokenizer(proto, of_bytes, above.stop, above[-1], {*above})
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    except RuntimeError as error:
        raise UserError(f"{name} is not a sentencepiece model") from error
    ids = (processor.pad_id(), processor.eos_id(), processor.unk_id())
    if ids != (PAD_ID, EOS_ID, UNK_ID):
        raise UserError(f"{name} has ids {ids} for pad, EOS and unknown; expected {(PAD_ID, EOS_ID, UNK_ID)} as in T5")
    pieces = processor.vocab_size()
    own = {i for i in range(pieces) if processor.is_control(i) and i != EOS_ID}
    help_id = processor.piece_to_id(HELP)
    vocab_size = pieces
    if sentinels := _sentinel_pieces(processor):
        help_id = sentinels[-1]
        own |= set(sentinels)
    elif help_id == UNK_ID or not processor.is_control(help_id):
        vocab_size = pieces + T5_SENTINELS
        help_id = pieces
        own |= set(range(pieces, vocab_size))
    return _tokenizer(proto, processor, vocab_size, help_id, own)


def _tokenizer(
    proto: bytes,
    processor: sentencepiece.SentencePieceProcessor | ByteProcessor,
    vocab_size: int,
    help_id: int,
    own: set[int],
) -> Tokenizer:
    """Of a processor and the ids that no text may encode to."""
    return Tokenizer(
        vocab_size=vocab_size,
        help_id=help_id,
        banned_ids=tuple(sorted(own | {PAD_ID, UNK_ID})),
        fingerprint=hashlib.sha256(proto).hexdigest(),
        proto=proto,
        _processor=processor,
        _never=frozenset(own),
    )


def _sentinel_pieces(processor: sentencepiece.SentencePieceProcessor) -> list[int]:
    """The ids of mT5's sentinels, `<extra_id_0>` first."""
    names = [f"{space}<extra_id_{i}>" for i in range(T5_SENTINELS) for space in ("\u2581", "")]
    return [i for i in map(processor.piece_to_id, names) if i != UNK_ID]
