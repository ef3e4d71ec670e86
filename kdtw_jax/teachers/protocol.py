"""What a teacher can be asked, wherever it runs: in this process, behind a server of ours, or in an engine of others.

A teacher is handed token ids of the vocabulary that it shares with its student, never texts. It says what it is and
what it can do (`TeacherAbout`), so that a caller need not find out by trying.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


@dataclass(frozen=True)
class TeacherAbout:
    """What a teacher is, and what it can do."""

    name: str
    """for messages and manifests"""
    vocabulary: str
    """a hash of the content of its vocabulary (`vocabulary_hash`); another one is another language"""
    vocab_size: int
    """ids go from 0 up to this, and are of both teacher and student"""
    reads_rows: bool
    """reads a whole row in one call (`score`); otherwise position by position"""
    max_top_k: int
    """the most log-probabilities that it says for a position"""
    model: str = ""
    """a hash of what it computes (`model_hash`), which another model of that vocabulary has not; "": it does not say"""


class Prefix(NamedTuple):
    """What stands before the next token."""

    source: tuple[int, ...]
    """what an encoder reads, or the prompt of a decoder-only model; its end token included where the model has one"""
    written: tuple[int, ...] = ()
    """tokens of the output so far, whoever wrote them"""
    session: str = ""
    """prefixes of one output have one name, under which a teacher may keep what it has read"""


class TopTokens(NamedTuple):
    """A distribution of the next token, from its most probable ones, at temperature 1."""

    ids_K: np.ndarray  # int32, most probable first
    log_probs_K: np.ndarray  # float32, nats, of the whole vocabulary: their exponentials sum to at most 1


class RowScores(NamedTuple):
    """What a teacher makes of T tokens that stand after a prefix."""

    log_probs_T: np.ndarray  # float32, nats, of each of the tokens given those before it
    top_ids_TxK: np.ndarray  # int32, the most probable ones at each place, in order
    top_log_probs_TxK: np.ndarray  # float32, nats


class TeacherUnavailable(Exception):
    """A teacher did not answer, or answered what cannot be right; a student may go on alone."""


class Teacher(Protocol):
    """Answers in batches; an answer for each request, in order. Threads may call one teacher at a time.

    All methods raise `TeacherUnavailable` where there is no answer to be had, and ValueError for requests that the
    teacher can never answer (an id beyond the vocabulary, `top_k` beyond `max_top_k`).
    """

    @property
    def about(self) -> TeacherAbout:
        """What it is."""
        ...

    def next_token(self, prefixes: Sequence[Prefix], top_k: int = 8) -> list[TopTokens]:
        """The distribution of the token after each prefix."""
        ...

    def score(self, prefixes: Sequence[Prefix], tokens: Sequence[Sequence[int]], top_k: int = 0) -> list[RowScores]:
        """What it makes of the tokens after each prefix, end-of-sequence included where it is one of them."""
        ...

    def generate(self, prefixes: Sequence[Prefix], max_len: int, banned: Sequence[int] = ()) -> list[list[int]]:
        """Greedy continuations up to end-of-sequence, included, or `max_len` tokens; none of them is `banned`."""
        ...

    def close(self) -> None:
        """Gives back connections and memory; calls after this raise `TeacherUnavailable`."""
        ...
