"""The HTTP side of a server: what clients of OpenAI's API send and get, which rule holds, and what is refused."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from kdtw_jax.cli.listening import bound
from kdtw_jax.constraints import read_rule
from kdtw_jax.errors import UserError
from kdtw_jax.serving import app as app_module
from kdtw_jax.serving import asking as asking_module
from kdtw_jax.serving.app import Serving, make_app
from kdtw_jax.serving.asking import Limits, read_asking, rule_of_system
from kdtw_jax.serving.engine import Engine
from kdtw_jax.serving.job import Event, Job
from kdtw_jax.serving.ledger import Ledger, Ledgers
from kdtw_jax.student import Student
from tests.served import RULES, SHARE_RULE, TEXTS, answer, asking, student, written

FREE = "ask the teacher as often as you like"
CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def own() -> Student:
    return student("word")


@pytest.fixture(scope="module")
def engine(own: Student) -> Iterator[Engine]:
    made = Engine(own, rows=3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def app(engine: Engine) -> Any:
    return make_app(engine, Serving("toy", rule=SHARE_RULE, max_body=5000))


def send(app: Any, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    async def whole() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers, **more)

    return asyncio.run(whole())


def chat(text: str, system: str | None = None, **more: Any) -> dict[str, Any]:
    before = [] if system is None else [{"role": "system", "content": system}]
    return {"model": "toy", "messages": [*before, {"role": "user", "content": text}], **more}


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_an_answer_is_the_students_and_says_who_wrote_what(app: Any, engine: Engine, own: Student) -> None:
    for text in TEXTS:
        expected = answer(written(engine, text, asking(own, FREE, calls=2)))
        for path, body in ((CHAT, chat(text)), (PLAIN, {"prompt": text})):
            found = send(app, "POST", path, json={**body, "rule": FREE, "max_teacher_calls": 2}).json()
            choice, helped = found["choices"][0], found["teacher_help"]
            assert (choice["message"]["content"] if path == CHAT else choice["text"]) == expected.text
            assert choice["writers"] == [list(pair) for pair in expected.writers]
            assert choice["finish_reason"] == ("stop" if expected.tokens[-1] == "</s>" else "length")
            tokens = sum(expected.by_teacher)
            assert found["usage"]["completion_tokens_details"]["teacher_tokens"] == helped["tokens"] == tokens
            assert found["usage"]["completion_tokens"] == len(expected.tokens)
            assert (helped["calls"], helped["positions"]) == (expected.calls, expected.positions)
            assert helped["share"] == round(expected.share, 4) and not helped["degraded"]
            assert helped["budget"]["max_calls"] == 2 and helped["budget"]["from"] == "body"


def test_a_stream_is_the_answer_in_parts_with_its_usage_at_the_end(app: Any) -> None:
    for text in TEXTS:
        for path, body in ((CHAT, chat(text)), (PLAIN, {"prompt": [text, "and this"]})):
            body |= {"rule": FREE}
            whole = send(app, "POST", path, json=body).json()
            parts = events(
                send(app, "POST", path, json={**body, "stream": True, "stream_options": {"include_usage": True}})
            )
            last = parts.pop()
            assert last["choices"] == [] and last["usage"] == whole["usage"]
            assert last["teacher_help"] == whole["teacher_help"]
            for index, choice in enumerate(whole["choices"]):
                mine = [part["choices"][0] for part in parts if part["choices"][0]["index"] == index]
                said = [one["delta"].get("content", "") if path == CHAT else one["text"] for one in mine]
                assert "".join(said) == (choice["message"]["content"] if path == CHAT else choice["text"])
                assert [pair for one in mine for pair in one.get("writers", [])] == choice["writers"]
                reasons = [one["finish_reason"] for one in mine]
                assert reasons[-1] == choice["finish_reason"] and not any(reasons[:-1])


@pytest.mark.parametrize(
    ("header", "body", "system", "said", "origin"),
    [
        ("never ask", {"rule": FREE}, FREE, "never ask", "header"),
        (None, {"rule": FREE}, "Never ask.", FREE, "body"),
        (None, {"max_teacher_share": 0.305}, None, "ask the teacher for at most 30.5% of the words", "body"),
        (None, {"max_teacher_share": 0}, None, "ask the teacher for at most 0% of the words", "body"),
        (None, {}, "You are helpful. Never ask the teacher! Be brief.", "Never ask the teacher", "system"),
        ("höchstens 20 % der Wörter", {}, None, "höchstens 20 % der Wörter", "header"),
        (None, {}, "You are a helpful assistant with 3 rules.", SHARE_RULE, "default"),
        (None, {}, None, SHARE_RULE, "default"),
        (None, {"max_teacher_calls": 1}, None, f"{SHARE_RULE}; ask the teacher at most 1 times", "default"),
    ],
)
def test_the_rule_is_that_of_the_header_then_the_body_then_the_system_message(
    app: Any, header: str | None, body: dict[str, Any], system: str | None, said: str, origin: str
) -> None:
    for encoding in ("utf8", "latin-1"):
        headers: Any = {} if header is None else {b"X-KDTW-Rule": header.encode(encoding)}
        budget = send(app, "POST", CHAT, headers, json=chat("one", system, **body)).json()["teacher_help"]["budget"]
        assert (budget["rule"], budget["from"]) == (said, origin)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (chat("one", rule="ask about 20% of the time"), 400, "understood are"),
        (chat("one", "Ask the teacher for about 20% of the words."), 400, "understood are"),
        (chat("one", "Ask for roughly 30% of the words."), 400, "understood are"),
        (chat("one", max_teacher_share=1.5), 400, "max_teacher_share is a number from 0 to 1"),
        (chat("one", max_teacher_calls=-1), 400, "max_teacher_calls is a whole number"),
        (chat("one", max_teacher_cals=1), 400, "do you mean max_teacher_calls"),
        (chat("one", guard="no"), 400, "guard is true or false"),
        (chat("one", account="a", guard=False), 400, "an account enforces its rule"),
        (chat("one", rule="wait 2 words before asking again", account="b"), 400, "leave the account out"),
        (chat("one", rule=FREE, max_teacher_share=0.2), 400, "contradict each other"),
        (chat("one", tools=[{}]), 400, "tools is not supported"),
        (chat("one", n=2), 400, "n is not supported"),
        (chat("one", max_tokens=0), 400, "max_tokens is a whole number"),
        (chat("one", stream="yes"), 400, "stream is true or false"),
        ({**chat("one"), "model": "other"}, 404, "the model 'other' is not served"),
        (chat("long " * 50), 400, "shorten it, or send truncate"),
        (chat("long " * 1200), 413, "more than 5000 bytes"),
        ({"messages": []}, 400, "messages is a list"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "the last message is the user's"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "parts of type text"),
        ([1], 400, "the body is a JSON object"),
        (chat("one", **{f"field {n}": 0 for n in range(64)}), 400, "66 fields; at most 64"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_would_be_right(app: Any, body: Any, status: int, said: str) -> None:
    response = send(app, "POST", CHAT, json=body)
    assert response.status_code == status and said in response.json()["error"]["message"]
    assert "\n" not in response.json()["error"]["message"]


def test_either_name_limits_the_tokens(app: Any) -> None:
    for limits in ({"max_tokens": 2}, {"max_completion_tokens": None, "max_tokens": 2}, {"max_completion_tokens": 2}):
        found = send(app, "POST", CHAT, json=chat(TEXTS[3], **limits, rule=FREE)).json()
        assert found["usage"]["completion_tokens"] == 2, limits


def test_other_ways_to_call_wrongly(app: Any, engine: Engine) -> None:
    assert send(app, "POST", CHAT, {"content-type": "text/plain"}, content="{}").status_code == 415
    said = send(app, "POST", CHAT, {"content-type": "application/json"}, content="{")
    assert said.status_code == 400 and "no JSON" in said.json()["error"]["message"]
    assert send(app, "GET", "/v1/other").status_code == 404 and send(app, "GET", CHAT).status_code == 405
    assert send(app, "POST", PLAIN, json={"prompt": ["x"] * 33}).status_code == 400
    assert send(app, "POST", CHAT, json=chat("long " * 50, truncate=True)).status_code == 200
    assert send(app, "POST", CHAT, json=chat(" ")).json()["choices"][0]["message"]["content"] == ""
    local = make_app(engine, Serving("toy", hosts=("localhost",)))
    assert send(local, "GET", "/health", {"host": "evil.example"}).status_code == 400
    with pytest.raises(UserError, match="understood are"):
        make_app(engine, Serving("toy", rule="ask about half the time"))


def test_an_account_that_is_spent_is_429(app: Any) -> None:
    body = chat(TEXTS[0], rule=FREE, account="mine", max_teacher_calls=1)
    first = send(app, "POST", CHAT, json=body)
    assert first.json()["teacher_help"]["calls"] == 1
    assert first.json()["teacher_help"]["budget"]["account_calls_left"] == 0
    for stream in (False, True):
        response = send(app, "POST", CHAT, json=chat("again", account="mine", stream=stream))
        assert response.status_code == 429 and response.json()["error"]["code"] == "account_spent"
    assert send(app, "POST", CHAT, json=chat("again", account="mine", rule="never ask")).status_code == 400
    assert send(app, "POST", CHAT, json=chat("again", account="other")).status_code == 200


def test_a_key_is_asked_for_but_not_to_see_whether_it_runs(engine: Engine) -> None:
    locked = make_app(engine, Serving("toy", api_key="secret"))
    for path in ("/v1/models", "/metrics"):
        assert send(locked, "GET", path).status_code == 401
        assert send(locked, "GET", path, {"authorization": "Bearer secres"}).status_code == 401
        assert send(locked, "GET", path, {"authorization": "Bearer secret"}).status_code == 200
    assert send(locked, "GET", "/health").json()["status"] == "ok"


def test_numbers_are_counted_and_no_text_is_logged(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = make_app(engine, Serving("toy"))
    found = send(made, "POST", CHAT, json=chat("a very private text", rule=FREE)).json()
    send(made, "POST", CHAT, json=chat("x", rule="a very private rule"))
    text = send(made, "GET", "/metrics").text
    teacher = found["usage"]["completion_tokens_details"]["teacher_tokens"]
    assert f'kdtw_tokens_total{{writer="teacher"}} {float(teacher)}' in text
    for status in (200, 400):
        assert f'kdtw_requests_total{{path="{CHAT}",status="{status}"}} 1.0' in text
    assert "private" not in caplog.text
    send(make_app(engine, Serving("toy", log_prompts=True)), "POST", CHAT, json=chat("a private text"))
    assert "a private text" in caplog.text


def test_a_sentence_of_a_system_message_is_a_rule_or_none_or_refused(own: Student) -> None:
    known = own.constraints
    assert rule_of_system("Translate.\nAt most 20%, please. Be kind.", known) == "At most 20%, please"
    assert rule_of_system("Help users. Call 3 people. Ask clarifying questions.", known) is None
    with pytest.raises(UserError, match="understood are"):
        rule_of_system("The teacher knows better.", known)
    for rule in RULES:
        assert rule_of_system(f"You translate. {rule}.", known) == rule


def test_a_long_system_message_is_read_in_time_that_grows_as_it_does(
    own: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = own.constraints
    for harmless in ("help " + "1" * 400_000, "help " + "1 " * 400_000, "x; " * 400_000):
        assert rule_of_system(harmless, known) is None
    with pytest.raises(UserError, match="characters"):
        rule_of_system("Ask the teacher " + "very " * 1000 + "often", known)
    with pytest.raises(UserError, match="characters"):
        rule_of_system("Ask for at most 3" + " very" * 1000 + " few words", known)
    late = "Be kind. " * 200
    with pytest.raises(UserError, match="the first 128 sentences"):
        rule_of_system(f"{late}{SHARE_RULE}", known)
    read = list[str]()
    monkeypatch.setattr(asking_module, "read_rule", lambda text, known: (read.append(text), read_rule(text, known))[1])
    assert rule_of_system(f"{SHARE_RULE}. {late}", known) == SHARE_RULE and len(read) == 128


def test_what_takes_as_long_as_a_text_is_not_done_on_the_event_loop(
    app: Any, own: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = list[str]()

    def off_loop(name: str, function: Any) -> Any:
        def called(*given: Any, **named: Any) -> Any:
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            done.append(name)
            return function(*given, **named)

        return called

    for name in ("read_request", "read_asking"):
        monkeypatch.setattr(app_module, name, off_loop(name, getattr(app_module, name)))
    monkeypatch.setattr(type(own), "encode", off_loop("encode", type(own).encode))
    assert send(app, "POST", CHAT, json=chat("one", SHARE_RULE)).status_code == 200
    assert done == ["read_request", "read_asking", "encode"]


def test_a_refused_request_opens_no_account(engine: Engine) -> None:
    small = make_app(engine, Serving("toy", rule=SHARE_RULE, accounts=1))
    spends = {"max_teacher_calls": 1000, "rule": FREE}
    for text in ("long " * 50, "one"):
        assert send(small, "POST", CHAT, json=chat(text, account=text[:9], **spends)).status_code in (200, 400)
    found = send(small, "POST", CHAT, json=chat("one", account="one", **spends)).json()
    assert found["teacher_help"]["budget"]["max_calls"] == 1000


def test_an_account_that_another_request_opens_meanwhile_is_of_its_rule(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[Ledgers]()

    def read(student: Student, limits: Limits, ledgers: Ledgers, **given: Any) -> Any:
        found = read_asking(student, limits, ledgers, **given)
        if not calls:
            ledgers.open("ours", Ledger(RULES[0], None))
        calls.append(ledgers)
        return found

    monkeypatch.setattr(app_module, "read_asking", read)
    budget = send(app, "POST", CHAT, json=chat("one", account="ours")).json()["teacher_help"]["budget"]
    assert (budget["rule"], budget["from"], len(calls)) == (RULES[0], "account", 2)


def test_a_share_is_never_rounded_up(own: Student) -> None:
    for share in (0.1999, 0.0006, 0.3, 0.999):
        budget = float(read_asking(own, Limits(share=share), Ledgers()).rule.budgets[0])
        assert share - 0.001 < budget <= share + 1e-7


def until(true: Callable[[], bool]) -> None:
    """Waits for what has to come, however busy the machine is."""
    for _ in range(20_000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError("it has not come")


def number(app: Any, name: str) -> float:
    """One of those of /metrics."""
    lines = send(app, "GET", "/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def test_a_client_that_goes_away_frees_its_row(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made, deliver = make_app(engine, Serving("toy")), engine._deliver
    began, go = threading.Event(), threading.Event()

    def held(job: Job, event: Event) -> None:
        """The engine waits after the first token until the client has left."""
        deliver(job, event)
        began.set()
        assert go.wait(60)

    monkeypatch.setattr(engine, "_deliver", held)

    async def leave(stream: bool) -> None:
        body = json.dumps(chat("a fourth text", stream=stream, rule=FREE)).encode()
        messages, sent = [{"type": "http.request", "body": body, "more_body": False}], asyncio.Event()

        async def receive() -> Any:
            if messages:
                return messages.pop()
            while not began.is_set():
                await asyncio.sleep(0.001)
            if stream:
                await sent.wait()
            return {"type": "http.disconnect"}

        async def hear(message: Any) -> None:
            sent.set()
            await asyncio.sleep(0)

        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "query_string": b""}
        await made({**scope, "raw_path": CHAT.encode(), "http_version": "1.1"}, receive, hear)

    for stream in (True, False):
        began.clear()
        go.clear()
        asyncio.run(leave(stream))
        go.set()
        until(lambda: engine.active == engine.waiting == 0)
    assert number(made, "kdtw_cancelled_total") == 2.0 and number(made, "kdtw_failed_total") == 0.0
    # What was written for them is counted all the same.
    assert number(made, "kdtw_tokens_total") == 2.0 and number(made, "kdtw_teacher_positions_total") > 0


def test_a_stream_that_fails_is_not_a_client_that_went_away(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made, deliver, tokens = make_app(engine, Serving("toy")), engine._deliver, list[Event]()

    def fails(job: Job, event: Event) -> None:
        tokens.append(event)
        if len(tokens) == 2:
            raise RuntimeError("broken")
        deliver(job, event)

    monkeypatch.setattr(engine, "_deliver", fails)
    said = send(made, "POST", CHAT, json=chat("a fourth text", stream=True, rule=FREE))
    assert said.status_code == 200 and "cannot be finished: broken" in said.text
    assert number(made, "kdtw_failed_total") == 1.0 and number(made, "kdtw_cancelled_total") == 0.0
    assert number(made, "kdtw_tokens_total") == 2.0


@pytest.mark.parametrize("stream", [False, True])
def test_of_several_prompts_those_before_the_account_is_spent_are_answered(engine: Engine, stream: bool) -> None:
    made = make_app(engine, Serving("toy"))
    body = {"prompt": [TEXTS[0]] * 32, "rule": FREE, "account": "mine", "max_teacher_calls": 1, "max_tokens": 4}
    said = send(made, "POST", PLAIN, json={**body, "stream": stream})
    assert said.status_code == 200
    choices = [part["choices"][0] for part in events(said)] if stream else said.json()["choices"]
    reasons = {choice["index"]: choice["finish_reason"] for choice in choices if choice["finish_reason"]}
    assert len(reasons) == 32 and reasons[0] != "account_spent" == reasons[31]
    assert number(made, "kdtw_teacher_calls_total") == 1.0
    assert send(made, "POST", PLAIN, json=body).status_code == 429


def test_more_prompts_than_there_is_room_for_are_refused_at_once(
    app: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_queue", 1)
    assert send(app, "POST", PLAIN, json={"prompt": ["one"] * 4}).status_code == 200
    said = send(app, "POST", PLAIN, json={"prompt": ["one"] * 5})
    assert said.status_code == 400 and "at most 4 at a time" in said.json()["error"]["message"]


@pytest.fixture(scope="module")
def address(app: Any) -> Iterator[str]:
    """Of a server of its own thread."""
    listening = bound("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


def test_the_official_client_talks_to_it(address: str, engine: Engine, own: Student) -> None:
    expected = answer(written(engine, TEXTS[1], asking(own, FREE)))
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["toy"] and client.models.retrieve("toy").id == "toy"
        messages: Any = [{"role": "system", "content": FREE}, {"role": "user", "content": TEXTS[1]}]
        whole = client.chat.completions.create(model="toy", messages=messages)
        assert whole.choices[0].message.content == expected.text and whole.usage is not None
        assert whole.usage.completion_tokens_details.teacher_tokens == sum(expected.by_teacher)  # type: ignore
        assert whole.teacher_help["calls"] == expected.calls  # type: ignore[attr-defined]
        plain = client.completions.create(model="toy", prompt=TEXTS[1], extra_body={"rule": FREE})
        assert plain.choices[0].text == expected.text
        usual: Any = {"model": "toy", "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(**usual))
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected.text
        assert chunks[-1].usage == whole.usage and chunks[-2].choices[0].finish_reason
        bare = client.completions.create(model="toy", prompt=TEXTS[1], stream=True, extra_headers={"X-KDTW-Rule": FREE})
        assert "".join(c.choices[0].text for c in bare) == expected.text
        with pytest.raises(openai.BadRequestError, match="understood are"):
            client.completions.create(model="toy", prompt="x", extra_body={"rule": "ask about half the time"})
        spend: Any = {"model": "toy", "prompt": TEXTS[0], "extra_body": {"account": "c", "max_teacher_calls": 0}}
        with pytest.raises(openai.RateLimitError, match="calls to the teacher are made"):
            client.completions.create(**spend)
        stream = client.chat.completions.create(**usual)
        next(iter(stream))
        stream.close()  # and goes away
    until(lambda: engine.active == engine.waiting == 0)


def test_an_address_that_is_taken_is_said(address: str) -> None:
    with pytest.raises(UserError, match="take another --port"):
        bound("127.0.0.1", int(address.rpartition(":")[2]))


def test_an_account_begins_with_a_rule(own: Student) -> None:
    with pytest.raises(UserError, match="give a rule"):
        read_asking(own, Limits(account="new"), Ledgers())
    assert read_asking(own, Limits(account="new"), Ledgers(), default=SHARE_RULE).said == SHARE_RULE
    assert read_asking(own, Limits(account="new", calls=2), Ledgers()).ledger is not None
