"""A teacher behind our server: the same answers, whoever asks at the same time, and whatever goes wrong between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest

from kdtw_jax.teachers import Prefix, TeacherUnavailable, server, wire
from kdtw_jax.teachers.http import HttpTeacher
from kdtw_jax.teachers.resilience import Endpoint, Patience
from kdtw_jax.teachers.server import Limits, make_app
from tests.bridge import Bridge, bridged
from tests.simple_teacher import PREFIXES, TOKENS, SimpleTeacher, V, same_answers

LIMITS = Limits(body_bytes=4000, rows=8, waiting=16, tokens=64, top_k=V, numbers=2000)


class World:
    """A teacher, its server, and a client of it."""

    def __init__(self, bridge: Bridge, inner: SimpleTeacher):
        self.bridge, self.inner = bridge, inner
        self.slept: list[float] = []
        self.client = self.connect()
        inner.calls.clear()

    def connect(self, **patience: Any) -> HttpTeacher:
        sleep = self.slept.append
        return HttpTeacher(
            Endpoint("http://127.0.0.1:1", Patience(**patience), transport=self.bridge, sleep=sleep, jitter=lambda: 0.0)
        )

    def post(self, path: str, body: bytes, kind: str = wire.MEDIA_TYPE, host: str = "127.0.0.1") -> httpx.Response:
        with httpx.Client(transport=self.bridge, base_url=f"http://{host}") as client:
            return client.post(path, content=body, headers={"content-type": kind})

    def health(self) -> dict[str, Any]:
        with httpx.Client(transport=self.bridge, base_url="http://localhost") as client:
            return dict(client.get("/health").json())


@pytest.fixture
def world() -> Iterator[World]:
    inner = SimpleTeacher()
    with bridged(make_app(inner, LIMITS, ("localhost", "127.0.0.1"))) as bridge:
        yield World(bridge, inner)
        inner.at_work.set()


def asks(teacher: Any) -> list[Callable[[], Any]]:
    return [
        lambda: teacher.next_token(PREFIXES, 5),
        lambda: teacher.next_token(PREFIXES, V),
        lambda: teacher.score(PREFIXES, TOKENS),
        lambda: teacher.score(PREFIXES, TOKENS, 3),
        lambda: teacher.generate(PREFIXES, 20),
        lambda: teacher.generate(PREFIXES, 3, (4, 5, 6)),
        lambda: teacher.next_token([], 5),
    ]


def test_it_answers_as_the_teacher_does(world: World) -> None:
    assert world.client.about == world.inner.about
    for remote, here in zip(asks(world.client), asks(SimpleTeacher()), strict=True):
        same_answers(remote(), here())
    assert world.client.answered == 6 * len(PREFIXES)


def test_more_than_the_server_takes_goes_in_parts(world: World) -> None:
    many = [Prefix((5,), (i % V,)) for i in range(3 * LIMITS.rows + 1)]
    same_answers(world.client.next_token(many, 4), SimpleTeacher().next_token(many, 4))
    assert [rows for _, rows in world.inner.calls] == [8, 8, 8, 1]


def test_what_waits_is_answered_together_and_everyone_has_his_own(world: World) -> None:
    world.inner.at_work.clear()
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(world.client.next_token, [Prefix((3,))], 1)
        while not world.inner.calls:
            threading.Event().wait(0.001)
        rest = [pool.submit(world.client.next_token, [Prefix((9,), (i,))], i + 1) for i in range(4)]
        while world.health()["waiting"] < 5:
            threading.Event().wait(0.001)
        world.inner.at_work.set()
        first.result()
        for i, one in enumerate(rest):
            same_answers(one.result(), SimpleTeacher().next_token([Prefix((9,), (i,))], i + 1))
    assert world.inner.calls == [("next", 1), ("next", 4)]


def test_a_long_continuation_holds_nobody_up(world: World) -> None:
    """One that asks for a token while another's text is written has it before the text is whole."""
    never = [1]
    seen = []
    real = world.inner.generate

    def generate(prefixes: Any, max_len: int, banned: Any = ()) -> Any:
        if not seen:  # while the first slice is written somebody else comes
            seen.append(pool.submit(world.client.next_token, [Prefix((3,))], 2))
            while world.health()["waiting"] < 2:
                threading.Event().wait(0.001)
        return real(prefixes, max_len, banned)

    world.inner.generate = generate  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        text = pool.submit(world.client.generate, [Prefix((7, 8))], 50, never)
        assert text.result() == SimpleTeacher().generate([Prefix((7, 8))], 50, never)
    same_answers(seen[0].result(), SimpleTeacher().next_token([Prefix((3,))], 2))
    kinds = [kind for kind, _ in world.inner.calls]
    assert kinds[:2] == ["generate", "next"] and kinds.count("generate") == 7


