"""A server that is slow, full, gone or wrong: what is asked again, how soon, and when nothing is asked any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from kdtw_jax.teachers import TeacherUnavailable
from kdtw_jax.teachers.resilience import Circuit, Endpoint, Patience, UnfitReply

PATIENCE = Patience(attempts=4, first_wait_s=1.0, longest_wait_s=8.0, failures=6, rest_s=30.0)
Answer = httpx.Response | Exception


class Server:
    """Gives these answers, one after the other, and then the last one for ever; time passes only in sleep."""

    def __init__(self, *answers: Answer, patience: Patience = PATIENCE, jitter: float = 1.0):
        self.answers, self.asked, self.slept, self.now = list(answers), 0, list[float](), 0.0
        self.endpoint = Endpoint(
            "http://teacher",
            patience,
            transport=httpx.MockTransport(self._answer),
            sleep=self._sleep,
            clock=lambda: self.now,
            jitter=lambda: jitter,
            most_bytes=100,
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        answer = self.answers[min(self.asked, len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def ask(self, read: Callable[[bytes], bytes] = bytes) -> bytes:
        return self.endpoint.ask("GET", "/x", read)


GOOD = httpx.Response(200, content=b"yes")
GONE = httpx.ConnectError("refused")


def test_an_answer_is_given_at_once() -> None:
    server = Server(GOOD)
    assert server.ask() == b"yes" and server.asked == 1 and server.slept == []


@pytest.mark.parametrize(
    "failure",
    [GONE, httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut"), httpx.Response(500), httpx.Response(503)],
)
def test_what_may_pass_is_tried_again_and_ever_later(failure: Answer) -> None:
    server = Server(failure, failure, failure, GOOD)
    assert server.ask() == b"yes" and server.slept == [1.0, 2.0, 4.0]
    server = Server(failure)
    with pytest.raises(TeacherUnavailable, match="does not answer"):
        server.ask()
    assert server.asked == PATIENCE.attempts


def test_waits_are_drawn_up_to_their_limit() -> None:
    server = Server(GONE, GONE, GONE, GOOD, jitter=0.25)
    server.ask()
    assert server.slept == [0.25, 0.5, 1.0]


def test_a_server_may_say_how_long_to_wait_up_to_a_limit() -> None:
    for told, waited in (("3", 3.0), ("700", 8.0), ("soon", 1.0), ("9999999", 1.0), ("-5", 1.0)):
        server = Server(httpx.Response(429, headers={"retry-after": told}), GOOD)
        assert server.ask() == b"yes" and server.slept == [waited]


def test_a_full_server_is_no_failed_one() -> None:
    server = Server(httpx.Response(429))
    for _ in range(PATIENCE.failures):
        with pytest.raises(TeacherUnavailable):
            server.ask()
    assert not server.endpoint.circuit.is_open


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_request_that_is_refused_is_not_sent_again(status: int) -> None:
    server = Server(httpx.Response(status, content=b"too long"))
    with pytest.raises(ValueError, match="too long"):
        server.ask()
    assert server.asked == 1


def test_a_stranger_is_not_asked_again() -> None:
    server = Server(httpx.Response(401))
    with pytest.raises(TeacherUnavailable, match="401"):
        server.ask()
    assert server.asked == 1


def test_an_answer_that_cannot_be_right_is_as_good_as_none() -> None:
    def read(body: bytes) -> bytes:
        if body != b"yes":
            raise UnfitReply("not yes")
        return body

    server = Server(httpx.Response(200, content=b"no"), GOOD)
    assert server.ask(read) == b"yes" and server.asked == 2
    with pytest.raises(TeacherUnavailable, match="not yes"):
        Server(httpx.Response(200, content=b"no")).ask(read)
    with pytest.raises(TeacherUnavailable, match="longer than 100 bytes"):
        Server(httpx.Response(200, content=b"x" * 101)).ask()


def test_an_answer_that_trickles_in_has_no_more_time_than_another() -> None:
    server = Server(GOOD)

    def trickle(request: httpx.Request) -> httpx.Response:
        def parts() -> Iterator[bytes]:
            for _ in range(10):
                server.now += PATIENCE.timeout_s / 4
                yield b"."

        return httpx.Response(200, content=parts())

    endpoint = Endpoint(
        "http://teacher",
        PATIENCE,
        transport=httpx.MockTransport(trickle),
        sleep=server._sleep,
        clock=lambda: server.now,
        jitter=lambda: 0.0,
    )
    with pytest.raises(TeacherUnavailable, match="not complete"):
        endpoint.ask("GET", "/x", bytes)


def test_after_many_failures_nothing_is_sent_until_one_is_tried() -> None:
    server = Server(*[GONE] * PATIENCE.failures, GOOD)
    for _ in range(2):
        with pytest.raises(TeacherUnavailable):
            server.ask()
    assert server.endpoint.circuit.is_open and server.asked == PATIENCE.failures
    with pytest.raises(TeacherUnavailable, match="failed too often"):
        server.ask()
    assert server.asked == PATIENCE.failures
    server.now += PATIENCE.rest_s
    assert server.ask() == b"yes" and not server.endpoint.circuit.is_open


def test_one_of_many_tries_whether_it_is_back() -> None:
    now = 0.0
    circuit = Circuit(PATIENCE, lambda: now)
    for _ in range(PATIENCE.failures):
        assert circuit.enter() == 0.0
        circuit.failed()
    assert circuit.enter() == PATIENCE.rest_s
    now = PATIENCE.rest_s
    assert circuit.enter() == 0.0 and circuit.enter() > 0  # the second one waits for the first
    circuit.failed()
    assert circuit.enter() == PATIENCE.rest_s  # from now on
    now *= 2
    assert circuit.enter() == 0.0
    circuit.succeeded()
    assert circuit.enter() == circuit.enter() == 0.0


def test_a_closed_one_sends_nothing() -> None:
    server = Server(GOOD)
    server.endpoint.close()
    with pytest.raises(TeacherUnavailable, match="closed"):
        server.ask()
    assert server.asked == 0
