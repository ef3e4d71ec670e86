"""Which tokens begin a word, so that words are counted as white space divides them, whatever the pieces."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import regex

from kdtw_jax.text.normal import UNSPACED

_EOS = 1
_SPACE = "\u2581"  # as sentencepiece writes it
_BYTE = re.compile("<0x([0-7][0-9A-F])>")  # of ASCII, as sentencepiece writes it
_LETTER = regex.compile(UNSPACED, regex.VERSION1)


class WordMarks(NamedTuple):
    """What tokens are to words, bool [V] each.

    A token begins a word where it is not blank and begins one or comes after a blank token; padding, which stands
    before the first token, is blank. Blank tokens and the end of a text belong to no word.
    """

    begins_V: np.ndarray  # its piece has a space before it, or is a letter of a script without spaces
    blank_V: np.ndarray  # nothing but white space


def word_marks(pieces: Sequence[str], apart: Collection[int] = ()) -> WordMarks:
    """Finds them of a vocabulary.

    A piece that begins with a letter of Chinese, Japanese, Thai, Lao, Khmer, Burmese or Tibetan is a word of its own.
    Bytes have no script: of byT5 only white space divides words.

    Args:
      pieces: the text of every id, a space as "▁"; id 0 is padding.
      apart: ids before which a space is written although their pieces have none.
    """
    texts = [_text(piece) for piece in pieces]
    blank_V = np.array([i == 0 or text.isspace() for i, text in enumerate(texts)], bool)
    begins_V = np.array([i in apart or bool(text[:1] == " " or _LETTER.match(text)) for i, text in enumerate(texts)])
    return WordMarks(begins_V & ~blank_V, blank_V)


def word_numbers(marks: WordMarks, tokens: Sequence[int]) -> list[int]:
    """Says to which word of a text, from 0, each of its `tokens` belongs; -1: to none."""
    numbers, words = list[int](), 0
    for last, token in zip([0, *tokens[:-1]], tokens, strict=True):
        blank = token == _EOS or bool(marks.blank_V[token])
        words += not blank and bool(marks.begins_V[token] or marks.blank_V[last])
        numbers.append(-1 if blank else words - 1)
    return numbers


def _text(piece: str) -> str:
    byte = _BYTE.fullmatch(piece)
    return chr(int(byte[1], 16)) if byte else piece.replace(_SPACE, " ")
