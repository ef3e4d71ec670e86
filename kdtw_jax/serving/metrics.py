"""Numbers of a server for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kdtw_jax.serving.engine import Engine
from kdtw_jax.serving.job import Done, Job

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SHARES = tuple(n / 10 for n in range(11))
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What happened at one engine; each server has a registry of its own."""

    def __init__(self, engine: Engine):
        """Begins to count.

        Args:
          engine: of which rows and queue are read.
        """
        registry = self._registry = CollectorRegistry()
        self._requests = Counter("kdtw_requests", "Requests by status", ["path", "status"], registry=registry)
        self._tokens = Counter("kdtw_tokens", "Tokens written, by writer", ["writer"], registry=registry)
        self._calls = Counter("kdtw_teacher_calls", "Answers of the teacher", registry=registry)
        self._positions = Counter(
            "kdtw_teacher_positions", "Decoder positions that the teacher processed", registry=registry
        )
        self._degraded = Counter("kdtw_degraded", "Outputs for which the teacher did not answer", registry=registry)
        self._cancelled = Counter("kdtw_cancelled", "Requests whose client went away", registry=registry)
        self._failed = Counter("kdtw_failed", "Requests that failed here, streams included", registry=registry)
        self._ending: list[Job] = []
        self._seconds = Histogram(
            "kdtw_request_seconds", "Time from request to answer", buckets=_SECONDS, registry=registry
        )
        self._share = Histogram(
            "kdtw_teacher_share", "Share of an output that the teacher wrote", buckets=_SHARES, registry=registry
        )
        for name, what, read in (
            ("kdtw_rows_active", "Outputs being written", lambda: engine.active),
            ("kdtw_rows", "Outputs that can be written at a time", lambda: engine.rows),
            ("kdtw_queue", "Requests that wait for a row", lambda: engine.waiting),
            ("kdtw_steps", "Steps of all rows together so far", lambda: engine.steps),
            (
                "kdtw_teacher_failures",
                "Calls of a teacher elsewhere without an answer",
                lambda: engine.teacher_failures,
            ),
        ):
            Gauge(name, what, registry=registry).set_function(read)

    def answered(self, path: str, status: int) -> None:
        """Counts a reply.

        Args:
          path: of the request.
          status: of HTTP.
        """
        self._requests.labels(path, str(status)).inc()

    def gone(self) -> None:
        """Counts a client that went away before its answer."""
        self._cancelled.inc()

    def failed(self) -> None:
        """Counts a request that failed here."""
        self._failed.inc()

    def spent(self, jobs: Iterable[Job]) -> None:
        """Counts the tokens of jobs and the calls that were made for them, whoever still waits for the outputs.

        Args:
          jobs: of one request, over or called off; each is counted when it is over.
        """
        self._ending += jobs
        self._count_ended()

    def _count_ended(self) -> None:
        ended = [job for job in self._ending if job.over]
        self._ending = [job for job in self._ending if not job.over]
        for job in ended:
            self._tokens.labels("teacher").inc(sum(job.asked))
            calculated = 0 if job.tool is None else sum(job.tool.wrote)
            self._tokens.labels("calculator").inc(calculated)
            self._tokens.labels("student").inc(len(job.asked) - sum(job.asked) - calculated)
            if job.history is not None:
                self._calls.inc(int(job.history.calls_B[0]))
                self._positions.inc(int(job.history.positions_B[0]))

    def written(self, answers: Iterable[Done], seconds: float) -> None:
        """Counts outputs; what they cost, `spent` counts.

        Args:
          answers: of one request.
          seconds: from request to answer.
        """
        self._seconds.observe(seconds)
        for done in answers:
            self._degraded.inc(done.degraded)
            if not done.spent:
                self._share.observe(done.answer.share)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        self._count_ended()
        return generate_latest(self._registry)
