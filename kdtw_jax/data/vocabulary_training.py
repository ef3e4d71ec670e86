"""Training of a vocabulary of our own: what sentencepiece is given, and what it says."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sentencepiece
from rich.console import Console

from kdtw_jax.errors import UserError
from kdtw_jax.text.normal import normalize

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
HELP = "<help>"
RESERVED = tuple(f"<reserved_{i}>" for i in range(12))
UNKNOWN_TEXT = "⁇"
MOST_PIECES = 1 << 24  # far beyond any use; near 2**31 the trainer's numbers overflow, and it never ends
LONG = 4096  # characters of a line that is left whole; longer ones are cut
# sentencepiece's own mark for unknown text: it drops every line with it, unless it is a symbol of the user's.
_MARK = "\u2585"
# Names of control symbols are cut out of the lines, so that their characters would not count.
_NAMES = re.compile("<(?=(?:unk|pad|/s|help|reserved_[0-9]+)>)")
# Where words and numbers end within what white space divides, and a character that no text has, which says so.
_WORD_ENDS = re.compile(r"(?<=[^\W_])(?=[^\w\s])|(?<=[^\w\s])(?=[^\W_])")
_APART = "\x1f"
# The trainer's expected counts are summed per thread, so its bytes depend on the number of threads: fix it.
_THREADS = 2
_TOO_LARGE = re.compile(r"value <= (\d+)")
_TOO_SMALL = re.compile(r"required_chars\. \d+ vs (\d+)")
_SAID = 1_000_000  # characters that take a second or so


def train_model(
    texts: Iterable[str],
    *,
    vocab_size: int,
    exact: bool = True,
    character_coverage: float = 1.0,
    whole_words: bool = False,
) -> bytes:
    """Trains a unigram model on `texts`: the same texts give the same bytes, those of a sentencepiece model.

    Args:
      texts: sources and targets of a training split; empty ones are ignored.
      vocab_size: ids in all, the 16 special ones included.
      exact: False takes the largest vocabulary the text supports where `vocab_size` is more than that.
      character_coverage: share of the characters of the text that become pieces; below 1 only for scripts of
        thousands of characters, as training text then no longer round-trips.
      whole_words: let frequent words and numbers be pieces whole, apart from punctuation, for text of few different
        words. By default each digit is a piece, and so is a part of a word only that several words have: the trainer
        takes candidates from the list of different words, in which a frequent word stands once.

    Raises:
      UserError: no text, or a vocabulary smaller or larger than the text supports (the message says which).
    """
    if not 1 <= vocab_size <= MOST_PIECES:
        raise UserError(f"vocab_size must be between 1 and {MOST_PIECES}, got {vocab_size}")
    if not 0.98 <= character_coverage <= 1.0:  # what the trainer takes
        raise UserError(f"character_coverage must be between 0.98 and 1, got {character_coverage}")
    lines, marked = training_lines(texts)
    if not lines:
        of = "nothing but U+2585, sentencepiece's own mark; give other characters, too" if marked else "empty"
        raise UserError(f"cannot train a tokenizer: the training text is {of}")
    buffer = io.BytesIO()
    characters = sum(map(len, lines))
    status = Console(stderr=True).status(f"training a vocabulary of {vocab_size} on {characters:,} characters")
    arguments: dict[str, Any] = {"character_coverage": character_coverage, "split_digits": not whole_words}
    if whole_words:
        lines = [_WORD_ENDS.sub(_APART, line) for line in lines]
        arguments["pretokenization_delimiter"] = _APART
    try:
        with status if characters > _SAID else contextlib.nullcontext(), contextlib.ExitStack() as files:
            if whole_words:
                candidates = files.enter_context(tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".tsv"))
                candidates.write(_candidates(lines, max(2 * vocab_size, len(set("".join(lines))) + 16), arguments))
                candidates.flush()
                arguments["seed_sentencepieces_file"] = candidates.name
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=buffer,
                model_type="unigram",
                vocab_size=max(vocab_size, UNK_ID + 1),  # or it could not even say how many there must be
                hard_vocab_limit=exact,
                normalization_rule_name="identity",
                pad_id=PAD_ID,
                eos_id=EOS_ID,
                unk_id=UNK_ID,
                bos_id=-1,
                control_symbols=[HELP, *RESERVED],
                user_defined_symbols=[_MARK] if marked else [],
                unk_surface=UNKNOWN_TEXT,
                shuffle_input_sentence=False,
                max_sentence_length=1 << 24,  # in bytes
                num_threads=_THREADS,
                minloglevel=2,
                **arguments,
            )
    except (RuntimeError, ValueError) as error:
        if found := _TOO_LARGE.search(str(error)):
            raise UserError(
                f"vocab_size {vocab_size} is more than this text supports: "
                f"give more text, or --text.vocab-size of at most {found[1]}"
            ) from error
        if found := _TOO_SMALL.search(str(error)):
            raise UserError(
                f"vocab_size {vocab_size} is too small: the characters of this text alone need {found[1]}; give "
                f"--text.vocab-size {found[1]} or more, or --text.character-coverage 0.9995 to leave out the rarest"
            ) from error
        raise UserError(f"cannot train a tokenizer of {vocab_size} pieces on this text: {error}") from error
    return _without_paths(buffer.getvalue()) if whole_words else buffer.getvalue()


def _without_paths(model: bytes) -> bytes:
    """A model that does not say where its candidates stood for a moment."""
    from sentencepiece import sentencepiece_model_pb2

    described: Any = sentencepiece_model_pb2  # whose names no type checker sees
    read, field = described.ModelProto.FromString(model), "seed_sentencepieces_file"
    read.trainer_spec.DiscardUnknownFields()  # sentencepiece 0.2.0 writes it, and does not describe it
    if field in read.trainer_spec.DESCRIPTOR.fields_by_name:
        read.trainer_spec.ClearField(field)
    found: bytes = read.SerializeToString()
    return found


def _candidates(lines: Sequence[str], size: int, arguments: Mapping[str, Any]) -> str:
    """The pieces that frequent pairs merge into, and their weights, as the trainer reads them."""
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=buffer,
        model_type="bpe",
        vocab_size=size,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        max_sentence_length=1 << 24,
        minloglevel=2,
        **arguments,
    )
    merged = sentencepiece.SentencePieceProcessor(model_proto=buffer.getvalue())
    counts = Counter(piece for line in lines for piece in merged.encode(line.replace(_APART, ""), out_type=str))
    return "".join(f"{piece}\t{len(piece) * count}\n" for piece, count in counts.items())


def training_lines(texts: Iterable[str]) -> tuple[list[str], bool]:
    """The lines that the trainer is given, and whether U+2585 occurs in the texts.

    The trainer copies every stretch that occurs twice within lines, in all its lengths, before it asks whether that is
    too long for a piece, which takes the square of the stretch; and a word of some 100,000 letters is beyond its
    arithmetic. So no line has more than `LONG` characters.
    """
    lines: list[str] = []
    marked = False
    for text in map(normalize, texts):
        if _MARK in text:
            text, marked = normalize(text.replace(_MARK, " ")), True
        lines += _cut(_NAMES.sub("< ", text))
    return lines, marked


def _cut(text: str) -> Iterator[str]:
    """Lines of `LONG` characters at the most that end at white space, where there is any; none of an empty text."""
    start = 0
    while len(text) - start > LONG:
        space = text.rfind(" ", start + 1, start + LONG + 1)
        end = space if space > 0 else start + LONG
        yield text[start:end]
        start = end + (space > 0)
    if start < len(text):
        yield text[start:]
