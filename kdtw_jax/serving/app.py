"""The HTTP side of a server: routes, refusals, streams."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kdtw_jax.constraints import read_rule
from kdtw_jax.errors import UserError
from kdtw_jax.serving.asking import Asking, read_asking
from kdtw_jax.serving.engine import Busy, Done, Engine, Event, Failed, Job, Written
from kdtw_jax.serving.ledger import AccountSpent, Ledgers
from kdtw_jax.serving.metrics import CONTENT_TYPE, Metrics
from kdtw_jax.serving.page import FILES, Page, page_file
from kdtw_jax.serving.wire import Reply, Request, error_body, read_request

RULE_HEADER = "X-KDTW-Rule"
_LOG = logging.getLogger("kdtw_jax.serving")
_GONE = 499  # as nginx has it: the client closed the connection
_KNOWN_PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics")


@dataclass(frozen=True)
class Serving:
    """Settings of a server."""

    model: str
    """the name that clients call it by"""
    rule: str | None = None
    """of requests that say none, in words; None: not to ask"""
    api_key: str = ""
    """that clients have to have; "": none"""
    max_body: int = 1 << 20
    """bytes of a request"""
    accounts: int = 1024
    """that are kept at the most"""
    hosts: tuple[str, ...] = ("*",)
    """names by which clients may call the server"""
    log_prompts: bool = False
    """texts stand in the log"""


class _Refused(Exception):
    """A reply in place of an answer."""

    def __init__(self, status: int, body: dict[str, Any], **headers: str):
        self.response = JSONResponse(body, status, {name.replace("_", "-"): said for name, said in headers.items()})


class _Gone(Exception):
    """The client went away."""


def make_app(engine: Engine, settings: Serving, page: Page | None = None) -> Starlette:
    """The application of an engine, which is closed with it.

    Args:
      engine: who writes.
      settings: of the server.
      page: of the server, at /; None: there is none.

    Raises:
      UserError: the rule is not understood.
    """
    if settings.rule is not None:
        if engine.student.teacher is None:
            raise UserError("this student did not learn to ask: leave the rule out")
        read_rule(settings.rule, engine.student.constraints)
    server = _Server(engine, settings, page)
    routes = [
        Route("/v1/chat/completions", server.endpoint(partial(server.complete, chat=True)), methods=["POST"]),
        Route("/v1/completions", server.endpoint(partial(server.complete, chat=False)), methods=["POST"]),
        Route("/v1/models", server.endpoint(server.models)),
        Route("/v1/models/{name:path}", server.endpoint(server.models)),
        Route("/metrics", server.endpoint(server.metrics_text)),
        Route("/health", server.health),
    ]
    if page is not None:
        routes += [Route(path, page_file) for path in ("/", *(f"/{name}" for name in FILES))]
        routes.append(Route("/page.json", server.endpoint(server.page_facts)))
        routes.append(Route("/page/teacher", server.endpoint(server.teacher_alone), methods=["POST"]))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)

    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts), www_redirect=False)
    return Starlette(
        routes=routes,
        middleware=[hosts],
        lifespan=lifespan,
        exception_handlers={404: _no_route, 405: _no_route},
    )


async def _no_route(request: HTTPRequest, error: Any) -> Response:
    said = f"{request.method} {request.url.path} is not served; known are {', '.join(_KNOWN_PATHS)}"
    return JSONResponse(error_body(said, "invalid_request_error", "not_found"), error.status_code)


class _Server:
    """The endpoints."""

    def __init__(self, engine: Engine, settings: Serving, page: Page | None):
        self._engine, self._settings, self._page = engine, settings, page
        self._ledgers, self._metrics = Ledgers(settings.accounts), Metrics(engine)

    def endpoint(
        self, answer: Callable[[HTTPRequest], Awaitable[Response]]
    ) -> Callable[[HTTPRequest], Awaitable[Response]]:
        """An endpoint that asks for the key, says what is wrong as OpenAI's API does, and is counted."""

        async def wrapped(request: HTTPRequest) -> Response:
            try:
                self._check_key(request)
                response = await answer(request)
            except _Refused as refused:
                response = refused.response
            except UserError as error:
                response = JSONResponse(error_body(str(error), "invalid_request_error"), 400)
            except AccountSpent as error:  # which trying again does not change
                said = error_body(str(error), "insufficient_quota", "account_spent")
                response = JSONResponse(said, 429, {"x-should-retry": "false"})
            except Busy as error:
                response = JSONResponse(error_body(str(error), "server_error", "busy"), 503, {"retry-after": "1"})
            except (_Gone, ClientDisconnect):
                self._metrics.gone()
                response = Response(status_code=_GONE)
            except Exception:
                _LOG.exception("a request failed")
                response = JSONResponse(error_body("the server failed at this request", "server_error"), 500)
            path = request.url.path
            self._metrics.answered(path if path in _KNOWN_PATHS else "other", response.status_code)
            return response

        return wrapped

    def _check_key(self, request: HTTPRequest) -> None:
        key = self._settings.api_key
        said = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key and not hmac.compare_digest(said.encode("utf8", "replace"), key.encode("utf8", "replace")):
            wrong = error_body("the API key is missing or wrong", "invalid_request_error", "invalid_api_key")
            raise _Refused(401, wrong, www_authenticate="Bearer")

    async def health(self, _: HTTPRequest) -> Response:
        """Whether requests are taken."""
        is_open = self._engine.is_open
        said = {
            "status": "ok" if is_open else "closing",
            "active": self._engine.active,
            "waiting": self._engine.waiting,
        }
        return JSONResponse(said, 200 if is_open else 503)

    async def metrics_text(self, _: HTTPRequest) -> Response:
        """The numbers for Prometheus."""
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def models(self, request: HTTPRequest) -> Response:
        """The one model, alone or as a list."""
        name = self._settings.model
        one = {"id": name, "object": "model", "created": 0, "owned_by": "kdtw_jax"}
        if "name" not in request.path_params:
            return JSONResponse({"object": "list", "data": [one]})
        self._check_model(request.path_params["name"])
        return JSONResponse(one)

    def _check_model(self, name: str | None) -> None:
        if name not in (None, self._settings.model):
            said = f"the model {name!r:.80} is not served; this is {self._settings.model!r}"
            raise _Refused(404, error_body(said, "invalid_request_error", "model_not_found", "model"))

    async def page_facts(self, _: HTTPRequest) -> Response:
        """What the page shows before anything is written."""
        assert self._page is not None
        return JSONResponse(self._page.facts(self._settings.model, self._settings.rule))

    async def teacher_alone(self, http: HTTPRequest) -> Response:
        """The teacher's own answer, for the page."""
        assert self._page is not None
        body = await self._body(http)
        return JSONResponse({"text": await asyncio.to_thread(self._page.teacher_writes, body)})

    async def complete(self, http: HTTPRequest, *, chat: bool) -> Response:
        """An answer, whole or as a stream."""
        begun = time.monotonic()
        request = read_request(await self._body(http), chat=chat)
        self._check_model(request.model)
        header = http.headers.get(RULE_HEADER)
        given = {"header": header, "system": request.system, "default": self._settings.rule}
        asking = read_asking(self._engine.student, request.limits, self._ledgers, **given)
        if not request.truncate:
            self._check_length(request)
        if self._settings.log_prompts:
            _LOG.info("prompts %r under the rule %r", request.texts, asking.said)
        work = _Work(self._engine, request, asking, asyncio.get_running_loop())
        finish = partial(self._finish, begun)
        try:
            if request.stream:
                await work.first(http.receive)
                return _EventStream(work, Reply(request, self._settings.model), finish)
            answers = await work.all(http.receive)
        except BaseException:
            work.cancel()
            raise
        finish(answers)
        return JSONResponse(Reply(request, self._settings.model).whole(asking, answers))

    def _finish(self, begun: float, answers: Sequence[Done] | None) -> None:
        if answers is None:
            self._metrics.gone()
        else:
            self._metrics.written(answers, time.monotonic() - begun)

    def _check_length(self, request: Request) -> None:
        student = self._engine.student
        for text in request.texts:
            source, cut = student.encode(text)
            if cut:
                said = (
                    f"the text has {len(source) + cut} tokens with its instruction, and the student reads "
                    f"{student.max_source}; shorten it, or send truncate: true to have its beginning read"
                )
                raise _Refused(400, error_body(said, "invalid_request_error", "context_length_exceeded"))

    async def _body(self, http: HTTPRequest) -> object:
        """The body as JSON. Only what says to be JSON is read: a browser asks before it sends that elsewhere."""
        if not http.headers.get("content-type", "").lower().startswith("application/json"):
            raise _Refused(
                415, error_body("the body is JSON: send content-type: application/json", "invalid_request_error")
            )
        most, parts, size = self._settings.max_body, list[bytes](), 0
        async for part in http.stream():
            size += len(part)
            if size > most:
                said = f"the body has more than {most} bytes"
                raise _Refused(413, error_body(said, "invalid_request_error", "body_too_large"), connection="close")
            parts.append(part)
        try:
            return json.loads(b"".join(parts))
        except (ValueError, RecursionError) as error:
            raise UserError(f"the body is no JSON: {error!s:.200}") from None


