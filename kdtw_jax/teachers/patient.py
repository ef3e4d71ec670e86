"""A teacher that is waited for: calls that go on until there is an answer, for so long, and say that they wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from kdtw_jax.errors import Unreachable, UserError
from kdtw_jax.lines import say
from kdtw_jax.teachers.protocol import Prefix, RowScores, Teacher, TeacherAbout, TeacherUnavailable, TopTokens

T = TypeVar("T")
_AGAIN_S = 2.0  # between two attempts, each of which has repeats of its own
_SAID_S = 10.0  # between two lines that say so


class PatientTeacher:
    """A `Teacher` of which each call is tried again for `wait_s` seconds after the first that had no answer.

    For work that may wait, as labels and training; where somebody waits for the answer, a student goes on alone.
    """

    def __init__(
        self,
        teacher: Teacher,
        wait_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str], None] = say,
    ):
        """A patient one.

        Args:
          teacher: who is asked.
          wait_s: seconds, after which `Unreachable` is raised.
          clock: seconds.
          tell: of lines that say that it is waited for.
        """
        self._teacher, self._wait_s, self._clock, self._tell = teacher, wait_s, clock, tell
        self._closed = threading.Event()
        self._lock, self._said_at = threading.Lock(), -_SAID_S

    @property
    def about(self) -> TeacherAbout:
        """What it is."""
        return self._teacher.about

    def next_token(self, prefixes: Sequence[Prefix], top_k: int = 8) -> list[TopTokens]:
        """As `Teacher.next_token`: `top_k` log-probabilities of each.

        Raises:
          Unreachable: there was no answer for too long.
          UserError: there can be none.
        """
        return self._asked(lambda: self._teacher.next_token(prefixes, top_k))

    def score(self, prefixes: Sequence[Prefix], tokens: Sequence[Sequence[int]], top_k: int = 0) -> list[RowScores]:
        """As `Teacher.score`: of the tokens, and `top_k` log-probabilities at each place.

        Raises:
          Unreachable: there was no answer for too long.
          UserError: there can be none.
        """
        return self._asked(lambda: self._teacher.score(prefixes, tokens, top_k))

    def generate(self, prefixes: Sequence[Prefix], max_len: int, banned: Sequence[int] = ()) -> list[list[int]]:
        """As `Teacher.generate`: at most `max_len` tokens, none of them `banned`.

        Raises:
          Unreachable: there was no answer for too long.
          UserError: there can be none.
        """
        return self._asked(lambda: self._teacher.generate(prefixes, max_len, banned))

    def close(self) -> None:
        """Closes the teacher; calls that wait end."""
        self._closed.set()
        self._teacher.close()

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return waited(ask, self._wait_s, clock=self._clock, tell=self._say, closed=self._closed)
        except ValueError as error:  # it can never be answered
            raise UserError(f"the teacher {self.about.name} cannot answer: {error}") from error

    def _say(self, line: str) -> None:
        """At most one now and then, whichever of the threads has it."""
        with self._lock:
            now = self._clock()
            if now - self._said_at < _SAID_S:
                return
            self._said_at = now
        self._tell(line)


def waited(
    ask: Callable[[], T],
    wait_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = say,
    closed: threading.Event | None = None,
) -> T:
    """Asks until there is an answer.

    Args:
      ask: raises `TeacherUnavailable` where there is none.
      wait_s: seconds from the first failure on in which it is tried again.
      clock: seconds.
      tell: of lines that say that it is waited for, one for each attempt.
      closed: ends the waiting once it is set.

    Raises:
      Unreachable: there was none for too long.
    """
    closed, begun = closed or threading.Event(), None
    while True:
        try:
            return ask()
        except TeacherUnavailable as error:
            begun = clock() if begun is None else begun
            waited_s = clock() - begun
            if closed.is_set() or waited_s >= wait_s:
                raise Unreachable(f"the teacher was waited for {wait_s:g} s: {error}") from error
            tell(f"waiting for the teacher, {waited_s:.0f} of {wait_s:g} s: {error}")
        closed.wait(min(_AGAIN_S, wait_s))
