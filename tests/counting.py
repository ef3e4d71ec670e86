"""Words counted slowly, from texts: what units have to agree with; and vocabularies of a few pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from kdtw_jax.constraints import Unit, make_unit
from kdtw_jax.text.words import word_marks

PIECES = ("", "</s>", "▁", "a", "b", "▁a", "▁b", ".", "▁c", "c")
BYTES = ("", "</s>", "▁", "a", "b", "c", "d", ".", "e", "f")  # no piece but the space has one


def unit_of(name: str) -> Unit:
    """ "token", "word", "bytes" (words of bytes) or a number."""
    return make_unit("word" if name == "bytes" else name, word_marks(pieces_of(name)))


def pieces_of(name: str) -> tuple[str, ...]:
    return BYTES if name == "bytes" else PIECES


class Count(NamedTuple):
    """Of an output."""

    length: int
    helped: int
    calls: int
    own: int | None  # words of the student's own since the last helped one; None: there is none
    in_a_row: int  # helped words at the end


def count_words(pieces: Sequence[str], asked: Sequence[bool]) -> Count:
    """Of pieces as they stand in a text, perhaps with its end."""
    writers: list[list[bool]] = []  # of each word
    calls, answering, has_word, before = 0, False, False, "▁"
    for piece, by_teacher in zip(pieces, asked, strict=True):
        ends, blank = piece == "</s>", not piece.strip("▁")
        new = not ends and not blank and (piece.startswith("▁") or before.endswith("▁"))
        inside = not (ends or blank or new)
        if by_teacher and not (answering and (inside if has_word else not ends)):
            calls, has_word = calls + 1, False
        answering = by_teacher
        has_word = has_word or not blank
        if new:
            writers.append([by_teacher])
        elif inside:
            writers[-1].append(by_teacher)
        before = piece
    text = "".join(piece for piece in pieces if piece != "</s>").replace("▁", " ")
    assert len(text.split()) == len(writers)
    helped = [any(word) for word in writers]
    last = len(helped) - helped[::-1].index(True) if True in helped else 0
    run = 0
    while run < len(helped) and helped[-1 - run]:
        run += 1
    return Count(len(helped), sum(helped), calls, len(helped) - last if last else None, run)


def random_outputs(rows: int, length: int, seed: int, vocabulary: int = len(PIECES)) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of outputs that end somewhere, and who wrote them, in runs."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, vocabulary, (rows, length)).astype(np.int32)
    ends = rng.integers(0, 2 * length, rows)
    for row, end in enumerate(ends):
        if end < length:
            tokens[row, end], tokens[row, end + 1 :] = 1, 0
    change = rng.random((rows, length)) < 0.4
    asked = np.cumsum(change, axis=1) % 2 == 0
    return tokens, asked & (tokens != 0)


def source(rows: int) -> jnp.ndarray:
    return jnp.ones((rows, 3), jnp.int32)