class _Work:
    """The jobs of one request, and what comes of them on the side of the event loop."""

    def __init__(self, engine: Engine, request: Request, asking: Asking, loop: asyncio.AbstractEventLoop):
        self.student, self.request, self.asking = engine.student, request, asking
        self._engine, self._events = engine, asyncio.Queue[tuple[int, Event]]()
        self._first: list[tuple[int, Event]] = []
        self._jobs: list[Job] = []
        put = self._events.put_nowait

        def deliver(index: int, event: Event) -> None:
            if isinstance(event, Written) and not request.stream:
                return
            loop.call_soon_threadsafe(put, (index, event))

        try:
            for index, text in enumerate(request.texts):
                self._jobs.append(engine.submit(text, asking, partial(deliver, index), request.most))
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        for job in self._jobs:
            if not job.over:
                self._engine.cancel(job)

    async def next(self) -> tuple[int, Event]:
        return self._first.pop() if self._first else await self._events.get()

    async def first(self, receive: Receive) -> None:
        """Waits for the first event: what fails before it is a status of its own."""
        event = await unless_gone(self.next(), receive)
        if isinstance(event[1], Failed):
            raise event[1].error
        self._first.append(event)

    async def all(self, receive: Receive) -> list[Done]:
        return await unless_gone(self._all(), receive)

    async def _all(self) -> list[Done]:
        answers: dict[int, Done] = {}
        while len(answers) < len(self._jobs):
            index, event = await self.next()
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Done):
                answers[index] = event
        return [answers[index] for index in range(len(answers))]


