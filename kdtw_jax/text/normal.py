"""Text as the models see it, and its words in any script."""

from __future__ import annotations

import re
import unicodedata

import regex

# sentencepiece writes a space as U+2581, so that character typed by a user could not be told from a space.
_SPACES = re.compile("[\\x00-\\x1f\\x7f-\\x9f\u2581\\s]+")
_VISIBLE = regex.compile(r"[^\s\p{Cc}\p{Default_Ignorable_Code_Point}\u2581]")
_SURROGATES = re.compile("[\ud800-\udfff]")
# Scripts that write no space between words: their letters are words of their own, with the marks on them.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}&&[\p{L}\p{Nl}]]"
# Of other scripts, runs of letters, marks and digits. `\w` would split Hindi at its vowel signs; the two joiners, which
# stand inside words of Hindi and Persian, end no word either.
_SPACED = rf"[[\p{{L}}\p{{M}}\p{{N}}]--{UNSPACED}]+"
_WORD = regex.compile(rf"{UNSPACED}\p{{M}}*|{_SPACED}(?:[\u200c\u200d]+{_SPACED})*", regex.VERSION1)


def normalize(text: str) -> str:
    """NFC, with every run of white space or control characters one space and none at the ends.

    This is all that a tokenizer of ours forgets: `decode(encode(text)) == normalize(text)` when it knows every
    character. Lone surrogates, which are no characters, become U+FFFD.
    """
    text = without_surrogates(text)
    return _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip(" ")


def is_blank(text: str) -> bool:
    """Whether a text shows nothing.

    White space, controls and invisible marks (zero-width spaces, byte-order marks, soft hyphens, marks of direction)
    do not show.
    """
    return not _VISIBLE.search(text)


def without_surrogates(text: str) -> str:
    """The text with every lone surrogate U+FFFD: what UTF-8 can say."""
    return _SURROGATES.sub("\ufffd", text)


def words(text: str) -> list[str]:
    """The words of a text without case and punctuation.

    They are runs of letters, marks and digits, but each character for itself in Chinese, Japanese, Thai, Lao, Khmer,
    Burmese and Tibetan. On ASCII these are rouge-score's.
    """
    found: list[str] = _WORD.findall(text.casefold())
    return found
