"""The engine of a server: requests are seated in rows as these get free, and all rows go on a token at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable
from itertools import count
from threading import Condition, Thread
from uuid import uuid4

import jax
import numpy as np

from kdtw_jax.answers import Answer
from kdtw_jax.constraints import History, Rule, make_calls, pad_words, words_room
from kdtw_jax.data.tool_words import Tool, tokens_apart
from kdtw_jax.decoding.sample import EOS, PAD
from kdtw_jax.errors import UserError
from kdtw_jax.serving.asker import Asker, check_teacher
from kdtw_jax.serving.asking import Asking
from kdtw_jax.serving.job import Done, Event, Failed, Job, Written
from kdtw_jax.serving.row_inputs import row_spec, teacher_reply, tool_word
from kdtw_jax.serving.rows import (
    TOP_K,
    Programs,
    Rows,
    StepResult,
    TeacherReply,
    ToolWord,
    make_programs,
    unpack,
)
from kdtw_jax.serving.tool import ToolRow
from kdtw_jax.student import Student
from kdtw_jax.teachers.protocol import Prefix, Teacher, TopTokens

_LOG = logging.getLogger("kdtw_jax.serving")
_WORDS = 32  # pieces of a rule in words that there is room for at the least


class Busy(Exception):
    """As many requests wait as may, or the engine is closed."""


class Engine:
    """Writes the outputs of many requests at a time: what each is does not depend on the others.

    The tokens and their writers are those of `Student.stream` for that text alone under that rule, but for what a tool
    writes. Close it.

    Raises:
      UserError: `rows` or `queue` is below 1, or the teacher has another vocabulary or says of one token alone.
    """

    def __init__(
        self,
        student: Student,
        *,
        rows: int = 16,
        queue: int = 256,
        teacher: Teacher | None = None,
        pause: float = 2.0,
        patience: float | None = None,
        tool: Tool | None = None,
    ):
        """Compiles what is needed and begins.

        Args:
          student: who writes.
          rows: outputs that are written at a time.
          queue: requests that may wait.
          teacher: who is asked in place of the student's own; None: that one, in the programs.
          pause: seconds after a failure in which that teacher is not asked again.
          patience: seconds that a call of it may take, after which rows go on alone; None: as long as it takes.
          tool: who writes words wherever it has something to say, of requests that want it: a calculator.
        """
        if rows < 1 or queue < 1:
            raise UserError(f"rows and queue have to be at least 1, got {rows} and {queue}")
        own, other = student.model, student.teacher
        if teacher is not None and other is None:
            raise UserError("this student did not learn to ask: leave the teacher out")
        if teacher is not None:
            check_teacher(teacher.about, own.tokenizer)
        self.student, self.rows, self._queue, self.tool = student, rows, queue, tool
        # A number of calls may be enforced beside a rule, whether or not the student knows such rules.
        constraints = (*student.constraints, make_calls())
        known = student.constraints
        room = words_room(known, student.encode_rule, together=len(known)) if known else 0
        self.words = max(_WORDS, -(-room // 16) * 16)
        """pieces of a rule in words that there is room for"""
        self._names = [constraint.name for constraint in known]
        self._programs: Programs = make_programs(
            own.model,
            None if other is None else other.model,
            constraints,
            rows=rows,
            source=student.max_source,
            words=self.words,
            max_len=student.max_target,
            alpha=student.alpha,
            banned=own.tokenizer.banned_ids,
            unit=student.unit,
            elsewhere=teacher is not None,
            apart=() if tool is None else tokens_apart(own.tokenizer),
        )
        self._params = (own.params, None if other is None else other.params)
        self._state: Rows | None = self._programs.empty(*self._params)
        self._keep_R = np.ones(rows, bool)
        self._seated: list[Job | None] = [None] * rows
        self._waiting: deque[Job] = deque()
        self._said: dict[Hashable, TopTokens | None] = {}
        self._asked: set[Hashable] = set()
        self._wake, self._numbers = Condition(), count(1)
        self._name = uuid4().hex  # several engines may ask one teacher, which keeps what it has read by name
        self._closed = False
        self.steps = 0
        """tokens that all rows together went on"""
        self._asker = None
        if teacher is not None:
            banned = own.tokenizer.banned_ids
            self._asker = Asker(teacher, self._told, banned=banned, top_k=TOP_K, pause=pause, patience=patience)
        self._compile()
        self._thread = Thread(target=self._run, name="kdtw-engine", daemon=True)
        self._thread.start()

    @property
    def active(self) -> int:
        """Outputs that are being written."""
        return sum(job is not None for job in self._seated)

    @property
    def waiting(self) -> int:
        """Requests that wait for a row."""
        return len(self._waiting)

    @property
    def room(self) -> int:
        """Requests that may be under way, those that wait included."""
        return self.rows + self._queue

    @property
    def is_open(self) -> bool:
        """Whether requests are taken."""
        return not self._closed

    @property
    def teacher_failures(self) -> int:
        """Calls of a teacher elsewhere without an answer."""
        return 0 if self._asker is None else self._asker.failures

    def submit(
        self,
        text: str,
        asking: Asking,
        deliver: Callable[[Event], None],
        most: int | None = None,
        encoded: tuple[list[int], int] | None = None,
        *,
        calculator: bool = False,
    ) -> Job:
        """Takes a request.

        Args:
          text: the source; beyond the student's longest one the rest is not read.
          asking: its rule.
          deliver: called with what happens, from another thread.
          most: tokens of the output at the most; None, and beyond those: as many as the student writes.
          encoded: the text as `Student.encode` gives it; None: it is encoded here, which takes a while for a long one.
          calculator: the engine's tool writes, too.

        Raises:
          Busy: as many requests wait as may, or the engine is closed.
          AccountSpent: the account's calls are made.
          UserError: the rule has too many words, or the engine has no tool.
        """
        if len(asking.words) > self.words:
            pad_words([asking.words], self.words)  # which says so
        if asking.ledger is not None:
            asking.ledger.raise_if_spent()
        source, cut = self.student.encode(text) if encoded is None else encoded
        most = self.student.max_target if most is None else max(1, min(most, self.student.max_target))
        job = Job(text, source, len(source) + cut, asking, most, deliver, next(self._numbers))
        if calculator:
            if self.tool is None:
                raise UserError("there is no calculator here: leave it out")
            job.tool = ToolRow(self.tool, self.student.model.tokenizer, text)
        if not source:
            job.over = True
            deliver(Done(Answer(text, ""), True, False))
            return job
        with self._wake:
            if self._closed:
                raise Busy("the server is closing")
            if len(self._waiting) + self.active >= self.room:
                raise Busy(f"{self._queue} requests wait already; try again in a second")
            if asking.ledger is not None:
                asking.ledger.users += 1
            self._waiting.append(job)
            self._wake.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Writes a request no further; its row gets free. What the teacher wrote of it stays spent."""
        with self._wake:
            job.cancelled = True
            self._wake.notify()

    def close(self) -> None:
        """Takes no more requests, and fails those that are under way."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        if self._asker is not None:
            self._asker.close()

    def _compile(self) -> None:
        self._seat(0, Job("", [EOS], 1, Asking(Rule((), ()), (), "", "default"), 1, lambda _: None))
        self._state, packed = self._programs.step(*self._params, self._state, self._keep_R, *self._words([], []))
        jax.block_until_ready(packed)
        self._seated[0] = None
        self._empty()

    def _empty(self) -> None:
        """Frees all rows; there is never memory for two of them."""
        self._state = None
        self._state = self._programs.empty(*self._params)

    def _run(self) -> None:
        error: Exception = Busy("the server is closing")
        try:
            self._write()
        except Exception as died:
            _LOG.exception("the engine has stopped; no more requests are taken")
            error = died
        with self._wake:
            self._closed, self._state = True, None
            left = [*(job for job in self._seated if job is not None), *self._waiting]
            self._waiting.clear()
        for job in left:
            self._end(job, Failed(error))

    def _write(self) -> None:
        """Goes on with all requests until the engine is closed."""
        while True:
            with self._wake:
                while not self._closed and not self._has_work():
                    self._wake.wait()
                if self._closed:
                    return
                seats = self._arrivals()
            try:
                self._free_cancelled()
                for row, job in seats:
                    self._begin(row, job)
                self._advance()
            except Exception as error:
                _LOG.exception("the engine failed at a step; its requests are given up")
                # Those who were to be seated do not wait any more, and may not be seated yet.
                for job in [*(job for job in self._seated if job is not None), *(job for _, job in seats)]:
                    self._end(job, Failed(error))
                self._empty()

    def _has_work(self) -> bool:
        """Whether a step would change anything. The lock is held."""
        seated = [job for job in self._seated if job is not None]
        if any(job.cancelled or not self._is_held_up(job) for job in seated):
            return True
        return bool(self._waiting) and (len(seated) < self.rows or any(job.cancelled for job in self._waiting))

    def _is_held_up(self, job: Job) -> bool:
        """Whether it waits for the teacher's word."""
        key = self._key(job)
        return key in self._asked and key not in self._said

    def _key(self, job: Job) -> Hashable:
        return job.number, len(job.tokens)

    def _arrivals(self) -> list[tuple[int, Job]]:
        """Who is to be seated where. The lock is held."""
        free = [row for row, job in enumerate(self._seated) if job is None or job.cancelled]
        seats = []
        while self._waiting and (free or self._waiting[0].cancelled):
            job = self._waiting.popleft()
            if job.cancelled:
                self._end(job, None)
            else:
                seats.append((free.pop(0), job))
        for job in [job for job in self._waiting if job.cancelled]:
            self._waiting.remove(job)
            self._end(job, None)
        return seats

    def _free_cancelled(self) -> None:
        for job in self._seated:
            if job is not None and job.cancelled:
                self._end(job, None)

    def _begin(self, row: int, job: Job) -> None:
        """Seats a request, if its account lets it."""
        try:
            if job.asking.ledger is not None:
                job.reserved = job.asking.ledger.reserve(job.asking.rule, job.most)
            self._seat(row, job)
        except Exception as error:
            self._end(job, Failed(error))

    def _seat(self, row: int, job: Job) -> None:
        source_1xS = pad_words([job.source], self.student.max_source)
        words_1xW = pad_words([job.asking.words], self.words)
        self._seated[row], job.row, self._keep_R[row] = job, row, True
        spec = row_spec(job, self._names)
        self._state = self._programs.seat(*self._params, self._state, np.int32(row), source_1xS, words_1xW, spec)

    def _advance(self) -> None:
        """A token in every row that can."""
        jobs = [(job, self._key(job)) for job in self._seated if job is not None]
        if not jobs:
            return
        with self._wake:
            said = [(job.row, self._said[key]) for job, key in jobs if key in self._said]
        words = self._words(said, [job for job, _ in jobs])
        given = self._programs.step(*self._params, self._state, self._keep_R, *words)
        self._state, packed = given
        self.steps += 1
        happened = unpack(jax.device_get(packed))
        for job, key in jobs:
            self._take(job, key, happened)

    def _take(self, job: Job, key: Hashable, happened: StepResult) -> None:
        """What a step did in the row of a request."""
        row = job.row
        if happened.waits[row] and self._asker is not None and key not in self._asked:
            with self._wake:
                self._asked.add(key)
            self._asker.ask(key, Prefix(tuple(job.source), tuple(job.tokens), f"{self._name}-{job.number}"))
        if not happened.wrote[row]:
            return
        with self._wake:
            self._said.pop(key, None)
            self._asked.discard(key)
        job.degraded |= bool(happened.refused[row])
        written = Written(int(happened.token[row]), bool(happened.asked[row]), bool(happened.called[row]))
        if job.tool is not None:
            written = written._replace(calculated=job.tool.took(written.token, asked=written.asked))
        job.history = History(*(np.asarray(leaf)[row : row + 1] for leaf in happened.history))  # type: ignore[arg-type]
        if written.token == PAD:
            whose = "teacher's" if written.asked else "student's"
            self._end(job, Failed(RuntimeError(f"the {whose} scores are not finite")))
            return
        job.tokens.append(written.token)
        job.asked.append(written.asked)
        job.called.append(written.called)
        self._deliver(job, written)
        if happened.ended[row]:
            positions = int(job.history.positions_B[0])
            wrote = (job.tokens, job.asked, job.called, positions, () if job.tool is None else job.tool.wrote)
            answer = self.student.answer(job.text, job.source_tokens, *wrote)
            self._end(job, Done(answer, job.tokens[-1] == EOS, job.degraded))

    def _words(
        self, said: list[tuple[int, TopTokens | None]], jobs: list[Job]
    ) -> tuple[TeacherReply | None, ToolWord | None]:
        """What others than the student write next: the teacher elsewhere, and the tool."""
        reply = None if self._asker is None else teacher_reply(said, self.rows)
        return reply, None if self.tool is None else tool_word(jobs, self.rows)

    def _told(self, key: Hashable, said: TopTokens | None) -> None:
        """Takes what a teacher elsewhere has said, from its thread."""
        with self._wake:
            if key in self._asked:
                self._said[key] = said
                self._wake.notify()

    def _end(self, job: Job, event: Event | None) -> None:
        """Frees the row of a request, settles its account, and says the last of it; None: nobody listens."""
        if job.over:
            return
        job.over, ledger = True, job.asking.ledger
        if job.row >= 0:
            with self._wake:
                self._seated[job.row], self._keep_R[job.row] = None, False
                self._said.pop(self._key(job), None)
                self._asked.discard(self._key(job))
        if ledger is not None:
            with self._wake:
                ledger.users -= 1
            try:
                if job.reserved is not None:
                    ledger.settle(job.asking.rule, job.reserved, job.history)
            except Exception:  # in a rule of the user's own; what was reserved stays spent
                _LOG.exception("an account could not be settled")
        if event is not None:
            self._deliver(job, event)

    def _deliver(self, job: Job, event: Event) -> None:
        if job.cancelled:
            return
        try:
            job.deliver(event)
        except Exception as error:  # such as a loop that is closed; other requests go on
            _LOG.warning("nobody takes what was written: %s", error)
            job.cancelled = True
