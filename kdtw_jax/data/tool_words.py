"""Words that a tool writes into a text, as tokens of a vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdtw_jax.data.tokenizer import EOS_ID, Tokenizer

# (source text, what is written so far) -> the next word or words; None: nothing to say here.
Tool = Callable[[str, str], str | None]


def tokens_of_text(tokenizer: Tokenizer, written: Sequence[int], written_text: str, text: str) -> tuple[int, ...]:
    """The tokens that write a text behind another one, with a space between; none where the vocabulary has them not.

    Args:
      tokenizer: the student's.
      written: tokens of the other one.
      written_text: their text.
      text: that is to follow.
    """
    wanted = f"{written_text} {text}".split()
    for ids in (tokenizer.encode_target(text), tokenizer.encode_target(f" {text}")):
        if ids and tokenizer.decode([*written, *ids]).split() == wanted:
            return tuple(ids)
    return ()


def tokens_apart(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens of a `tokenizer` that do not go on with a word's letters and digits."""
    marks, pieces = tokenizer.words, tokenizer.pieces
    found = [
        i for i, piece in enumerate(pieces) if i == EOS_ID or marks.begins_V[i] or not any(map(str.isalnum, piece))
    ]
    return tuple(found)
