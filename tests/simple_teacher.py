"""A teacher that needs no model: its distributions are drawn from what stands before the token."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence

import numpy as np

from kdtw_jax.teachers import Prefix, RowScores, TeacherAbout, TopTokens
from kdtw_jax.teachers.requests import check_generate, check_next, check_score

V, EOS = 24, 1


class SimpleTeacher:
    """Answers one call at a time, and counts calls and rows; `at_work` is waited for, where tests hold it."""

    def __init__(self, vocabulary: str = "simple", model: str = "one"):
        self.about = TeacherAbout("simple", vocabulary, V, True, V, model)
        self.calls: list[tuple[str, int]] = []
        self.at_work = threading.Event()
        self.at_work.set()

    def log_probs(self, prefix: Prefix, more: Sequence[int] = ()) -> np.ndarray:
        seed = zlib.crc32(repr((tuple(prefix.source), (*prefix.written, *more))).encode())
        logits = 3 * np.random.RandomState(seed).standard_normal(V)
        return (logits - np.log(np.exp(logits).sum())).astype(np.float32)

    def next_token(self, prefixes: Sequence[Prefix], top_k: int = 8) -> list[TopTokens]:
        self._begin("next", len(prefixes))
        check_next(self.about, prefixes, top_k)
        return [self._top(self.log_probs(prefix), top_k) for prefix in prefixes]

    def score(self, prefixes: Sequence[Prefix], tokens: Sequence[Sequence[int]], top_k: int = 0) -> list[RowScores]:
        self._begin("score", len(prefixes))
        check_score(self.about, prefixes, tokens, top_k)
        found = []
        for prefix, row in zip(prefixes, tokens, strict=True):
            places = [self.log_probs(prefix, row[:t]) for t in range(len(row))]
            tops = [self._top(place, top_k) for place in places]
            found.append(
                RowScores(
                    np.asarray([place[token] for place, token in zip(places, row, strict=True)], np.float32),
                    np.asarray([top.ids_K for top in tops], np.int32).reshape(len(row), top_k),
                    np.asarray([top.log_probs_K for top in tops], np.float32).reshape(len(row), top_k),
                )
            )
        return found

    def generate(self, prefixes: Sequence[Prefix], max_len: int, banned: Sequence[int] = ()) -> list[list[int]]:
        self._begin("generate", len(prefixes))
        check_generate(self.about, prefixes, max_len, banned)
        found = []
        for prefix in prefixes:
            row: list[int] = []
            while len(row) < max_len and row[-1:] != [EOS]:
                log_prob_V = self.log_probs(prefix, row)
                log_prob_V[list(banned)] = -np.inf
                row.append(int(log_prob_V.argmax()))
            found.append(row)
        return found

    def close(self) -> None: ...

    def _begin(self, what: str, rows: int) -> None:
        self.calls.append((what, rows))
        self.at_work.wait(60)

    def _top(self, log_prob_V: np.ndarray, top_k: int) -> TopTokens:
        order = np.argsort(-log_prob_V, kind="stable")[:top_k].astype(np.int32)
        return TopTokens(order, log_prob_V[order])


PREFIXES = [Prefix((5, 6, 1)), Prefix((7, 1), (9, 10), "a"), Prefix((8, 9, 10, 1), (11,)), Prefix((5, 6, 1), (4,), "b")]
TOKENS: list[Sequence[int]] = [(3, 4, 1), (), (5,), (6, 7, 8, 9, 1)]


def same_answers(one: object, other: object) -> None:
    """The same numbers, whatever carries them."""
    if isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, list | tuple):
        assert isinstance(other, list | tuple) and len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same_answers(a, b)
    else:
        assert one == other
