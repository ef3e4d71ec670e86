"""Requests of many clients to one teacher, answered together: what waits is one batch, and what is written goes on in
slices that new requests join."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from kdtw_jax.data.vocabulary_training import EOS_ID
from kdtw_jax.teachers.protocol import Prefix, RowScores, Teacher, TopTokens

SLICE = 8  # tokens that are written before others are looked at


class Full(Exception):
    """Too much is waiting."""


@dataclass(eq=False)
class _Job:
    """A request; its answer is a list with an entry for each prefix."""

    kind: str
    prefixes: list[Prefix]
    top_k: int = 0
    tokens: Sequence[Sequence[int]] = ()
    max_len: int = 0
    banned: tuple[int, ...] = ()
    answer: asyncio.Future[list[Any]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    written: list[list[int]] = field(default_factory=list)

    def unfinished(self) -> list[int]:
        """Rows that go on."""
        return [i for i, row in enumerate(self.written) if len(row) < self.max_len and row[-1:] != [EOS_ID]]


class Batcher:
    """Puts requests together for a teacher that one thread asks.

    Rows of one kind are one batch: next tokens, scores, and continuations under the same bans. Continuations are
    written `SLICE` tokens at a time, each row in a session of its own, so that a long one holds nobody up.

    Attributes:
      answered: prefixes that were answered.
      batches: calls of the teacher for that.
    """

    def __init__(self, teacher: Teacher, *, rows: int = 64, waiting: int = 256):
        """A batcher that is not running yet.

        Args:
          teacher: who answers.
          rows: prefixes that are asked about together at the most.
          waiting: prefixes that may wait, beyond which `Full` is raised.
        """
        self._teacher, self._rows, self._most_waiting = teacher, rows, waiting
        self._waiting: deque[_Job] = deque()
        self._taken: list[_Job] = []  # that are answered now
        self._writing: list[_Job] = []  # whose texts are not whole
        self._news = asyncio.Event()
        self._names = itertools.count()
        self.answered = self.batches = 0

    @property
    def waiting(self) -> int:
        """Prefixes that wait or are being answered."""
        return sum(len(job.prefixes) for job in (*self._waiting, *self._taken, *self._writing))

    async def next_token(self, prefixes: Sequence[Prefix], top_k: int) -> list[TopTokens]:
        """As `Teacher.next_token`: `top_k` log-probabilities of each.

        Raises:
          Full: too much is waiting.
        """
        return await self._add(_Job("next", list(prefixes), top_k=top_k))

    async def score(self, prefixes: Sequence[Prefix], tokens: Sequence[Sequence[int]], top_k: int) -> list[RowScores]:
        """As `Teacher.score`: of the tokens, and `top_k` log-probabilities at each place.

        Raises:
          Full: too much is waiting.
        """
        return await self._add(_Job("score", list(prefixes), top_k=top_k, tokens=tokens))

    async def generate(self, prefixes: Sequence[Prefix], max_len: int, banned: Sequence[int]) -> list[list[int]]:
        """As `Teacher.generate`: at most `max_len` tokens, none of them `banned`.

        Raises:
          Full: too much is waiting.
        """
        names = (f"\0{next(self._names)}" for _ in prefixes)
        named = [p if p.session else p._replace(session=name) for p, name in zip(prefixes, names, strict=True)]
        written: list[list[int]] = [[] for _ in prefixes]
        job = _Job("generate", named, max_len=max_len, banned=tuple(sorted(set(banned))), written=written)
        return await self._add(job)

    async def run(self) -> None:
        """Answers until it is cancelled; what waits then is never answered."""
        with ThreadPoolExecutor(1, thread_name_prefix="teacher") as thread:
            loop = asyncio.get_running_loop()
            while True:
                await self._news.wait()
                taken = self._taken = self._take()
                if not taken and not self._writing:
                    self._news.clear()
                    continue
                for jobs, work in self._batches(taken):
                    try:
                        await loop.run_in_executor(thread, work)
                    except Exception as error:  # whatever it is, those who wait are told
                        for job in jobs:
                            self._settle(job, error)
                    self.batches += 1
                for job in self._writing:
                    if not job.unfinished():
                        self._settle(job, job.written)
                self._taken, self._writing = [], [job for job in self._writing if not job.answer.done()]

    async def _add(self, job: _Job) -> list[Any]:
        if not job.prefixes:
            return []
        if self.waiting + len(job.prefixes) > self._most_waiting:
            raise Full(f"{self.waiting} prefixes wait")
        self._waiting.append(job)
        self._news.set()
        return await job.answer

    def _take(self) -> list[_Job]:
        """What is answered now; continuations stay in hand until they are whole."""
        room = self._rows - sum(len(job.prefixes) for job in self._writing)
        taken: list[_Job] = []
        while self._waiting and (len(self._waiting[0].prefixes) <= room or not (taken or self._writing)):
            job = self._waiting.popleft()
            room -= len(job.prefixes)
            if job.kind == "generate":
                self._writing.append(job)
            else:
                taken.append(job)
        return taken

    def _batches(self, taken: list[_Job]) -> Iterable[tuple[list[_Job], Callable[[], None]]]:
        for kind, work in (("next", self._next), ("score", self._score)):
            if jobs := [job for job in taken if job.kind == kind]:
                yield jobs, _bound(work, jobs)
        groups: dict[Hashable, list[_Job]] = {}
        for job in self._writing:
            groups.setdefault(job.banned, []).append(job)
        for jobs in groups.values():
            yield jobs, _bound(self._write, jobs)

    def _next(self, jobs: list[_Job]) -> None:
        top_k = max(job.top_k for job in jobs)
        found = iter(self._teacher.next_token([p for job in jobs for p in job.prefixes], top_k))
        for job in jobs:
            tops = list(itertools.islice(found, len(job.prefixes)))
            self._settle_later(job, [TopTokens(top.ids_K[: job.top_k], top.log_probs_K[: job.top_k]) for top in tops])

    def _score(self, jobs: list[_Job]) -> None:
        top_k = max(job.top_k for job in jobs)
        prefixes, tokens = [p for job in jobs for p in job.prefixes], [row for job in jobs for row in job.tokens]
        found = iter(self._teacher.score(prefixes, tokens, top_k))
        for job in jobs:
            rows = list(itertools.islice(found, len(job.prefixes)))
            cut = [(row.top_ids_TxK[:, : job.top_k], row.top_log_probs_TxK[:, : job.top_k]) for row in rows]
            self._settle_later(job, [RowScores(row.log_probs_T, *top) for row, top in zip(rows, cut, strict=True)])

    def _write(self, jobs: list[_Job]) -> None:
        rows = [(job, i) for job in jobs for i in job.unfinished()]
        so_far = [job.prefixes[i]._replace(written=(*job.prefixes[i].written, *job.written[i])) for job, i in rows]
        further = self._teacher.generate(so_far, SLICE, jobs[0].banned)
        for (job, i), tokens in zip(rows, further, strict=True):
            job.written[i] += tokens[: job.max_len - len(job.written[i])]  # greedy, so that a beginning is the same

    def _settle(self, job: _Job, result: list[Any] | Exception) -> None:
        if job.answer.done():
            return
        if isinstance(result, Exception):
            job.answer.set_exception(result)
        else:
            self.answered += len(job.prefixes)
            job.answer.set_result(result)

    def _settle_later(self, job: _Job, result: list[Any]) -> None:
        """From the teacher's thread."""
        job.answer.get_loop().call_soon_threadsafe(self._settle, job, result)


def _bound(work: Callable[[list[_Job]], None], jobs: list[_Job]) -> Callable[[], None]:
    return lambda: work(jobs)
