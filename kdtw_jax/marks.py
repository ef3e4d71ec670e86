"""Texts in which what the teacher wrote stands between brackets."""

from __future__ import annotations

from collections.abc import Sequence

SPACE = "▁"  # as sentencepiece writes it
END_PIECE = "</s>"
OPEN, CLOSE, END = "⟦", "⟧", "∎"


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