def test_who_comes_when_too_much_waits_is_told_to_come_again(world: World) -> None:
    world.inner.at_work.clear()
    message = {"prefixes": wire.pack_prefixes(PREFIXES * 2), "top_k": 1}
    with ThreadPoolExecutor(4) as pool:
        held = [pool.submit(world.post, "/v1/next_token", wire.pack({**message, "id": str(i)})) for i in range(2)]
        while world.health()["waiting"] < LIMITS.waiting:
            threading.Event().wait(0.001)
        full = world.post("/v1/next_token", wire.pack(message))
        assert full.status_code == 429 and full.headers["retry-after"] == "1"
        world.inner.at_work.set()
        assert [one.result().status_code for one in held] == [200, 200]
    assert world.post("/v1/next_token", wire.pack(message)).status_code == 200


def test_a_request_that_comes_again_is_answered_and_counted_once(world: World) -> None:
    lost = []

    def lose(request: httpx.Request, go: Callable[[], httpx.Response]) -> httpx.Response:
        reply = go()
        if len(lost) < 3:
            lost.append(reply)
            raise httpx.ReadError("the connection broke")
        return reply

    world.bridge.meddle = lose
    same_answers(world.client.next_token(PREFIXES, 3), SimpleTeacher().next_token(PREFIXES, 3))
    assert len(world.inner.calls) == 1 and world.client.answered == len(PREFIXES)
    world.bridge.meddle = lambda _, go: go()
    assert world.health()["answered"] == len(PREFIXES)


def test_a_failure_is_not_kept(world: World) -> None:
    real, failures = world.inner.next_token, []

    def fail(prefixes: Any, top_k: int = 8) -> Any:
        if len(failures) < 2:
            failures.append(TeacherUnavailable("out of memory"))
            raise failures[-1]
        return real(prefixes, top_k)

    world.inner.next_token = fail  # type: ignore[method-assign]
    same_answers(world.client.next_token(PREFIXES, 3), SimpleTeacher().next_token(PREFIXES, 3))
    assert len(failures) == 2 and world.health()["answered"] == len(PREFIXES)


def test_another_model_that_comes_in_its_place_is_not_taken_for_it(world: World) -> None:
    world.client.next_token(PREFIXES, 5)
    other = SimpleTeacher(model="another")
    with bridged(make_app(other, LIMITS, ("localhost", "127.0.0.1"))) as bridge:
        world.bridge.meddle = lambda request, _: bridge.handle_request(request)
        with pytest.raises(TeacherUnavailable, match="of another model"):
            world.client.next_token(PREFIXES, 5)
        assert world.client.answered == len(PREFIXES)
        assert world.connect().about.model == "another"


def test_a_request_in_work_is_known_however_many_come(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_KNOWN", 2)
    world.inner.at_work.clear()
    message = {"prefixes": wire.pack_prefixes(PREFIXES[:1]), "top_k": 1}
    bodies = [wire.pack({**message, "id": str(i)}) for i in range(6)]
    with ThreadPoolExecutor(7) as pool:
        held = []
        for i, body in enumerate(bodies):
            held.append(pool.submit(world.post, "/v1/next_token", body))
            while world.health()["waiting"] < i + 1:
                threading.Event().wait(0.001)
        held.append(pool.submit(world.post, "/v1/next_token", bodies[0]))  # comes again while it is in work, or after
        world.inner.at_work.set()
        replies = [one.result() for one in held]
    assert {one.status_code for one in replies} == {200} and replies[0].content == replies[-1].content
    assert world.health()["answered"] == sum(rows for _, rows in world.inner.calls) == len(bodies)
    for i in range(6, 9):  # those that are done make room
        world.post("/v1/next_token", wire.pack({**message, "id": str(i)}))
    world.post("/v1/next_token", bodies[0])
    assert world.health()["answered"] == len(bodies) + 4


@pytest.mark.parametrize("spoil", ["cut", "fewer", "other vocabulary", "other order", "above one", "twice", "text"])
def test_an_answer_that_is_not_whole_is_not_taken(world: World, spoil: str) -> None:
    def meddle(request: httpx.Request, go: Callable[[], httpx.Response]) -> httpx.Response:
        body = go().content
        value = msgpack.unpackb(body)
        ids, log_probs = (np.frombuffer(x, kind) for x, kind in zip(value["answers"][0], ("<i4", "<f4"), strict=True))
        if spoil == "fewer":
            value["answers"].pop()
        elif spoil == "other vocabulary":
            value["vocabulary"] = "other"
        elif spoil == "other order":
            value["answers"][0] = [ids[::-1].tobytes(), log_probs[::-1].tobytes()]
        elif spoil == "above one":
            value["answers"][0] = [ids.tobytes(), (log_probs + 3).tobytes()]
        elif spoil == "twice":
            value["answers"][0] = [(ids * 0).tobytes(), log_probs.tobytes()]
        body = {"cut": body[:-3], "text": b"<html>"}.get(spoil, msgpack.packb(value))
        return httpx.Response(200, content=body)

    world.bridge.meddle = meddle
    with pytest.raises(TeacherUnavailable, match="cannot be right"):
        world.client.next_token(PREFIXES, 5)
    assert world.client.answered == 0


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"top_k": 0}, 400),
        ({"top_k": V + 1}, 400),
        ({"top_k": True}, 400),
        ({"top_k": None}, 400),
        ({"prefixes": None}, 400),
        ({"prefixes": [[b"abc", b"", ""]]}, 400),
        ({"prefixes": [[b"", b"", ""]]}, 400),
        ({"prefixes": [[wire.pack_ids([V]), b"", ""]]}, 400),
        ({"prefixes": [[wire.pack_ids([5]), b""]]}, 400),
        ({"prefixes": [[wire.pack_ids([5]), b"", "x" * 300]]}, 400),
        ({"prefixes": [[wire.pack_ids([5]), b"", "\0" + "1"]]}, 400),
        ({"prefixes": [[wire.pack_ids([5]), b"", ""]] * 9}, 413),
        ({"prefixes": [[wire.pack_ids([5] * 65), b"", ""]]}, 413),
        ({"prefixes": [[wire.pack_ids([5] * 900), b"", ""]] * 2}, 413),
        ({"prefixes": [[wire.pack_ids([V] * 65), b"", ""]]}, 413),
        ({"prefixes": [[wire.pack_ids([V] * 40), wire.pack_ids([5] * 40), ""]]}, 413),
        ({"more": [[]] * 30}, 200),
        ({"more": [[[]] * 9] * 8}, 413),
        ({"more": [{}] * 40 + [[{}] * 40]}, 413),
        ({"more": [None] * 60}, 400),
    ],
)
def test_what_it_cannot_answer_is_refused_before_any_work(world: World, change: dict[str, Any], status: int) -> None:
    message = {"prefixes": [[wire.pack_ids([5]), b"", ""]], "top_k": 1, **change}
    assert world.post("/v1/next_token", wire.pack(message)).status_code == status
    assert len(world.inner.calls) == (status == 200)


