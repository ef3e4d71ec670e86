"""Asking a teacher elsewhere: requests of many rows in one call, in a thread of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from time import monotonic

import numpy as np

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.errors import UserError
from kdtw_jax.teachers.protocol import Prefix, Teacher, TeacherAbout, TeacherUnavailable, TopTokens

_LOG = logging.getLogger("kdtw_jax.serving")
_CLOSING = 10.0  # seconds that a call under way has when the asker is closed
Told = Callable[[Hashable, TopTokens | None], None]
_Call = tuple["Future[list[TopTokens]]", list[Prefix]]


class Asker:
    """Hands prefixes to a teacher and what it says to `told`, from a thread of its own; None: there is no answer."""

    def __init__(
        self,
        teacher: Teacher,
        told: Told,
        *,
        banned: Sequence[int],
        top_k: int,
        pause: float = 2.0,
        patience: float | None = None,
    ):
        """Begins.

        Args:
          teacher: who is asked.
          told: called with the key of a request and the answer.
          banned: tokens that are never written; an answer has to have two others.
          top_k: of how many tokens it is to say.
          pause: seconds after a failure in which it is not asked, and there is no answer at once.
          patience: seconds that a call may take; until one that took longer has come back there is no answer at once.
            None: as long as it takes.
        """
        self._teacher, self._told, self._top_k, self._pause = teacher, told, min(top_k, teacher.about.max_top_k), pause
        self._banned, self._patience = frozenset(banned), patience
        self._queue: SimpleQueue[tuple[Hashable, Prefix] | None] = SimpleQueue()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._last: Future[list[TopTokens]] | None = None
        self._until = 0.0
        self.failures = 0
        """calls without an answer so far"""
        # A call cannot be broken off, so that another thread waits for it than the one that answers rows.
        self._caller = Thread(target=self._call, name="kdtw-teacher-call", daemon=True)
        self._thread = Thread(target=self._run, name="kdtw-teacher", daemon=True)
        self._caller.start()
        self._thread.start()

    def ask(self, key: Hashable, prefix: Prefix) -> None:
        """Asks for the token after a prefix; `told` gets the key back."""
        self._queue.put((key, prefix))

    def close(self) -> None:
        """Asks no more; what runs comes to its end, if that is soon."""
        self._queue.put(None)
        self._thread.join(_CLOSING)
        self._calls.put(None)
        if not self._is_stuck():
            self._caller.join(_CLOSING)

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
        if not prefixes or monotonic() < self._until or self._is_stuck():
            return nothing
        try:
            said = self._said(prefixes)
            if len(said) != len(prefixes):
                raise TeacherUnavailable(f"{len(said)} answers to {len(prefixes)} requests")
            return [one if self._is_usable(one) else None for one in said]
        except ValueError as error:  # one of them can never be answered; the others can
            if half := len(prefixes) // 2:
                return [*self._answers(prefixes[:half]), *self._answers(prefixes[half:])]
            self.failures += 1
            _LOG.warning("the teacher refuses a request: %s", error)
        except Exception as error:  # a student goes on alone, whatever it is
            self.failures += 1
            self._until = monotonic() + self._pause
            _LOG.warning("the teacher does not answer: %s", error)
        return nothing

    def _said(self, prefixes: list[Prefix]) -> list[TopTokens]:
        """What the teacher says, if it does so in time."""
        self._last = Future()
        self._calls.put((self._last, prefixes))
        try:
            return self._last.result(self._patience)
        except TimeoutError as error:
            raise TeacherUnavailable(str(error) or f"no answer within {self._patience} s") from error

    def _is_stuck(self) -> bool:
        """Whether a call that nobody waits for any more is still under way."""
        return self._last is not None and not self._last.done()

    def _call(self) -> None:
        while (call := self._calls.get()) is not None:
            future, prefixes = call
            try:
                future.set_result(self._teacher.next_token(prefixes, self._top_k))
            except BaseException as error:  # it is raised where the answer is waited for
                future.set_exception(error if isinstance(error, Exception) else TeacherUnavailable(repr(error)))

    def _is_usable(self, said: TopTokens) -> bool:
        """Whether two tokens or more of it may be written: the end of a text may be withheld.

        Raises:
          TeacherUnavailable: it is no distribution.
        """
        ids_K, log_probs_K = np.asarray(said.ids_K), np.asarray(said.log_probs_K)
        if ids_K.ndim != 1 or ids_K.dtype.kind not in "iu" or ids_K.shape != log_probs_K.shape:
            raise TeacherUnavailable(f"ids {ids_K.dtype}{ids_K.shape} and log-probabilities {log_probs_K.shape}")
        size = self._teacher.about.vocab_size
        if not ((ids_K >= 0) & (ids_K < size)).all() or np.isnan(log_probs_K).any():
            raise TeacherUnavailable("an id beyond the vocabulary, or a log-probability that is not a number")
        return len(set(ids_K.tolist()) - self._banned) > 1


def check_teacher(about: TeacherAbout, tokenizer: Tokenizer) -> None:
    """Checks that a teacher can help.

    Args:
      about: what it is; a vocabulary "" is one that it does not say.
      tokenizer: the student's.

    Raises:
      UserError: it has another vocabulary, or says of one token of a place alone.
    """
    own = vocabulary_hash(tokenizer)
    if about.vocab_size > tokenizer.vocab_size:
        raise UserError(
            f"the teacher {about.name} has {about.vocab_size} tokens and the student {tokenizer.vocab_size}; "
            "take the teacher that it learned from"
        )
    if about.vocabulary not in ("", own):
        raise UserError(
            f"the teacher {about.name} has another vocabulary ({about.vocabulary}) than the student ({own}); "
            "take the teacher that it learned from"
        )
    if about.max_top_k < 2:  # one may have to be withheld
        raise UserError(
            f"the teacher {about.name} says {about.max_top_k} log-probability of a place, and 2 are needed; "
            "have its server give more"
        )
