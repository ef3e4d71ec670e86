"""How a vocabulary of byte pairs joins what it begins with: one form for merges by rank and for pieces with scores.

A `tokenizer.json` lists merges, best first. A sentencepiece model of the kind BPE, and so a GGUF file of Llama's kind,
has a score for each piece, and joins whatever two neighbours make the piece of the highest score. The first says what
the second does if its merges are all ways to halve each piece, by falling scores; that is how published ones were made.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby, zip_longest
from typing import NamedTuple

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Joined(NamedTuple):
    """A piece that is made of two."""

    piece: str
    firsts: tuple[str, ...]  # the first of the two, sorted: all that there may be


class Pairing(NamedTuple):
    """What decides how a text is cut once it is normalised; two of them are equal if they cut alike."""

    joined: tuple[Joined, ...]  # in the order in which they are preferred
    found_first: frozenset[str]  # tokens that are found before anything is joined
    unused: frozenset[str]  # pieces that are joined and then taken apart again
    of_bytes: bool  # whether a character that no piece has becomes its bytes
    words_whole: bool  # whether a word that is a piece is not joined first

    def difference(self, other: Pairing) -> str | None:
        """The first thing in which two differ, in words; there is `self`, here `other`; None where there is none."""
        for there, here in zip_longest(self.joined, other.joined):
            if there == here:
                continue
            if there is None or here is None:
                extra, where, not_where = (here, "here", "there") if there is None else (there, "there", "here")
                return f"{extra.piece!r} is made of two pieces {where} and not {not_where}"
            if there.piece != here.piece:
                return f"pieces are joined in another order: {there.piece!r} comes first there, {here.piece!r} here"
            first = min({*there.firsts} ^ {*here.firsts})
            where, not_where = ("there", "here") if first in there.firsts else ("here", "there")
            rest = there.piece.removeprefix(first)
            return f"{there.piece!r} is made of {first!r} and {rest!r} {where} and not {not_where}"
        for what, mine, its in (
            ("is found before anything else", self.found_first, other.found_first),
            ("is never used", self.unused, other.unused),
        ):
            if differ := mine ^ its:
                first = min(differ)
                where, not_where = ("there", "here") if first in mine else ("here", "there")
                return f"{first!r} {what} {where} and not {not_where}"
        for what, is_so, also in (
            ("unknown characters become bytes", self.of_bytes, other.of_bytes),
            ("words that are pieces are kept whole", self.words_whole, other.words_whole),
        ):
            if is_so != also:
                return f"{what} {'there' if is_so else 'here'} and not {'here' if is_so else 'there'}"
        return None


def joined_by_merges(merges: Iterable[tuple[str, str]], apart: Collection[str]) -> tuple[Joined, ...]:
    """What a list of merges makes, best first.

    Args:
      merges: two pieces each.
      apart: tokens that no text is joined to, and that are joined to nothing.
    """
    never = frozenset(apart)
    kept = ((first, second) for first, second in merges if not {first, second, first + second} & never)
    runs = groupby(kept, key="".join)
    return tuple(Joined(piece, tuple(sorted(first for first, _ in pairs))) for piece, pairs in runs)


def joined_by_scores(pieces: Sequence[str], scores: Sequence[float]) -> tuple[Joined, ...]:
    """What pieces with scores make, the highest first, and of equal ones the first.

    Args:
      pieces: those that texts can be joined to, different ones.
      scores: of them.
    """
    known = {*pieces}
    found = []
    for i in sorted(range(len(pieces)), key=lambda i: (-scores[i], i)):
        piece = pieces[i]
        halves = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        if firsts := [first for first, second in halves if first in known and second in known]:
            found.append(Joined(piece, tuple(sorted(firsts))))
    return tuple(found)


def is_byte(piece: str) -> bool:
    """Whether a `piece` stands for a byte, as sentencepiece names them."""
    return _BYTE.fullmatch(piece) is not None
