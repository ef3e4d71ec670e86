"""Texts in which what the teacher wrote stands between brackets."""

from __future__ import annotations

from collections.abc import Sequence

SPACE = "▁"  # as sentencepiece writes it
END_PIECE = "</s>"
OPEN, CLOSE, END = "⟦", "⟧", "∎"


def whole_words(by_teacher: Sequence[bool], words: Sequence[int]) -> list[bool]:
    """Who counts as the writer of each token where a word with a token of the teacher's is the teacher's.

    Args:
      by_teacher: who wrote it.
      words: the number of its word, -1: of none. A space goes with the word after it.
    """
    helped = {word for word, of_teacher in zip(words, by_teacher, strict=True) if of_teacher and word >= 0}
    found, after = list[bool](), -1
    for word, of_teacher in zip(reversed(words), reversed(by_teacher), strict=True):
        after = word if word >= 0 else after
        found.append(after in helped if after >= 0 else of_teacher)
    return found[::-1]


def marked(pieces: Sequence[str], by_teacher: Sequence[bool]) -> str:
    """A text with the pieces that the teacher wrote between brackets; the end, where it is the teacher's, as ∎."""
    text, inside = "", False
    for piece, of_teacher in zip(pieces, by_teacher, strict=True):
        if piece == END_PIECE:
            piece = END if of_teacher else ""
        if inside and not of_teacher:
            text, inside = text + CLOSE, False
        if of_teacher and not inside:
            spaced = piece.startswith(SPACE)
            text, inside, piece = text + (SPACE if spaced else "") + OPEN, True, piece[spaced:]
        text += piece
    text += CLOSE if inside else ""
    text = text.replace(SPACE + OPEN + CLOSE, OPEN + SPACE + CLOSE)  # a space alone was the teacher's
    return text.replace(SPACE, " ").strip(" ")