async def unless_gone(work: Any, receive: Receive) -> Any:
    """What is awaited, unless the client goes away before.

    Raises:
      _Gone: it went.
    """
    wanted, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((wanted, gone), return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            return wanted.result()
        raise _Gone
    finally:
        for task in (wanted, gone):
            task.cancel()
        await asyncio.gather(wanted, gone, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _EventStream(Response):
    """Server-sent events: a chunk for each token, with its writer."""

    media_type = "text/event-stream"

    def __init__(self, work: _Work, reply: Reply, finish: Callable[[Sequence[Done] | None], None]):
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._work, self._reply, self._finish = work, reply, finish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        done: list[Done] | None = None
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            done = await unless_gone(self._chunks(send), receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (_Gone, OSError):
            done = None
        finally:
            self._work.cancel()
            self._finish(done)

    async def _chunks(self, send: Send) -> list[Done] | None:
        work, reply = self._work, self._reply
        request, texts = work.request, [_Growing(work.student.model.tokenizer.decode) for _ in work.request.texts]
        answers: dict[int, Done] = {}

        async def say(said: object) -> None:
            body = f"data: {said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)}\n\n"
            await send({"type": "http.response.body", "body": body.encode("utf8", "replace"), "more_body": True})

        if request.chat:
            for index in range(len(texts)):
                await say(reply.begin(index))
        while len(answers) < len(texts):
            index, event = await work.next()
            if isinstance(event, Failed):
                _LOG.warning("a stream failed: %s", event.error)
                await say(error_body(f"the output cannot be finished: {event.error}", "server_error"))
                return None
            if isinstance(event, Done):
                answers[index] = event
                await say(reply.end(index, texts[index].rest(event.answer.text), event, work.asking))
            else:
                new = texts[index].add(event.token)
                await say(reply.chunk(index, new, work.student.pieces[event.token], event))
        ordered = [answers[index] for index in range(len(texts))]
        if request.include_usage:
            await say(reply.usage(work.asking, ordered))
        await say("[DONE]")
        return ordered


class _Growing:
    """The text of an output as it grows: what was said of it is never taken back."""

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode, self._tokens, self._said = decode, list[int](), ""

    def add(self, token: int) -> str:
        """What is new with a token, "" while it may still change."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        if text.endswith("\ufffd") or not text.startswith(self._said):
            return ""
        new, self._said = text[len(self._said) :], text
        return new

    def rest(self, text: str) -> str:
        """What is left of the whole text."""
        return text[len(self._said) :] if text.startswith(self._said) else ""
