"""Requests to a server that may be slow, full, gone or wrong: time-outs, repeats, and a circuit that opens."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import tenacity

from kdtw_jax.teachers.protocol import TeacherUnavailable

T = TypeVar("T")
_SAID = 200  # characters of a server's own words in a message
_GONE = (502, 503, 504)
_WAIT = (429, *_GONE)  # which may say how long
_REFUSED = (400, 404, 405, 411, 413, 415, 422)


class UnfitReply(Exception):
    """A reply that cannot be right; the message says what is wrong with it."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Between two attempts it waits a random time up to `first_wait_s`, then up to twice that, and so on (full jitter:
    M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015), or longer where the server says so.
    After `failures` attempts in a row that failed the circuit opens: for `rest_s` nothing is sent, then one attempt
    says whether it closes (M. Nygard, "Release It!", 2007, section 5.2).
    """

    timeout_s: float = 60.0
    """for an answer, from when it was sent"""
    connect_s: float = 5.0
    """until there is a connection"""
    attempts: int = 4
    """of one request, the first included"""
    first_wait_s: float = 0.2
    """at the most, before the second attempt"""
    longest_wait_s: float = 5.0
    """before any attempt, whatever the server says"""
    failures: int = 8
    """in a row, which open the circuit"""
    rest_s: float = 10.0
    """that it stays open"""


class Circuit:
    """Whether a server that has failed may be asked again; threads may share one."""

    def __init__(self, patience: Patience, clock: Callable[[], float] = time.monotonic):
        """A closed one.

        Args:
          patience: when it opens, and for how long.
          clock: seconds.
        """
        self._patience, self._clock = patience, clock
        self._failures, self._opened, self._trying = 0, 0.0, False
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether nothing is sent now."""
        with self._lock:
            return self._failures >= self._patience.failures and self._left() > 0

    def enter(self) -> float:
        """Asks to send something: 0 where that may be, otherwise the seconds until it may."""
        with self._lock:
            if self._failures < self._patience.failures:
                return 0.0
            left = self._left()
            if left > 0 or self._trying:
                return max(left, self._patience.first_wait_s)
            self._trying = True  # of all threads one tries
            return 0.0

    def succeeded(self) -> None:
        """The server has answered, be it with a refusal."""
        with self._lock:
            self._failures, self._trying = 0, False

    def failed(self) -> None:
        """It has not, or what it said cannot be right."""
        with self._lock:
            self._failures, self._trying, self._opened = self._failures + 1, False, self._clock()

    def _left(self) -> float:
        return self._opened + self._patience.rest_s - self._clock()


class _Failed(Exception):
    """An attempt that may be repeated."""

    def __init__(self, said: str, wait_s: float = 0.0):
        super().__init__(said)
        self.wait_s = wait_s


class Endpoint:
    """A server over HTTP, asked with patience; threads may share one.

    Only requests that may be repeated belong here: one may reach the server more than once, and its answer is taken
    once.
    """

    def __init__(
        self,
        url: str,
        patience: Patience = Patience(),
        *,
        headers: Mapping[str, str] = {},
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        most_bytes: int = 2**28,
    ):
        """An endpoint that nothing has been sent to.

        Args:
          url: as "http://127.0.0.1:8100".
          patience: with it.
          headers: of every request.
          transport: in place of the network.
          sleep: seconds.
          clock: seconds.
          jitter: numbers from 0 to 1.
          most_bytes: of a reply.
        """
        timeout = httpx.Timeout(patience.timeout_s, connect=patience.connect_s)
        # No proxies of the environment: a teacher is named by its address. No compression: see `most_bytes`.
        self._client = httpx.Client(
            base_url=url,
            timeout=timeout,
            headers={"accept-encoding": "identity", **headers},
            transport=transport,
            trust_env=False,
        )
        self.url, self.circuit = url, Circuit(patience, clock)
        self._patience, self._sleep, self._jitter, self._most_bytes = patience, sleep, jitter, most_bytes
        self._clock = clock

    def ask(self, method: str, path: str, read: Callable[[bytes], T], **request: Any) -> T:
        """Sends a request until there is an answer.

        Args:
          method: "GET" or "POST".
          path: of the resource.
          read: what makes the answer of a reply's body; raises `UnfitReply` for one that cannot be right.
          request: what else `httpx.Client.build_request` is given.

        Raises:
          TeacherUnavailable: there is none, or the circuit is open.
          ValueError: the server says that it can never answer such a request.
        """
        patience = self._patience

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            most = min(patience.longest_wait_s, patience.first_wait_s * 2.0 ** (state.attempt_number - 1))
            told = error.wait_s if isinstance(error, _Failed) else 0.0
            return min(max(told, most * self._jitter()), patience.longest_wait_s)

        repeated = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(patience.attempts),
            wait=wait,
            retry=tenacity.retry_if_exception_type(_Failed),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return repeated(self._once, method, path, read, request)
        except _Failed as error:
            raise TeacherUnavailable(f"{self.url} does not answer: {error}") from None

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def _once(self, method: str, path: str, read: Callable[[bytes], T], request: Mapping[str, Any]) -> T:
        if self._client.is_closed:
            raise TeacherUnavailable(f"the connection to {self.url} is closed")
        if left := self.circuit.enter():
            raise TeacherUnavailable(f"{self.url} has failed too often; it is asked again in {left:.1f} s")
        answered = False
        try:
            status, headers, body = self._send(method, path, request)
            if status == 200:
                found = read(body)
                answered = True
                return found
            said = body[:_SAID].decode("utf8", "replace").strip()
            answered = status not in _GONE and status < 500
            if status in _REFUSED:
                raise ValueError(f"{self.url} refuses the request ({status}): {said}")
            if status in _WAIT or status >= 500:
                raise _Failed(f"status {status}: {said}", _seconds(headers.get("retry-after", "")))
            raise TeacherUnavailable(f"{self.url} answers with status {status}: {said}")
        except UnfitReply as error:
            raise _Failed(f"it answered what cannot be right: {error}") from error
        except httpx.RequestError as error:
            raise _Failed(f"{type(error).__name__} {error}".strip()) from error
        finally:
            (self.circuit.succeeded if answered else self.circuit.failed)()

    def _send(self, method: str, path: str, request: Mapping[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        start, body = self._clock(), bytearray()
        with self._client.stream(method, path, **request) as reply:
            for part in reply.iter_bytes():
                body += part
                if len(body) > self._most_bytes:
                    raise UnfitReply(f"it is longer than {self._most_bytes} bytes")
                if self._clock() - start > self._patience.timeout_s:  # httpx limits the time between two parts
                    raise UnfitReply(f"it is not complete after {self._patience.timeout_s} s")
            return reply.status_code, reply.headers, bytes(body)


def _seconds(text: str) -> float:
    """Of a Retry-After header in seconds (RFC 9110, section 10.2.3); 0 for anything else, dates included."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
