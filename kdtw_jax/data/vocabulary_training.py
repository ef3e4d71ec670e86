"""Training of a vocabulary of our own: what sentencepiece is given, and what it says."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable, Iterator

import sentencepiece
from rich.console import Console

from kdtw_jax.data.text import normalize
from kdtw_jax.errors import UserError

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
HELP = "<help>"
RESERVED = tuple(f"<reserved_{i}>" for i in range(12))
UNKNOWN_TEXT = "⁇"
LONG = 4096  # characters of a line that are left whole whatever they are
LONGEST = 1_000_000  # characters of any line; of 2**24 bytes, sentencepiece would drop it silently
# sentencepiece's own mark for unknown text: it drops every line with it, unless it is a symbol of the user's.
_MARK = "\u2585"
# Names of control symbols are cut out of the lines, so that their characters would not count.
_NAMES = re.compile("<(?=(?:unk|pad|/s|help|reserved_[0-9]+)>)")
# The trainer's expected counts are summed per thread, so its bytes depend on the number of threads: fix it.
_THREADS = 2
_TOO_LARGE = re.compile(r"value <= (\d+)")
_TOO_SMALL = re.compile(r"required_chars\. \d+ vs (\d+)")
_SAID = 1_000_000  # characters that take a second or so


def train_model(texts: Iterable[str], *, vocab_size: int, exact: bool = True, character_coverage: float = 1.0) -> bytes:
    """Train a unigram model on `texts`: the same texts give the same bytes, those of a sentencepiece model.

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
    if not 0.98 <= character_coverage <= 1.0:  # what the trainer takes
        raise UserError(f"character_coverage must be between 0.98 and 1, got {character_coverage}")
    lines, marked = training_lines(texts)
    if not lines:
        raise UserError("cannot train a tokenizer: the training text is empty")
    buffer = io.BytesIO()
    characters = sum(map(len, lines))
    status = Console(stderr=True).status(f"training a vocabulary of {vocab_size} on {characters:,} characters")
    try:
        with status if characters > _SAID else contextlib.nullcontext():
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
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
                user_defined_symbols=[_MARK] if marked else [],
                unk_surface=UNKNOWN_TEXT,
                shuffle_input_sentence=False,
                max_sentence_length=1 << 24,  # in bytes
                num_threads=_THREADS,
                minloglevel=2,
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
    return buffer.getvalue()


def training_lines(texts: Iterable[str]) -> tuple[list[str], bool]:
    """The lines that the trainer is given, and whether U+2585 occurs in the texts.

    The trainer copies every stretch that occurs twice, in all its lengths, before it asks whether that is too long
    for a piece, which takes the square of the stretch: long lines that repeat themselves, or begin or end like
    another, are cut to lines of `LONG` characters at the most.
    """
    lines: list[str] = []
    seen: set[str] = set()
    marked = False
    for text in map(normalize, texts):
        if _MARK in text:
            text, marked = normalize(text.replace(_MARK, " ")), True
        text = _NAMES.sub("< ", text)
        if len(text) <= LONG:
            lines += [text] if text else []
            continue
        ends = {text[:LONG], text[-LONG:]}
        cut = len(text) > LONGEST or ends & seen or _repeats(text)
        lines += _cut(text) if cut else [text]
        seen |= ends
    return lines, marked


def _repeats(text: str) -> bool:
    """Whether a stretch of `LONG` characters occurs twice: one of the even parts of half its length then does."""
    half = LONG // 2
    return any(text.find(text[i : i + half], i + 1) >= 0 for i in range(0, len(text) - half, half))


def _cut(text: str) -> Iterator[str]:
    """Lines that end at white space, where there is any."""
    start = 0
    while len(text) - start > LONG:
        space = text.rfind(" ", start + 1, start + LONG + 1)
        end = space if space > 0 else start + LONG
        yield text[start:end]
        start = end + (space > 0)
    yield text[start:]
