"""Asking a teacher elsewhere: requests of many rows in one call, in a thread of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from queue import SimpleQueue
from threading import Thread
from time import monotonic

from kdtw_jax.teachers.protocol import Prefix, Teacher, TeacherUnavailable, TopTokens

_LOG = logging.getLogger("kdtw_jax.serving")
Told = Callable[[Hashable, TopTokens | None], None]


class Asker:
    """Hands prefixes to a teacher and what it says to `told`, from a thread of its own; None: there is no answer."""

    def __init__(self, teacher: Teacher, told: Told, *, banned: Sequence[int], top_k: int, pause: float = 2.0):
        """Begins.

        Args:
          teacher: who is asked.
          told: called with the key of a request and the answer.
          banned: tokens that are never written; an answer has to have two others.
          top_k: of how many tokens it is to say.
          pause: seconds after a failure in which it is not asked, and there is no answer at once.
        """
        self._teacher, self._told, self._top_k, self._pause = teacher, told, min(top_k, teacher.about.max_top_k), pause
        self._banned = frozenset(banned)
        self._queue: SimpleQueue[tuple[Hashable, Prefix] | None] = SimpleQueue()
        self._until = 0.0
        self.failures = 0
        """calls without an answer so far"""
        self._thread = Thread(target=self._run, name="kdtw-teacher", daemon=True)
        self._thread.start()

    def ask(self, key: Hashable, prefix: Prefix) -> None:
        """Asks for the token after a prefix; `told` gets the key back."""
        self._queue.put((key, prefix))

    def close(self) -> None:
        """Asks no more; what runs comes to its end."""
        self._queue.put(None)
        self._thread.join(10.0)

    def _run(self) -> None:
        while True:
            asked = [self._queue.get()]
            while not self._queue.empty():
                asked.append(self._queue.get())
            wanted = [one for one in asked if one is not None]
            for (key, _), said in zip(wanted, self._answers([prefix for _, prefix in wanted]), strict=True):
                self._told(key, said)
            if len(wanted) < len(asked):
                return

    def _answers(self, prefixes: list[Prefix]) -> Sequence[TopTokens | None]:
        nothing: list[TopTokens | None] = [None] * len(prefixes)
        if not prefixes or monotonic() < self._until:
            return nothing
        try:
            said = self._teacher.next_token(prefixes, self._top_k)
            if len(said) != len(prefixes):
                raise TeacherUnavailable(f"{len(said)} answers to {len(prefixes)} requests")
        except Exception as error:  # a student goes on alone, whatever it is
            self.failures += 1
            self._until = monotonic() + self._pause
            _LOG.warning("the teacher does not answer: %s", error)
            return nothing
        return [one if self._is_usable(one) else None for one in said]

    def _is_usable(self, said: TopTokens) -> bool:
        """Whether two tokens or more of it may be written: the end of a text may be withheld."""
        return len({int(token) for token in said.ids_K} - self._banned) > 1
