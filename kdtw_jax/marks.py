"""Texts in which what the teacher wrote stands between brackets, and what a calculator wrote between others."""

from __future__ import annotations

from collections.abc import Sequence

SPACE = "▁"  # as sentencepiece writes it
END_PIECE = "</s>"
OPEN, CLOSE, END = "⟦", "⟧", "∎"
TOOL_OPEN, TOOL_CLOSE = "⟨", "⟩"
SPELLED = {OPEN: "[[", CLOSE: "]]", TOOL_OPEN: "<", TOOL_CLOSE: ">", END: "<end>"}
"""how marks are written where an encoding lacks them"""
STUDENT, TEACHER, CALCULATOR = range(3)
_AROUND = {TEACHER: (OPEN, CLOSE), CALCULATOR: (TOOL_OPEN, TOOL_CLOSE)}


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


def marked(pieces: Sequence[str], writers: Sequence[int]) -> str:
    """A text with marks around what the student did not write; the end, where it is the teacher's, as ∎.

    Args:
      pieces: of the text, a space as "▁".
      writers: of each `STUDENT`, `TEACHER` or `CALCULATOR`; or whether it is the teacher's.
    """
    text, inside = "", STUDENT
    for piece, writer in zip(pieces, map(int, writers), strict=True):
        if piece == END_PIECE:
            piece = END if writer else ""
        if inside and writer != inside:
            text, inside = text + _AROUND[inside][1], STUDENT
        if writer and not inside:
            spaced = piece.startswith(SPACE)
            text, inside, piece = text + (SPACE if spaced else "") + _AROUND[writer][0], writer, piece[spaced:]
        text += piece
    text += _AROUND[inside][1] if inside else ""
    for begin, end in _AROUND.values():  # a space alone was another's
        text = text.replace(SPACE + begin + end, begin + SPACE + end)
    return text.replace(SPACE, " ").strip(" ")