def test_no_more_is_made_of_a_request_than_is_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Prefix] = []
    real = wire.Prefix
    monkeypatch.setattr(wire, "Prefix", lambda *parts: made.append(real(*parts)) or made[-1])
    assert world.post("/v1/next_token", wire.pack({"prefixes": [[b"", b"", ""]] * 20, "top_k": 1})).status_code == 413
    row = wire.pack_ids([5])
    for change in ({"tokens": [b""] * 9}, {"tokens": [wire.pack_ids([V] * 65)]}, {"tokens": [row] * 2}):
        status = 413 if change["tokens"] != [row] * 2 else 400
        message = {"prefixes": [[row, b"", ""]], "top_k": 1, **change}
        assert world.post("/v1/score", wire.pack(message)).status_code == status
    message = {"prefixes": [[row, b"", ""]], "max_len": 1}
    for count, status in ((V + 1, 413), (V, 400), (0, 200)):
        banned = wire.pack_ids(range(count))
        assert world.post("/v1/generate", wire.pack({**message, "banned": banned})).status_code == status
    assert len(made) == 6 and len(world.inner.calls) == 1


def test_strangers_are_refused(world: World) -> None:
    body = wire.pack({"prefixes": [[wire.pack_ids([5]), b"", ""]], "top_k": 1})
    assert world.post("/v1/next_token", body, kind="text/plain").status_code == 415
    assert world.post("/v1/next_token", body, host="somewhere.example").status_code == 400
    assert world.post("/v1/next_token", b"\x80\x05bad").status_code == 400
    assert world.post("/v1/next_token", msgpack.packb(msgpack.ExtType(5, b"x"))).status_code == 400
    assert world.post("/v1/unknown", body).status_code == 404
    assert world.post("/v1/next_token", b"x" * (LIMITS.body_bytes + 1)).status_code == 413
    assert world.inner.calls == []


def test_an_answer_has_its_limit_too(world: World) -> None:
    row = list(range(2, 22))
    with pytest.raises(ValueError, match="numbers"):
        world.client.score([Prefix((5,))] * 8, [row] * 8, V)
    with pytest.raises(ValueError, match="tokens in one row"):
        world.client.generate([Prefix((5,))], 64)


def test_requests_that_cannot_be_never_leave(world: World) -> None:
    for ask in (
        lambda: world.client.next_token([Prefix((V,))]),
        lambda: world.client.score(PREFIXES, TOKENS[1:]),
        lambda: world.client.generate(PREFIXES, 0),
    ):
        with pytest.raises(ValueError):
            ask()
    assert world.inner.calls == []


def test_nobody_there_means_unavailable() -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(TeacherUnavailable):
        HttpTeacher(Endpoint("http://x", transport=httpx.MockTransport(nobody), sleep=lambda _: None))


@pytest.mark.parametrize("said", [{}, {"protocol": 2}, {"protocol": 1, "name": "a"}, []])
def test_another_server_is_no_teacher(said: Any) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=said))
    with pytest.raises(TeacherUnavailable):
        HttpTeacher(Endpoint("http://x", transport=transport, sleep=lambda _: None))
